"""Remembers the fingerprints of a dataset's files, so that only the first process of a machine reads them all."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from fsdet.data.fingerprint import fingerprint, sampled_fingerprint
from fsdet.files import write_text_atomic


class Digests:
    """Fingerprints by file; one that has the size and time of change of before is not read again.

    Args:
        cache: folder of all caches.
        root: of the dataset.
    """

    def __init__(self, cache: Path, root: Path) -> None:
        name = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]
        self._path = cache / f"digests-{name}.json"
        self._known = self._read()
        self._seen: dict[str, list[object]] = {}

    def digest(self, file: Path, video: bool) -> str:
        """The fingerprint of a file, of a video the sampled one.

        Raises:
            OSError: the file cannot be read.
        """
        state = file.stat()
        stamp: list[object] = [state.st_size, state.st_mtime_ns, video]
        known = self._known.get(str(file), [])
        compute = sampled_fingerprint if video else fingerprint
        digest = str(known[3]) if known[:3] == stamp else compute(file)
        self._seen[str(file)] = [*stamp, digest]
        return digest

    def save(self) -> None:
        """Remember what was asked for; what was not is forgotten."""
        if self._seen != self._known:
            write_text_atomic(self._path, json.dumps(self._seen))

    def _read(self) -> dict[str, list[object]]:
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}
