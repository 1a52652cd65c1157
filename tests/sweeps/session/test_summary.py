"""What is said at the end: above all what to type next."""

from __future__ import annotations

from pathlib import Path

import yaml
from conftest import small_spec

from sweeps.config.file import load_spec
from sweeps.session.best_trial import record_best_trial
from sweeps.session.summary import advice, commands, ranked_link, resume_command
from sweeps.states import State
from sweeps.storage.folder import ADDRESS, SweepFolder
from sweeps.storage.lookup import new_folder
from sweeps.study.records import TrialRecord


def test_what_to_type_names_a_file_that_says_all_of_the_sweep(in_own_folder):
    values = small_spec().model_dump(mode="json", exclude_unset=True)
    Path("small.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    folder = new_folder("small")
    as_asked, _ = load_spec("small.yaml", ["name=other"])
    assert "sweeps.run small.yaml --resume --name small" in resume_command(as_asked, folder)
    changed, _ = load_spec("small.yaml", ["trials=7"])
    folder.save_spec(changed)
    kept = "mlruns/sweeps/small/sweep.yaml"
    assert f"sweeps.run {kept} --resume --name small" in resume_command(changed, folder)
    again, _ = load_spec(kept)
    assert again.trials == 7


def test_confirmation_is_offered_where_there_was_none(in_own_folder):
    folder = new_folder("small")
    first, _ = commands(small_spec(), folder)[0]
    assert first.endswith("--resume --name small --set confirm.seeds=5")
    confirmed = small_spec(confirm={"top_k": 1, "seeds": 3})
    assert not any("confirm" in command for command, _ in commands(confirmed, folder))


def test_the_weights_of_the_best_trial_are_named_in_a_command_that_finds_them(in_own_folder):
    folder = new_folder("small")
    assert not any("predict" in command for command, _ in commands(small_spec(), folder))
    weights = folder.trials_dir / "0001" / "best.pt"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"weights")
    record_best_trial(folder, "0001")
    (command,) = [c for c, _ in commands(small_spec(), folder) if "predict" in c]
    words = command.split()
    assert words[1:] == ["-m", "fsdet.predict", "--checkpoint", words[4], "--example"]
    assert Path(words[4]).resolve() == weights.resolve()


def test_sweep_that_ends_before_a_trial_completes_can_be_resumed():
    paused = [TrialRecord(n, State.PAUSED, {"lr": 8}) for n in range(3)]
    said = advice(small_spec(), [*paused, TrialRecord(3, State.FAILED, {"lr": 1})])
    assert said.startswith("no trial completed, but 3 are paused; resume the sweep")


def test_all_exploding_is_said():
    exploded = TrialRecord(0, State.INFEASIBLE, {"lr": 8}, reason="step 3, norm_ceiling")
    said = advice(small_spec(), [exploded])
    assert "every trial exploded, the first one with: step 3, norm_ceiling" in said
    assert "lower the upper ends of lr" in said


def test_link_leads_to_the_server_or_to_the_local_ui(in_own_folder):
    folder = SweepFolder(in_own_folder)
    assert ranked_link(folder) is None
    folder.save_record({"uri": "sqlite:////x/mlflow.db", "view": "/#/seen"})
    assert ranked_link(folder) == "http://127.0.0.1:5000/#/seen"
    folder.save_record({"uri": "https://mlflow.example:7000", "view": "/#/seen"})
    assert ranked_link(folder) == "https://mlflow.example:7000/#/seen"


def test_a_sweep_on_a_cluster_is_resumed_there(in_own_folder):
    folder = new_folder("small")
    folder.update_record(**{ADDRESS: "10.0.0.10:6379"})
    values = small_spec().model_dump(mode="json", exclude_unset=True)
    Path("my sweep.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    spec, _ = load_spec("my sweep.yaml")
    said = resume_command(spec, folder)
    assert said.endswith("'my sweep.yaml' --resume --name small --address 10.0.0.10:6379")
    folder.update_record(**{ADDRESS: None})
    assert "--address" not in resume_command(spec, folder)
