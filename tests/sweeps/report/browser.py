"""A browser without a window, if this machine has one, and what its console said."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "msedge")
BROWSER = next((path for name in NAMES if (path := shutil.which(name))), None)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--virtual-time-budget=60000",
)
CONSOLE = re.compile(r":CONSOLE[^\]]*\] (.*)")


def open_page(page: Path, profile: Path, *flags: str) -> tuple[str, list[str]]:
    """The document after all scripts have run, and the lines of the console."""
    assert BROWSER is not None
    done = subprocess.run(
        [BROWSER, *FLAGS, f"--user-data-dir={profile}", *flags, "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.stdout, CONSOLE.findall(done.stderr)
