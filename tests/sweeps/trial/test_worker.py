"""A process that runs trials one after another."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from waiting import PATIENCE

from sweeps.trial import worker
from sweeps.trial.failures import cause_of, cause_of_death
from sweeps.trial.watchdog import stalled
from sweeps.trial.worker import MEMORY_BYTES, STEP_SECONDS, Costs

TRIALS = """
import json, sys
from pathlib import Path
from sweeps.config import SweepSpec
from sweeps.trial.messages import TrialRequest
from sweeps.trial.trial import TrialContext, run_trial

fixed = {"stage": 2, "resume": sys.argv[1], "train_scenes": 48, "n_way": 4, "n_query": 1}
fixed |= {"batch_size": 1, "gradient_accumulation": 1, "n_episodes": 3, "epochs": 2}
fixed |= {"eval_episodes": 2, "threads": 1}
spec = SweepSpec(name="a", space={"lr": {"low": 1e-5, "high": 1}}, fixed=fixed)
for number in map(int, sys.argv[2:]):
    lr = [1e-3, 0.9, 3e-4][number]
    reports = []
    given = {"lr": lr}
    request = TrialRequest(number, f"{number:04d}", str(number), given, spec.config(given))
    run_trial(TrialContext(spec.objective, Path.cwd(), "x"), request, reports.append)
    reports = [[r.epoch, r.step, r.metrics, r.phase] for r in reports]
    Path(f"{number}.json").write_text(json.dumps(reports))
"""


@pytest.mark.slow
def test_reused_worker_gives_what_a_fresh_one_gives_to_the_last_bit(tmp_path):
    root = Path(__file__).resolve().parents[3]
    checkpoint = str(root / "fsdet" / "checkpoints" / "stage1_openmoji.pt")
    for folder, numbers in (("reused", ("0", "1", "2")), ("fresh", ("2",))):
        (tmp_path / folder).mkdir()
        subprocess.run(
            [sys.executable, "-c", TRIALS, checkpoint, *numbers],
            cwd=tmp_path / folder,
            check=True,
            timeout=PATIENCE,
        )
    for file in ("2.json", "0002/steps.jsonl"):
        reused, fresh = (tmp_path / folder / file for folder in ("reused", "fresh"))
        assert reused.read_bytes() == fresh.read_bytes()
        assert fresh.stat().st_size > 300


def test_memory_of_an_earlier_trial_is_not_counted():
    big = bytearray(400 * 2**20)
    first = Costs(resumed=False)
    del big
    later = Costs(resumed=False)
    assert later.after(1)[MEMORY_BYTES] < first.after(1)[MEMORY_BYTES] + 1e6
    small = Costs(resumed=False).after(1)[MEMORY_BYTES]
    again = bytearray(400 * 2**20)
    grown = later.after(2)[MEMORY_BYTES]
    assert grown - small > 3e8
    del again


def test_steps_before_a_trial_went_on_are_not_counted():
    costs = Costs(resumed=True)
    assert STEP_SECONDS not in costs.after(100)
    time.sleep(0.05)
    assert costs.after(101)[STEP_SECONDS] >= 0.05


def test_worker_that_grows_leaks(monkeypatch):
    monkeypatch.setattr(worker, "LEAK", 100 * 2**20)
    monkeypatch.setattr(worker, "_idle", [])
    assert not worker.has_leaked()
    assert not worker.has_leaked()
    kept = bytearray(300 * 2**20)
    assert worker.has_leaked()
    del kept
    assert not worker.has_leaked()


HANG = """
import sys, time
from pathlib import Path
from sweeps.trial.watchdog import watchdog
with watchdog(Path(sys.argv[1]), 4 / 60) as dog:
    for _ in range(int(sys.argv[2])):
        time.sleep(0.4)
        dog.reset()
    time.sleep(float(sys.argv[3]))
"""


@pytest.mark.parametrize(
    ("reports", "silence", "ended"), [("1", "3600", True), ("12", "0", False)], ids=str
)
def test_watchdog_ends_a_process_that_says_nothing(tmp_path, reports, silence, ended):
    """Twelve reports take longer than the watchdog waits; each of them a tenth of that."""
    done = subprocess.run(
        [sys.executable, "-c", HANG, tmp_path, reports, silence],
        timeout=PATIENCE,
        cwd=Path(__file__).resolve().parents[3],
    )
    assert (done.returncode != 0) == ended
    assert stalled(tmp_path) == ended


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (MemoryError(), "out of memory: "),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate"), "out of memory: "),
        (RuntimeError("CUDA error: out of memory"), "out of memory: "),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), "out of memory: "),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), "RuntimeError: "),
        (OSError(28, "No space left on device"), "disk full: "),
        (OSError(27, "File too large"), "disk full: "),
        (RuntimeError("PytorchStreamWriter failed writing file data/1"), "disk full: "),
        (OSError(2, "No such file"), "FileNotFoundError: "),
        (ValueError("no"), "ValueError: no"),
    ],
)
def test_cause_of_a_failure(error, cause):
    assert cause_of(error).startswith(cause)


def test_torch_s_own_lack_of_memory_is_recognised():
    import torch

    assert cause_of(torch.cuda.OutOfMemoryError("CUDA")).startswith("out of memory")


@pytest.mark.parametrize(
    ("text", "kills", "cause"),
    [
        ("ray.exceptions.OutOfMemoryError: Task was killed", 0, "out of memory: Ray"),
        ("ActorDiedError: SIGKILL", 1, "out of memory: the kernel"),
        ("ActorDiedError: SIGKILL", 0, "the worker process died"),
    ],
)
def test_cause_of_a_worker_s_death(text, kills, cause):
    assert cause_of_death(text, kills).startswith(cause)


FULL = """
import resource, sys, torch
from pathlib import Path
from fsdet.config import TrainConfig
from fsdet.checkpoint import save_checkpoint
from sweeps.trial.failures import cause_of
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    save_checkpoint(Path("a.pt"), {"x": torch.ones(100_000)}, TrainConfig())
except Exception as error:
    print(cause_of(error))
print(sorted(p.name for p in Path().iterdir()))
"""


def test_checkpoint_on_a_full_disk_says_so_and_leaves_nothing(tmp_path):
    root = str(Path(__file__).resolve().parents[3])
    script = f"import sys; sys.path.insert(0, {root!r})\n{FULL}"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    reason, files = done.stdout.splitlines()[-2:]
    assert reason.startswith("disk full: ")
    assert files == "[]"
