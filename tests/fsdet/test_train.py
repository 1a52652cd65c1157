import subprocess
import sys
from pathlib import Path

import pytest

from fsdet.errors import ConfigError
from fsdet.train import parse

COMMAND = (
    "--stage 2 --epochs 100 --n_way 2 --n_query 4 --batch_size 4 --lr 0.0001 "
    "--gradient_clip_norm 10.0 --dfl_weight 0.5 --resume stage1.pt"
)


def test_the_known_command_line_still_parses():
    config = parse(COMMAND.split())
    assert (config.stage, config.epochs, config.n_way, config.n_query) == (2, 100, 2, 4)
    assert (config.batch_size, config.lr, config.gradient_clip_norm) == (4, 1e-4, 10)
    assert (config.dfl_weight, config.resume) == (0.5, Path("stage1.pt"))


def test_epochs_to_evaluate_early_are_read_from_flags_and_from_a_file(tmp_path):
    assert parse(["--early_eval_epochs", "1", "3"]).early_eval_epochs == (1, 3)
    (tmp_path / "c.yaml").write_text("early_eval_epochs: [1, 2]\nearly_eval_episodes: 4\n")
    config = parse(["--config", str(tmp_path / "c.yaml")])
    assert (config.early_eval_epochs, config.early_eval_episodes) == ((1, 2), 4)


def test_flags_go_before_the_file_and_the_file_before_defaults(tmp_path):
    (tmp_path / "c.yaml").write_text("lr: 0.5\ndfl_weight: 2.5\n")
    config = parse(["--lr", "0.25", "--config", str(tmp_path / "c.yaml")])
    assert (config.lr, config.dfl_weight, config.bbox_weight) == (0.25, 2.5, 7.5)


def test_a_mistake_in_the_file_names_it(tmp_path):
    (tmp_path / "c.yaml").write_text("gradient_clip: 1\n")
    with pytest.raises(ConfigError, match=r"c\.yaml: unknown key 'gradient_clip'; did you mean"):
        parse(["--config", str(tmp_path / "c.yaml")])


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--lr", "-1"], "greater than 0"),
        (["--lrr", "1"], "--lrr"),
        (["--config", "missing.yaml"], "missing.yaml: no such file"),
        (["--resume", "missing.pt"], "missing.pt: resume: no such checkpoint"),
    ],
)
def test_a_mistake_ends_with_one_message_and_nothing_started(tmp_path, flags, told):
    folder = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, "-m", "fsdet.train", "--checkpoint_dir", folder, *flags],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "/usr/bin:/bin"},
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert not folder.exists()
