"""Checks the archive of a `.pt` file before torch reads it.

`torch.save` writes a zip file with a checksum for each part, which `torch.load` does not verify. Nor does it compare
the size of a tensor that the pickle in it claims with the part that holds its values.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import IO, Any

import torch

from fsdet.files import open_regular

ITEM_SIZES = {
    **{f"torch.{name}Storage": 2 for name in ("Half", "BFloat16", "Short")},
    **{f"torch.{name}Storage": 4 for name in ("Float", "Int")},
    **{f"torch.{name}Storage": 8 for name in ("Double", "Long")},
    **{f"torch.{name}Storage": 1 for name in ("Byte", "Char", "Bool")},
}
"""Kind of tensor values in a file -> bytes of one."""


def check_archive(path: Path) -> None:
    """Refuse a file that was cut off or changed since `torch.save` wrote it, without reading it into memory.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no such archive, or damaged; the message says how.
        NotImplementedError: it uses a feature of zip files that `torch.save` does not.
    """
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            check_entries(archive, path.stat().st_size)
    except zipfile.BadZipFile:
        raise ValueError("it is cut off or damaged") from None


def check_entries(archive: zipfile.ZipFile, n_bytes: int) -> None:
    """Refuse parts that are compressed, overlap, or do not match their checksums.

    Args:
        archive: open for reading.
        n_bytes: length of the whole file.

    Raises:
        ValueError: see `check_archive`.
    """
    entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError("its parts are compressed, which torch.save does not do")
    names = {entry.filename for entry in entries}
    if len(names) < len(entries) or sum(entry.file_size for entry in entries) > n_bytes:
        raise ValueError("its parts overlap")
    if (broken := archive.testzip()) is not None:
        raise ValueError(f"it is damaged: the checksum of {Path(broken).name} is wrong")


def check_claims(path: Path) -> None:
    """Refuse a file whose pickle asks for anything but tensors and plain values, or for more values than it holds.

    Nothing is built and no memory taken.

    Raises:
        pickle.UnpicklingError: it holds other objects.
        ValueError: it is no archive of `torch.save`, or a tensor is larger than its part.
    """
    with zipfile.ZipFile(path) as archive:
        sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
        pickles = [name for name in sizes if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError("it holds no data.pkl")
        with archive.open(pickles[0]) as file:
            inspector = _Inspector(file)
            inspector.load()
    folder = pickles[0].removesuffix("data.pkl")
    for key, n_bytes in inspector.claimed:
        held = sizes.get(f"{folder}data/{key}")
        if held != n_bytes:
            raise ValueError(f"tensor values {key} are {n_bytes} bytes, but the file holds {held}")


class _Built:
    """Stands for a tensor."""

    def __new__(cls, *_: object) -> _Built:
        return super().__new__(cls)


class _Inspector(pickle.Unpickler):
    """Lists the tensor values that a pickle claims; builds none."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self.claimed: set[tuple[str, int]] = set()
        """Name of a part and its length in bytes."""

    def find_class(self, module: str, name: str) -> Any:
        found = f"{module}.{name}"
        if found in ITEM_SIZES:
            return ITEM_SIZES[found]
        if found == "collections.OrderedDict":
            return OrderedDict
        if found == "torch._utils._rebuild_tensor_v2":
            return _Built
        raise pickle.UnpicklingError(found)

    def persistent_load(self, pid: Any) -> Any:
        _, item_size, key, _, count = pid
        self.claimed.add((str(key), int(item_size) * int(count)))
        return _Built()


def finite(tensor: torch.Tensor) -> bool:
    """Whether all values are finite; those of an integer type are."""
    return not tensor.is_floating_point() or bool(tensor.isfinite().all())
