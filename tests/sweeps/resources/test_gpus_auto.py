"""`gpus: auto` from the command line, on a machine without a GPU."""

from __future__ import annotations

import pytest
import torch
from made_up_trainers import made_up

from sweeps.run import main
from sweeps.states import State
from sweeps.storage.folder import find_folder
from sweeps.study.study import read_trials

SWEEP = """
name: auto
space: {lr: {low: 0.1, high: 1}}
fixed: {epochs: 1, n_episodes: 3}
trials: 1
resources: {cpus: 1, gpus: auto}
"""


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU, which made-up trials do not use")
def test_number_that_was_found_is_kept_and_resumed(tmp_path, capsys):
    file = tmp_path / "auto.yaml"
    file.write_text(SWEEP)
    assert main([str(file)], made_up) == 0
    folder = find_folder("auto")
    assert folder.load_spec().resources.gpus == 0
    assert "gpus: 0.0" in folder.spec.read_text(encoding="utf-8")
    assert main([str(file), "--resume", "--trials", "2"], made_up) == 0
    assert [t.state for t in read_trials(folder.study)] == [State.COMPLETED] * 2
    assert "measuring" not in capsys.readouterr().out
