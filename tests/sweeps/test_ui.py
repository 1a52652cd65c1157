"""The command behind `make ui`."""

from __future__ import annotations

from sweeps.ui import command


def test_it_listens_here_only_and_tells_nobody_the_store() -> None:
    words = command(5000)
    assert words[words.index("--host") + 1] == "127.0.0.1"
    assert "--backend-store-uri" not in words
