import json
import subprocess
import sys
from pathlib import Path

import pytest

from fsdet.config import MODULES, TrainConfig
from fsdet.config.parsing import save_config
from fsdet.health.__main__ import main

ROOT = Path(__file__).parents[3]


def run_folder(folder: Path, count: int = 40, **values: object) -> Path:
    """A folder with `count` like steps; `values` replace some of them, with `__` for a slash."""
    save_config(TrainConfig(), folder / "config.yaml")
    row = {
        "grad/norm": 9.0,
        "grad/clipped": 0.0,
        "train/loss/total": 6.0,
        "train/loss/dfl": 1.2,
        "train/positives": 30.0,
        **{f"grad/norm/{module}": 4.0 for module in MODULES},
        **{key.replace("__", "/"): value for key, value in values.items()},
    }
    lines = (json.dumps({"step": number, **row}) for number in range(1, count + 1))
    (folder / "steps.jsonl").write_text("\n".join(lines))
    return folder


def test_a_run_without_a_fault_ends_with_0_and_its_verdict(tmp_path, capsys):
    assert main([str(run_folder(tmp_path, 99))]) == 0
    told = capsys.readouterr().out
    assert "✓ pass" in told
    assert "too short to judge: 99 steps without a fault" in told
    assert "\x1b" not in told  # no colours in a pipe


def test_a_fault_ends_with_3_and_says_what_to_do(tmp_path, capsys):
    assert main([str(run_folder(tmp_path, grad__norm="nan"))]) == 3
    told = capsys.readouterr().out
    assert "✗ fail" in told
    assert "not healthy after 40 steps" in told
    assert "--debug finds the operation" in told


def test_words_from_files_are_not_taken_for_markup(tmp_path, capsys):
    folder = run_folder(tmp_path)
    config = TrainConfig()
    from fsdet.health.checklist import write_health

    write_health(folder, config, {"backbone.[red].weight": 0.0}, None)
    assert main([str(folder)]) == 3
    assert "dead: backbone.[red].weight" in capsys.readouterr().out


def test_foreign_files_in_a_run_folder_bring_no_traceback(tmp_path, capsys):
    folder = run_folder(tmp_path)
    (folder / "health.json").write_text('{"verdict": 1, "checks": 2, "dead": 3, "steps": 40, "explosion": 4, '
                                        '"peaks": 5}')  # fmt: skip
    with (folder / "steps.jsonl").open("a") as file:
        file.write('\n{"loss": 1}\n[1, 2]\nnull\n')
    (folder / "evaluations.jsonl").write_text('{"val/nAP50": 0.1}\n')
    (folder / "stage2_epoch0001.pt").write_text("no checkpoint")
    (folder / "stage2_epoch0002.pt").symlink_to("nowhere")
    (folder / "stage2_epoch0003.pt").mkdir()
    assert main([str(folder)]) == 0
    assert "40 steps without a fault" in capsys.readouterr().out


def test_a_file_that_cannot_be_opened_ends_with_2_and_one_line(tmp_path, capsys):
    folder = run_folder(tmp_path)
    (folder / "evaluations.jsonl").mkdir()
    assert main([str(folder)]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: {folder / 'evaluations.jsonl'}: cannot be read (")
    assert told.count("\n") == 1


@pytest.mark.parametrize("files", [(), ("steps.jsonl",), ("config.yaml",)])
def test_a_folder_that_is_no_run_ends_with_2_and_one_line(tmp_path, capsys, files):
    for name in files:
        (tmp_path / name).write_text("")
    assert main([str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: {tmp_path}: holds no ")
    assert told.count("\n") == 1


def test_a_config_that_cannot_be_used_ends_with_2(tmp_path, capsys):
    folder = run_folder(tmp_path)
    (folder / "config.yaml").write_text("gradient_clip: 1\n")
    assert main([str(folder)]) == 2
    assert "unknown key 'gradient_clip'" in capsys.readouterr().err


def test_the_command_has_help_and_runs_as_a_module(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "fsdet.health", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "python -m fsdet.health" in done.stdout
