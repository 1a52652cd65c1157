"""What holds the repository together: one-way imports, clean lock files, README commands that exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [
    ROOT / "README.md",
    ROOT / "search_spaces" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
COMMANDS = [
    command
    for page in PAGES
    for command in re.findall(
        r"python -m ((?:fsdet|sweeps)\.\w+)([^\n`#]*)", page.read_text(encoding="utf-8")
    )
]
"""Module and arguments of every command of the README and the documentation."""
MODULES = sorted({module for module, _ in COMMANDS})


def test_imports_go_one_way():
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_lock_files_pin_and_name_no_place(name):
    lines = (ROOT / name).read_text().splitlines()
    packages = [line for line in lines if line and not line.startswith((" ", "#"))]
    assert len(packages) > 100
    assert all(re.fullmatch(r"[A-Za-z0-9._\[\],-]+==[^ /]+( ; .*)?", line) for line in packages)


def test_make_targets_of_the_readme_exist():
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z0-9-]+)`", README)) <= targets


def test_readme_names_all_commands():
    assert {"fsdet.train", "sweeps.run", "sweeps.best", "sweeps.rerun"} <= set(MODULES)


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES)
def test_commands_of_the_documentation_exist_with_their_flags(module):
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert f"python -m {module}" in done.stdout
    written = " ".join(arguments for name, arguments in COMMANDS if name == module)
    flags = {flag.replace("-", "_") for flag in re.findall(r"(?<!\S)--(\w[\w-]*)", written)}
    shown = done.stdout
    for action in {a.split()[0] for name, a in COMMANDS if name == module and a.strip()}:
        if action.isalpha() and action.islower():  # such as `check`
            command = [sys.executable, "-m", module, action, "--help"]
            shown += subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout
    known = {flag.replace("-", "_") for flag in re.findall(r"--(\w[\w-]*)", shown)}
    assert flags <= known


def test_links_of_the_documentation_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"
