"""The figures as PNG files."""

from __future__ import annotations

import pytest
from browser import BROWSER
from made_up_sweep import made_up_data

from sweeps.report.best_so_far import best_section
from sweeps.report.pictures import PicturesError, write_pictures


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no browser on this machine")
def test_every_figure_is_a_picture_and_older_ones_are_removed(tmp_path):
    (tmp_path / "old.png").write_bytes(b"old")
    (tmp_path / "notes.txt").write_text("mine")
    figures = best_section(made_up_data(10)).figures
    (path,) = write_pictures(figures, tmp_path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert {p.name for p in tmp_path.iterdir()} == {"best_so_far.png", "notes.txt"}


def test_without_a_browser_it_is_said_how_to_get_one(tmp_path, monkeypatch):
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "none"))
    with pytest.raises(PicturesError, match="Chrome, Chromium or Edge; install one, or run"):
        write_pictures(best_section(made_up_data(10)).figures, tmp_path)
