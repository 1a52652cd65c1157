"""Where a study is stored, and what may not be stored beside it."""

from __future__ import annotations

import pytest
from conftest import small_spec
from optuna.samplers import RandomSampler

from sweeps.errors import SweepError
from sweeps.storage.lookup import find_folder, new_folder
from sweeps.study.location import begin_store, check_separate_databases, store_of
from sweeps.study.study import create_study
from sweeps.tracking import tracking_uri


def test_study_in_a_file_of_another_machine_is_told(tmp_path, monkeypatch):
    url = f"file://{tmp_path}/storage"
    folder = new_folder("a", storage=url)
    folder.save_spec(small_spec())
    create_study(begin_store(small_spec(), folder), small_spec(), RandomSampler())
    assert store_of(find_folder("a", url)).exists()
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    with pytest.raises(SweepError, match="a file on the machine that began it"):
        store_of(find_folder("a", url))


def test_study_and_runs_in_one_database_are_refused():
    url = "postgresql://tester:secret@127.0.0.1/one"
    spec = small_spec(storage={"study": url}, tracking={"uri": f"{url}?sslmode=require"})
    with pytest.raises(SweepError, match="cannot share; give each its own") as caught:
        check_separate_databases(spec, tracking_uri(spec.tracking))
    assert "secret" not in str(caught.value)
    check_separate_databases(spec, "postgresql://tester:secret@127.0.0.1/other")
