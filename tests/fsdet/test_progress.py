import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUN = """
import logging
from fsdet.progress import STEP_LOGGER, ProgressHandler, TrainingProgress
logging.basicConfig(format="%(message)s", handlers=[ProgressHandler(logging.INFO)])
logging.getLogger("fsdet").setLevel(logging.INFO)
with TrainingProgress("stage 2", 0, 10, steps_per_epoch=5) as shown:
    for step in range(1, 8):
        shown.show_step(step, 1.25, 8.5)
        logging.getLogger(STEP_LOGGER).info("step %d: a long line", step)
    logging.getLogger("fsdet.run").info("epoch 1: val/nAP50 0.5, in [brackets]")
    shown.show_step(7, 1.25, 8.5)
print("done")
"""


def on_a_terminal(columns: int, **environment: str) -> str:
    """What `RUN` writes to a terminal of so many columns."""
    main, side = pty.openpty()
    values = {"COLUMNS": str(columns), "TERM": "xterm-256color", **environment}
    keep = {
        key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR")
    }
    process = subprocess.Popen(
        [sys.executable, "-c", RUN], stdout=side, stderr=side, cwd=ROOT, env={**keep, **values}
    )
    os.close(side)
    written = b""
    while True:
        try:
            part = os.read(main, 65536)
        except OSError:  # the process has ended
            break
        if not part:
            break
        written += part
    os.close(main)
    assert process.wait() == 0
    return written.decode()


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_on_a_terminal_the_bar_tells_the_steps_and_rows_stand_above_it(columns):
    text = on_a_terminal(columns)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    lines = [line for line in re.split(r"[\r\n]+", plain) if line.strip()]
    assert all(len(line) <= columns for line in lines)
    bars = [line for line in lines if line.startswith("stage 2 ━")]
    assert bars
    assert "step 7/10, loss 1.25, norm 8.5, " in bars[-1]
    assert bars[-1].rstrip().endswith("left")
    assert ("epoch 2, step" in bars[-1]) == (columns >= 80)
    assert "epoch 1: val/nAP50 0.5, in [brackets]" in lines
    assert "a long line" not in plain
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1
    assert lines[-1] == "done"


def test_no_color_and_a_dumb_terminal_are_respected():
    assert re.findall(r"\x1b\[[0-9;]*m", on_a_terminal(80, NO_COLOR="1")) == []
    assert "\x1b" not in on_a_terminal(80, TERM="dumb")


@pytest.mark.parametrize("forced", [{}, {"FORCE_COLOR": "1"}])
def test_without_a_terminal_there_are_plain_lines(forced):
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **forced},
    )
    assert done.returncode == 0
    steps = [f"step {number}: a long line" for number in range(1, 8)]
    assert done.stdout.splitlines() == [*steps, "epoch 1: val/nAP50 0.5, in [brackets]", "done"]
    assert done.stderr.startswith("stage 2 …\n")
