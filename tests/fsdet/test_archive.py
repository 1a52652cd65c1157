import zipfile
from pathlib import Path

import pytest
import torch
from made_up_checkpoint import made_up_content

from fsdet.checkpoint.content import load_checkpoint, save_checkpoint
from fsdet.config import TrainConfig
from fsdet.errors import CheckpointError

CONFIG = TrainConfig(embed_dim=32)


@pytest.mark.parametrize("start", range(0, 1000, 97))
def test_a_changed_bit_changes_no_value_unnoticed(tmp_path, start):
    path = tmp_path / "c.pt"
    save_checkpoint(path, made_up_content(CONFIG), CONFIG)
    content = path.read_bytes()
    position = start * len(content) // 1000
    changed = bytes([content[position] ^ 4])
    path.write_bytes(content[:position] + changed + content[position + 1 :])
    try:
        state = load_checkpoint(path)
    except CheckpointError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:  # padding between the parts
        expected = made_up_content(CONFIG)
        assert state["config"] == CONFIG.model_dump(mode="json")
        for name, tensor in expected["detector"].items():
            assert torch.equal(state["detector"][name], tensor)


def test_a_changed_weight_is_told_as_damage(tmp_path):
    path = tmp_path / "c.pt"
    save_checkpoint(path, made_up_content(CONFIG), CONFIG)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1  # among the weights, which are nearly all of the file
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"c\.pt: resume: .*it is damaged: the checksum of"):
        load_checkpoint(path)


def test_values_beyond_the_end_of_their_part_are_refused(tmp_path):
    """torch would read what happens to lie behind them in memory."""
    path = tmp_path / "c.pt"
    config = CONFIG.model_dump(mode="json")
    torch.save({"format": 1, "config": config, "detector": {"a": torch.zeros(70_001)}}, path)
    content = path.read_bytes()
    number = (70_001).to_bytes(4, "little")
    assert number in content
    forged = content.replace(number, (90_001).to_bytes(4, "little"))
    path.write_bytes(repaired(forged, tmp_path))
    with pytest.raises(CheckpointError, match="are 360004 bytes, but the file holds 280004"):
        load_checkpoint(path)


def repaired(content: bytes, folder: Path) -> bytes:
    """The same archive with correct checksums."""
    (folder / "in.zip").write_bytes(content)
    with (
        zipfile.ZipFile(folder / "in.zip") as old,
        zipfile.ZipFile(folder / "out.zip", "w") as new,
    ):
        for entry in old.infolist():
            with old.open(entry) as part:
                part._expected_crc = None  # type: ignore[attr-defined]
                new.writestr(entry.filename, part.read())
    return (folder / "out.zip").read_bytes()


def test_a_compressed_archive_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "c.pt", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("c/data.pkl", bytes(100_000_000))
    with pytest.raises(CheckpointError, match="its parts are compressed"):
        load_checkpoint(tmp_path / "c.pt")
