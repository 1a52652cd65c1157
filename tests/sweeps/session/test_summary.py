"""What is said at the end: above all what to type next."""

from __future__ import annotations

from pathlib import Path

import yaml
from conftest import small_spec

from sweeps.config.file import load_spec
from sweeps.session.summary import commands, resume_command
from sweeps.storage.folder import new_folder


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
