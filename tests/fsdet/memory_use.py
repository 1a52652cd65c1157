"""What the refusal of a file costs, measured in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys
from pathlib import Path
{imports}
def peak():  # not ru_maxrss, which begins with the peak of the process that started this one
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM:")))
before = peak()
try:
    {call}(Path(sys.argv[1]))
except {error} as error:
    print(error)
print(peak() - before)
"""


def refusal_of(path: Path, imports: str, call: str, error: str) -> tuple[str, int]:
    """The message with which `call` refuses a file, and the kB by which its process grew meanwhile."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(imports=imports, call=call, error=error), str(path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    told, kilobytes = done.stdout.splitlines()
    return told, int(kilobytes)
