import json
from dataclasses import fields
from pathlib import Path

import pytest
from made_up_checkpoint import made_up_content
from rich.console import Console

from fsdet.checkpoint.content import load_checkpoint, load_detector, save_checkpoint
from fsdet.config import TrainConfig
from fsdet.evaluate import EvaluateConfig, main, show
from fsdet.evaluation.metrics import evaluate_run

STAGE_1 = Path(__file__).parents[2] / "fsdet" / "checkpoints" / "stage1_openmoji.pt"


@pytest.fixture
def checkpoint(small_config, tmp_path) -> Path:
    """The shipped weights with settings that are evaluated within seconds."""
    state = load_checkpoint(STAGE_1)
    early = {"early_eval_epochs": (1,), "early_eval_episodes": 4}  # above --eval_episodes 3
    config = small_config(stage=1, image_size=96, n_way=4, n_query=2, eval_episodes=4, **early)
    save_checkpoint(tmp_path / "a.pt", made_up_content(config, detector=state["detector"]), config)
    return tmp_path / "a.pt"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The command, on the CPU where no device is named: what it finds is compared with the same in this process."""
    monkeypatch.setattr("sys.argv", ["evaluate", "--device", "cpu", *map(str, arguments)])
    return main()


def test_the_table_and_the_file_show_what_an_evaluation_gives(
    checkpoint, monkeypatch, tmp_path, capsys
):
    out = tmp_path / "metrics.json"
    flags = ("--novel_split", "test", "--eval_episodes", 3, "--eval_draws", 2)
    flags += ("--json", out)
    assert run(monkeypatch, "--checkpoint", checkpoint, *flags) == 0
    printed = capsys.readouterr().out
    for word in ("split 'test'", "± 95 %", "swapped", "gap", "novel", "base", "over classes"):
        assert word in printed
    detector, config = load_detector(checkpoint, "cpu")
    given = {"novel_split": "test", "eval_episodes": 3, "eval_draws": 2}
    expected = evaluate_run(detector, config.model_copy(update=given), "cpu", final=True)
    assert expected["test/nAP50"] > 0.01
    assert json.loads(out.read_text()) == pytest.approx(expected)


def test_settings_not_given_are_those_of_the_checkpoint(checkpoint, monkeypatch, tmp_path):
    out = tmp_path / "metrics.json"
    assert run(monkeypatch, "--checkpoint", checkpoint, "--json", out) == 0
    detector, config = load_detector(checkpoint, "cpu")
    assert config.eval_episodes == 4
    assert json.loads(out.read_text()) == pytest.approx(
        evaluate_run(detector, config, "cpu", final=True)
    )


def test_what_has_no_value_is_not_in_the_file_and_a_dash_in_the_table(
    checkpoint, monkeypatch, tmp_path, capsys
):
    out = tmp_path / "metrics.json"
    flags = ("--eval_episodes", 1, "--eval_draws", 1, "--json", out)
    assert run(monkeypatch, "--checkpoint", checkpoint, *flags) == 0
    metrics = json.loads(out.read_text())
    assert "val/nAP50" in metrics
    assert "val/nAP50_ci95" not in metrics
    assert "–" in capsys.readouterr().out


def test_a_flag_that_stands_for_a_setting_has_its_name():
    own = {"checkpoint", "json"}
    assert {field.name for field in fields(EvaluateConfig)} - own <= set(TrainConfig.model_fields)


def test_the_tables_fit_a_terminal():
    metrics = {f"val/{kind}AP{what}": 0.1234 for kind in "nb" for what in (
        "", "50", "75", "_small", "_medium", "_large", "50_ci95", "50_swapped")}  # fmt: skip
    metrics |= {"val/swap_gap": 0.1, "val/base_swap_gap": -0.1, "val/ST_IoU": 0.4567}
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    show(console, metrics, Path("a.pt"))
    text = console.export_text()
    assert "…" not in text
    for name in ("novel", "base"):  # once among all figures, once by size
        assert len([line for line in text.splitlines() if line.split()[:1] == [name]]) == 2
    for heading in ("AP50", "± 95 %", "AP small", "AP medium", "AP large"):
        assert heading in text
    assert "ST-IoU over videos: 0.457" in text
    assert "-0.100" in text


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--checkpoint", "nowhere.pt"), "nowhere.pt: checkpoint: no such checkpoint"),
        (("--checkpoint", "CHECKPOINT", "--eval_episodes", 0), "eval_episodes"),
        (("--checkpoint", "CHECKPOINT", "--device", "cuda:99"), "device: 'cuda:99' cannot be used"),
        (
            ("--checkpoint", "CHECKPOINT", "--json", "/proc/x.json"),
            "/proc/x.json cannot be written",
        ),
    ],
)
def test_a_mistake_is_told_in_one_line(checkpoint, monkeypatch, capsys, flags, message):
    named = [checkpoint if flag == "CHECKPOINT" else flag for flag in flags]
    assert run(monkeypatch, *named) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
