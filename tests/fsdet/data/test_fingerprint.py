import os

from fsdet.data import fingerprint as digests
from fsdet.data.fingerprint import FingerprintCache, fingerprint, sampled_fingerprint


def test_only_what_changed_is_read_again(tmp_path, monkeypatch):
    files = [tmp_path / name for name in ("a.png", "b.png")]
    for number, file in enumerate(files):
        file.write_bytes(bytes([number]) * 5000)
    first = FingerprintCache(tmp_path / "cache", tmp_path)
    before = [first.digest(file, video=False) for file in files]
    assert before == [fingerprint(file) for file in files]
    first.save()
    read = []
    monkeypatch.setattr(digests, "fingerprint", lambda path: read.append(path) or fingerprint(path))
    files[1].write_bytes(b"x" * 5000)
    os.utime(files[1], ns=(1, 1))
    second = FingerprintCache(tmp_path / "cache", tmp_path)
    after = [second.digest(file, video=False) for file in files]
    assert read == [files[1]]
    assert after[0] == before[0]
    assert after[1] == fingerprint(files[1]) != before[1]


def test_a_video_is_sampled_and_a_broken_memory_begins_anew(tmp_path):
    (tmp_path / "v.mp4").write_bytes(b"v" * 10)
    memory = FingerprintCache(tmp_path, tmp_path)
    assert memory.digest(tmp_path / "v.mp4", video=True) == sampled_fingerprint(tmp_path / "v.mp4")
    memory.save()
    for file in tmp_path.glob("digests-*.json"):
        file.write_text("{")
    again = FingerprintCache(tmp_path, tmp_path)
    assert again.digest(tmp_path / "v.mp4", video=False) == fingerprint(tmp_path / "v.mp4")
