"""A process that says nothing is ended."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from waiting import PATIENCE

from sweeps.trial.watchdog import stalled

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


@pytest.mark.slow
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
