"""`python -m sweeps.report`, and the report at the end of a sweep: real sweeps with made-up trainers."""

from __future__ import annotations

import io
import re
import shutil
from pathlib import Path

import pytest
import yaml
from conftest import small_spec, sweep
from made_up_trainers import made_up
from mlflow import MlflowClient
from rich.console import Console

from sweeps import run
from sweeps.report.__main__ import main
from sweeps.report.write import PAGE, PICTURES, report_at_end
from sweeps.storage.lookup import find_folder
from sweeps.tracking import Tracker

pytestmark = pytest.mark.slow
BASELINES = {"good": {"lr": 1.0}, "explodes": {"lr": 3.0}}


@pytest.fixture
def without_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROWSER_PATH", "/nonexistent")


@pytest.mark.usefixtures("without_browser")
def test_the_command_writes_the_page_and_logs_it(capsys):
    swept = sweep(small_spec(baselines=BASELINES, trials=3), made_up)
    assert main(["small"]) == 0
    printed = capsys.readouterr().out
    assert f"report: {swept.folder.path / PAGE}" in printed
    assert "pictures: left out" in printed
    assert "plotly_get_chrome" in printed
    text = (swept.folder.path / PAGE).read_text()
    assert "1 of 3 trials exploded, at step 6 in the median" in text
    artifacts = MlflowClient(swept.uri).list_artifacts(swept.parent)
    assert PAGE in {artifact.path for artifact in artifacts}


def test_a_sweep_that_does_not_exist_is_one_line(capsys):
    assert main(["nothing"]) == 2
    assert capsys.readouterr().err.startswith("error: nothing: no such sweep in ")


@pytest.mark.usefixtures("without_browser")
def test_a_sweep_ends_with_its_report(capsys):
    values = small_spec().model_dump(mode="json", exclude_unset=True)
    Path("small.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    assert run.main(["small.yaml"], train=made_up) == 0
    folder = find_folder("small")
    last = capsys.readouterr().out.rstrip().splitlines()[-2:]
    assert last[0] == f"report: {folder.path / PAGE}"
    assert last[1].startswith("  pictures: left out")
    assert (folder.path / PAGE).is_file()


def test_a_report_that_fails_costs_one_line(tmp_path):
    swept = sweep(small_spec(), made_up)
    shutil.rmtree(swept.folder.trials_dir)
    swept.folder.study_file.unlink()
    printed = io.StringIO()
    tracker = Tracker(swept.uri, "sweeps")
    try:
        report_at_end(swept.folder, tracker, Console(file=printed, width=300))
    finally:
        tracker.close()
    lines = printed.getvalue().splitlines()
    assert lines[0] == "writing the report …"
    assert re.fullmatch(
        r"warning: no report was written \(.*no study there.*\); to try again: .* -m sweeps.report small",
        lines[1],
    )
    assert not (swept.folder.path / PICTURES).exists()
