import math

import pytest
import yaml
from pydantic import ValidationError

from fsdet.config import MODULES, MULTIPLIERS, TrainConfig
from fsdet.config.parsing import build_config, load_config, save_config
from fsdet.errors import ConfigError


def test_a_saved_config_loads_as_it_was(tmp_path):
    config = TrainConfig(lr=3e-4, resume=tmp_path / "a.pt", explosion_reference=5.0, debug=True)
    save_config(config, tmp_path / "c.yaml")
    assert load_config(tmp_path / "c.yaml") == config


def test_overrides_go_before_the_file_and_the_file_before_defaults(tmp_path):
    (tmp_path / "c.yaml").write_text("lr: 0.5\ndfl_weight: 2.5\n")
    config = load_config(tmp_path / "c.yaml", {"lr": 0.25})
    assert (config.lr, config.dfl_weight, config.bbox_weight) == (0.25, 2.5, 7.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dfl_wieght: 1", "unknown key 'dfl_wieght'; did you mean 'dfl_weight'?"),
        ("qqqqqqqq: 1", "unknown key 'qqqqqqqq'; `python -m fsdet.train --help`"),
        ("lr: -1", "lr: input should be greater than 0, but got -1"),
        ("n_way: two", "n_way: input should be a valid integer"),
        ("lr: .nan", "lr: "),
        ("image_size: 100", "image_size: input should be a multiple of 32"),
        ("image_size: 544", "image_size must be at most 512 for the embedded data"),
        ("- lr", "must hold `key: value` lines, but holds a list"),
        ("lr: [", "not valid YAML"),
    ],
)
def test_a_mistake_in_a_file_names_file_key_and_rule(tmp_path, text, message):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "c.yaml")
    assert str(caught.value).startswith(f"{tmp_path / 'c.yaml'}: ")
    assert message in str(caught.value)


def test_all_mistakes_are_named_at_once():
    with pytest.raises(ConfigError) as caught:
        build_config({"lr": 0, "n_way": 0, "epoch": 3})
    assert len(str(caught.value).splitlines()) == 3


def test_a_missing_file_and_an_empty_one(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        load_config(tmp_path / "c.yaml")
    (tmp_path / "c.yaml").write_text("# nothing\n")
    assert load_config(tmp_path / "c.yaml") == TrainConfig()


def test_at_least_one_module_must_learn():
    with pytest.raises(ConfigError, match="at least one of the four"):
        build_config(dict.fromkeys(MULTIPLIERS.values(), 0))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"early_eval_epochs": (0, 2)}, "early_eval_epochs must be at least 1 and increasing"),
        ({"early_eval_epochs": (2, 2)}, "but got 2, 2"),
        ({"early_eval_epochs": (3, 1)}, "but got 3, 1"),
        (
            {"early_eval_epochs": (1,), "early_eval_episodes": 9, "eval_episodes": 8},
            "early_eval_episodes must be at most eval_episodes, but got 9 and 8",
        ),
    ],
)
def test_early_evaluations_are_refused_in_one_line(settings, told):
    with pytest.raises(ConfigError, match=told) as caught:
        build_config(settings)
    assert "\n" not in str(caught.value)


def test_epochs_to_evaluate_early_may_lie_behind_the_last_or_be_evaluated_anyway():
    config = TrainConfig(epochs=4, eval_interval=2, early_eval_epochs=(1, 2, 9))
    assert TrainConfig(**config.model_dump(mode="json")) == config
    assert TrainConfig(eval_episodes=2).early_eval_epochs == ()  # then their episodes do not matter


def test_a_config_is_frozen():
    with pytest.raises(ValidationError):
        TrainConfig().lr = 1


def test_every_setting_is_documented_and_survives_yaml():
    assert [n for n, f in TrainConfig.model_fields.items() if not f.description] == []
    plain = yaml.safe_load(yaml.safe_dump(TrainConfig().model_dump(mode="json")))
    assert TrainConfig(**plain) == TrainConfig()


def test_multipliers_by_module():
    mults = TrainConfig(fusion_lr_mult=7).lr_mults
    assert list(mults) == list(MODULES)
    assert mults["scs_fusion"] == 7


@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize("n_episodes", [1, 7, 100])
def test_the_number_of_steps(stage, n_episodes):
    config = TrainConfig(stage=stage, n_episodes=n_episodes, epochs=3)
    batches = n_episodes if stage == 1 else math.ceil(n_episodes / 4)
    assert config.total_steps == 3 * math.ceil(batches / 4)
