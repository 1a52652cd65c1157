import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path

from fsdet.config import TrainConfig
from fsdet.json_output import add_json_flag, print_json, to_plain
from fsdet.report import Best


@dataclass(frozen=True)
class Outer:
    """Holds all kinds of values."""

    path: Path
    best: Best
    pairs: tuple[float, ...]


def test_every_kind_of_value_becomes_one_that_json_has(capsys):
    best = Best(2, 20, {"val/nAP50": math.nan})
    print_json({"outer": Outer(Path("a/b"), best, (1.5, math.inf)), 3: {"x"}, "±": None})
    assert json.loads(capsys.readouterr().out) == {
        "outer": {
            "path": "a/b",
            "best": {"epoch": 2, "step": 20, "metrics": {"val/nAP50": None}, "full": True},
            "pairs": [1.5, None],
        },
        "3": ["x"],
        "±": None,
    }


def test_a_config_is_an_object_of_its_settings():
    assert to_plain(TrainConfig())["checkpoint_dir"] == str(TrainConfig().checkpoint_dir)


def test_the_flag_is_off_unless_given():
    parser = argparse.ArgumentParser()
    add_json_flag(parser)
    assert (parser.parse_args([]).json, parser.parse_args(["--json"]).json) == (False, True)
