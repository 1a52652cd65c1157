import numpy as np
import pytest

from fsdet.errors import ConfigError, DataError
from fsdet.inference.video import VideoWriter, frame_rate, frames_of


def test_frames_written_are_frames_read(tmp_path):
    path = tmp_path / "clip.mp4"
    shades = [40, 90, 140, 190]
    with VideoWriter(path, 12.5) as writer:
        for shade in shades:
            writer.write(np.full((48, 64, 3), (shade, 20, 20), np.uint8))
        assert not path.exists()  # it appears when it is complete
    frames = list(frames_of(path))
    assert [f.shape for f in frames] == [(48, 64, 3)] * 4
    assert [round(float(f[..., 0].mean())) for f in frames] == pytest.approx(shades, abs=6)
    assert frames[3][..., 2].mean() < 40  # red is still red
    assert frame_rate(path) == pytest.approx(12.5)
    assert [p.name for p in tmp_path.iterdir()] == ["clip.mp4"]


def test_an_interrupted_video_leaves_nothing(tmp_path):
    def interrupted() -> None:
        with VideoWriter(tmp_path / "clip.mp4", 25) as writer:
            writer.write(np.zeros((48, 64, 3), np.uint8))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not list(tmp_path.iterdir())


def test_a_file_without_frames_is_refused(tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"no video")
    with pytest.raises(DataError, match=r"clip\.mp4: no frame of it can be decoded"):
        list(frames_of(tmp_path / "clip.mp4"))


def test_a_folder_that_is_not_there_cannot_be_written_to(tmp_path):
    with (
        pytest.raises(ConfigError, match=r"out: .*clip\.mp4 cannot be written"),
        VideoWriter(tmp_path / "nowhere" / "clip.mp4", 25) as writer,
    ):
        writer.write(np.zeros((48, 64, 3), np.uint8))
