import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from made_up_runs import EXPLOSION, GOOD_EVALUATIONS, PEAKS, Row, changed, steps

from fsdet.checkpoint.content import save_checkpoint
from fsdet.config import TrainConfig
from fsdet.config.parsing import save_config
from fsdet.errors import ConfigError
from fsdet.health.checklist import (
    health_of_run,
    load_steps,
    read_health,
    write_health,
)
from fsdet.health.record import HEALTH_FILE


def as_run(folder: Path, rows: list[Row], evaluations: list[Row], **settings: Any) -> TrainConfig:
    """A run folder as the trainer leaves it."""
    folder.mkdir(exist_ok=True)
    config = TrainConfig(**settings)
    save_config(config, folder / "config.yaml")
    for name, lines in (("steps", rows), ("evaluations", evaluations)):
        text = [{k: v if math.isfinite(v) else str(v) for k, v in row.items()} for row in lines]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in text))
    return config


def test_the_file_holds_the_report_and_reads_back(tmp_path):
    rows = changed(200, grad__norm=lambda n: math.inf if n == 200 else 9.0)
    config = as_run(tmp_path, rows, GOOD_EVALUATIONS)
    peaks = {**PEAKS, "backbone.x": math.inf, "backbone.y": 0.0}
    written = write_health(tmp_path, config, peaks, EXPLOSION)
    text = (tmp_path / HEALTH_FILE).read_text()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert read_health(tmp_path) == written
    assert health_of_run(tmp_path) == written
    assert written.dead == ("backbone.y",)


def test_a_killed_run_is_judged_without_its_last_cut_line(tmp_path):
    as_run(tmp_path, steps(150), GOOD_EVALUATIONS[:2])
    path = tmp_path / "steps.jsonl"
    path.write_text(path.read_text()[:-30])
    assert len(load_steps(tmp_path)) == 149
    found = health_of_run(tmp_path)
    assert not found.failed
    assert found.check("dead_tensors").status == "skip"
    with pytest.raises(ConfigError, match=r"holds no health\.json that can be read"):
        read_health(tmp_path)


def test_an_explosion_is_found_again_in_the_steps_of_a_killed_run(tmp_path):
    as_run(tmp_path, changed(40, grad__norm=lambda n: 2e4 if n > 36 else 9.0), [])
    found = health_of_run(tmp_path).check("explosion")
    assert found.status == "fail"
    assert "step 39: norm_ceiling" in found.message


def test_a_report_of_earlier_steps_is_not_believed(tmp_path):
    config = as_run(tmp_path, steps(100), [])
    write_health(tmp_path, config, {"backbone.x": 0.0}, EXPLOSION)
    as_run(tmp_path, steps(150), [])
    found = health_of_run(tmp_path)
    assert found.check("explosion").status == "pass"
    assert found.dead == ()


@pytest.mark.parametrize(
    "line",
    ['{"loss": 1.0}', '{"step": "nan"}', '{"step": null}', '{"step": 1' + 400 * "0" + "}", "[]", "7"],
)  # fmt: skip
def test_lines_without_a_step_are_none_of_the_run(tmp_path, line):
    as_run(tmp_path, steps(150), GOOD_EVALUATIONS)
    for name in ("steps", "evaluations"):
        path = tmp_path / f"{name}.jsonl"
        path.write_text(f"{line}\n{path.read_text()}")
    assert [row["step"] for row in load_steps(tmp_path)] == list(range(1, 151))
    found = health_of_run(tmp_path)
    assert found.verdict == "healthy after 150 steps; no warnings"


FOREIGN = [
    {"verdict": 1},
    {"steps": "many"},
    {"checks": [1]},
    {"checks": [{"name": "ap"}]},
    {"explosion": {"reason": "norm_ceiling"}},
    {"explosion": "boom"},
    {"peaks": {"backbone.x": "large"}},
    {"peaks": ["backbone.x"]},
    {"dead": 3},
]


@pytest.mark.parametrize("part", FOREIGN, ids=str)
def test_a_report_of_another_program_is_not_believed(tmp_path, part):
    config = as_run(tmp_path, steps(150), GOOD_EVALUATIONS)
    write_health(tmp_path, config, {"backbone.x": 0.0}, EXPLOSION)
    path = tmp_path / HEALTH_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | part))
    assert not health_of_run(tmp_path).failed  # neither the explosion nor the dead tensor
    with pytest.raises(ConfigError, match=r"holds no health\.json that can be read"):
        read_health(tmp_path)


def test_checkpoints_that_cannot_be_read_are_passed_over(tmp_path):
    config = as_run(tmp_path, steps(150), GOOD_EVALUATIONS)
    good = {"gradient_peaks": {"backbone.x": 0.0}, "stability": {"reference": 9.0}}
    foreign = [{"gradient_peaks": 5}, {"stability": [1]}, {"stability": {"reference": -1.0}}]
    for number, state in enumerate([good, *foreign]):
        path = tmp_path / f"stage2_epoch{number:04d}.pt"
        save_checkpoint(path, state, config)
        os.utime(path, (number, number))
    (tmp_path / "stage2_epoch0008.pt").write_text("no checkpoint")
    (tmp_path / "stage2_epoch0009.pt").symlink_to("nowhere")
    (tmp_path / "stage2_epoch0010.pt").mkdir()
    assert health_of_run(tmp_path).dead == ("backbone.x",)


def test_a_real_run_is_judged_by_its_files(base_run):
    found = health_of_run(base_run.run_dir)
    assert found.check("explosion").status == "pass"
    assert found.check("finite").status == "pass"
    assert found.check("learning/backbone").status == "pass"
    assert found.check("positives").status == "pass"
    assert found.check("dead_tensors").status == "pass"
    assert found.dead == ()
