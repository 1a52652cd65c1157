"""Fingerprints of files: whether two files are the same, and whether a file is still the one that was read before.

An image counts as another's copy by its fingerprint, so it is hashed whole: uncompressed images of one size and
background differ in few places. Of a video, and of what the cache wrote itself, the length and evenly spaced blocks
are hashed, which finds a file that was cut, replaced or encoded anew at a cost that does not grow with its length; a
few changed bytes between the blocks of a file of the same length go unnoticed.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

BLOCK = 4096
"""Bytes read at each place."""
BLOCKS = 64
"""Places that are read of a file."""


def fingerprint(path: Path) -> str:
    """Hexadecimal digest of all bytes of a file; 0.12 ms for an image of coco128 (166 kB, in memory), 0.7 ms a MB.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sampled_fingerprint(path: Path) -> str:
    """Hexadecimal digest of the length of a file and of `BLOCKS` pieces from its first byte to its last.

    A file that is no longer than the pieces is hashed whole.

    Raises:
        OSError: the file cannot be read.
    """
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb", buffering=0) as file:
        length = os.fstat(file.fileno()).st_size
        digest.update(str(length).encode())
        if length <= BLOCKS * BLOCK:
            digest.update(file.read())
            return digest.hexdigest()
        for number in range(BLOCKS):
            file.seek((length - BLOCK) * number // (BLOCKS - 1))
            digest.update(file.read(BLOCK))
    return digest.hexdigest()
