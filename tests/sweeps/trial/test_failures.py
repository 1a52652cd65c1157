"""Why a trial failed, in words."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from waiting import PATIENCE

from sweeps.trial.failures import cause_of, cause_of_death


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
from fsdet.checkpoint.content import save_checkpoint
from sweeps.trial.failures import cause_of
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    save_checkpoint(Path("a.pt"), {"x": torch.ones(100_000)}, TrainConfig())
except Exception as error:
    print(cause_of(error))
print(sorted(p.name for p in Path().iterdir()))
"""


@pytest.mark.slow
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
