"""The probe: the real trainer in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest
import torch
from conftest import small_spec
from made_up_trainers import made_up
from measured_costs import GB, MEASURED
from waiting import PATIENCE, wait_until

from fsdet.config import TrainConfig
from sweeps.errors import SweepError
from sweeps.resources.cost import (
    TrialCost,
)
from sweeps.resources.machine import Machine, check_machine
from sweeps.resources.probe import (
    STEPS,
    find_gpus,
    measure,
    shortened,
    trials_that_fit,
    with_gpus,
    with_measured_gpus,
    with_shared_card,
)
from sweeps.run import main
from sweeps.states import State
from sweeps.storage.lookup import find_folder, new_folder
from sweeps.study.study import read_trials

ROOT = Path(__file__).resolve().parents[3]
CHECKPOINT = ROOT / "fsdet" / "checkpoints" / "stage1_openmoji.pt"
SWEEP = """
name: auto
space: {lr: {low: 0.1, high: 1}}
fixed: {epochs: 1, n_episodes: 3}
trials: 1
resources: {cpus: 1, gpus: auto}
"""


def small_config(folder: Path, **more: object) -> TrainConfig:
    values = {"resume": CHECKPOINT, "train_scenes": 48, "n_way": 4, "n_query": 1, "batch_size": 1}
    values |= {"gradient_accumulation": 2, "eval_episodes": 2, "threads": 1, "device": "cpu"}
    values |= {"stage": 2, "epochs": 50, "checkpoint_dir": folder / "untouched"}
    return TrainConfig(**{**values, **more})


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the probe keeps its files."""
    path = tmp_path / "scratch"
    path.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(path))
    return path


@pytest.mark.parametrize(("stage", "accumulation"), [(1, 1), (1, 3), (2, 1), (2, 4), (3, 2)])
def test_shortened_run_has_two_epochs_of_some_steps_at_full_size(tmp_path, stage, accumulation):
    config = small_config(
        tmp_path, stage=stage, gradient_accumulation=accumulation, batch_size=4, n_episodes=1000
    )
    short = shortened(config, tmp_path / "short")
    assert (short.epochs, short.steps_per_epoch) == (2, STEPS)
    kept = ("batch_size", "gradient_accumulation", "eval_episodes", "image_size", "n_way")
    assert [getattr(short, key) for key in kept] == [getattr(config, key) for key in kept]


@pytest.mark.slow
def test_real_trial_is_measured_and_leaves_nothing(tmp_path, scratch):
    config = small_config(tmp_path)
    found = measure(config)
    names = ("import", "startup", "step", "save", "evaluation", "final")
    assert all(getattr(found, f"{name}_seconds") > 0 for name in names)
    assert 3e8 < found.host_bytes < 5e9
    assert (found.card_bytes, found.card_total) == (0, 0)
    assert not config.checkpoint_dir.exists()
    assert list(scratch.glob("probe_*")) == []
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_mistake_of_the_trainer_is_told(tmp_path, scratch):
    with pytest.raises(SweepError, match=r"the probe failed: .*nowhere\.pt"):
        measure(small_config(tmp_path, resume=Path("nowhere.pt")))
    assert list(scratch.glob("probe_*")) == []


def test_probe_that_takes_too_long_is_stopped(tmp_path, scratch):
    endless = small_config(tmp_path, eval_episodes=10**9)  # evaluations are not shortened
    with pytest.raises(SweepError, match="longer than 1 s; it was stopped"):
        measure(endless, limit=1)
    assert multiprocessing.active_children() == []
    assert list(scratch.glob("probe_*")) == []


@pytest.mark.slow
def test_check_tells_the_cost_and_starts_nothing(tmp_path, scratch, capsys):
    small = ("train_scenes=48", "n_way=4", "eval_episodes=2", "n_episodes=10", "epochs=3")
    words = [word for change in small for word in ("--set", change)]
    confirm = ["--set", "confirm.top_k=1", "--set", "confirm.seeds=3", "--trials", "5"]
    code = main(["stage2_clip_dfl.yaml", "--check", "--probe", *words, *confirm])
    printed = capsys.readouterr().out
    assert code == 0
    for line in (
        "measured on one trial, alone: ",
        ", 30 steps in 3 epochs",
        "if all 5 trials ran to their end",
        "for at most 9 runs",
        "memory: about ",
    ):
        assert line in printed
    assert printed.endswith("the check found no mistake; nothing was started\n")
    assert not (tmp_path / "mlruns").exists()


CHECK = """
import sys, tempfile
tempfile.tempdir = sys.argv[1]
from sweeps.run import main
if __name__ == "__main__":
    sys.exit(main(["stage2_clip_dfl.yaml", "--check", "--probe"]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_and_no_file_outlives_the_command(tmp_path, scratch, number):
    (tmp_path / "check.py").write_text(CHECK)
    command = subprocess.Popen(
        [sys.executable, "check.py", scratch],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    mother = psutil.Process(command.pid)
    wait_until(lambda: any(scratch.glob("probe_*")) and any(map(loads_torch, mother.children())))
    children = mother.children()
    command.send_signal(number)
    _, said = command.communicate(timeout=PATIENCE)
    assert command.returncode in (130, -number)
    assert "Traceback" not in said
    psutil.wait_procs(children, timeout=PATIENCE)
    assert not any(child.is_running() for child in children)
    wait_until(lambda: not any(scratch.glob("probe_*")))


def loads_torch(process: psutil.Process) -> bool:
    """Whether the trainer's libraries are on their way into this process."""
    return any("libtorch" in part.path for part in process.memory_maps())


def test_auto_is_no_gpu_where_there_is_none():
    spec = small_spec(resources={"cpus": 1, "gpus": "auto"})
    assert spec.settings["device"] == "auto"
    check_machine(spec, Machine(2, 0))
    said: list[str] = []
    found = find_gpus(spec, Machine(2, 0), said.append)
    assert (found.resources.gpus, found.settings["device"], said) == (0, "cpu", [])
    assert Machine(2, 0).capacity(found.resources) == 2


def test_as_many_trials_share_a_card_as_memory_and_cores_allow():
    spec = small_spec(resources={"cpus": 2, "gpus": "auto"})
    one = TrialCost(**{**vars(MEASURED), "card_bytes": 11 * GB, "card_total": 80 * GB})
    assert trials_that_fit(spec, Machine(64, 4), one) == 6  # by memory
    assert trials_that_fit(spec, Machine(24, 4), one) == 3  # by cores
    large = TrialCost(**{**vars(one), "card_bytes": 79 * GB})
    said: list[str] = []
    alone = with_shared_card(spec, Machine(64, 4), large, said.append)
    assert (alone.resources.gpus, alone.resources.mps) == (1, False)
    assert alone.settings["device"] == "cuda"
    assert said == ["resources.gpus auto: one trial on a card; memory or cores allow no more"]


def test_resumed_sweep_keeps_the_gpus_that_were_measured():
    auto = small_spec(resources={"cpus": 1, "gpus": "auto"})
    folder = new_folder("small")
    folder.save_spec(with_gpus(auto, 0.25, mps=True))
    kept = with_measured_gpus(auto, folder).resources
    assert (kept.gpus, kept.mps) == (0.25, True)
    given = small_spec(resources={"cpus": 1, "gpus": 0.5})
    assert with_measured_gpus(given, folder) is given


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU, which made-up trials do not use")
def test_number_that_was_found_is_kept_and_resumed(tmp_path, capsys):
    file = tmp_path / "auto.yaml"
    file.write_text(SWEEP)
    assert main([str(file)], made_up) == 0
    folder = find_folder("auto")
    assert folder.load_spec().resources.gpus == 0
    assert "gpus: 0.0" in folder.spec_file.read_text(encoding="utf-8")
    assert main([str(file), "--resume", "--trials", "2"], made_up) == 0
    assert [t.state for t in read_trials(folder.study_file)] == [State.COMPLETED] * 2
    assert "measuring" not in capsys.readouterr().out
