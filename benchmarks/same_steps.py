"""Checks that two versions of the trainer give the same result: the same configs, compared byte for byte.

    python benchmarks/same_steps.py REF

REF is any commit. Its code and the code of the working tree train each configuration below on the CPU,
one after the other. Every value that REF writes to `steps.jsonl` must be there in the same digits, and so must those of
`evaluations.jsonl` except for the memory in use; otherwise the exit code is 1. Values that are new are listed. Takes
about three minutes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHORT = "--dataset openmoji --threads 1 --device cpu --epochs 2 --n_episodes 12 --eval_episodes 4"
STAGE_2 = f"{SHORT} --stage 2 --resume {ROOT}/fsdet/checkpoints/stage1_openmoji.pt --batch_size 1"
CONFIGS = {
    "stage 1 from scratch": f"{SHORT} --stage 1 --batch_size 4 --train_scenes 64",
    "stage 2, plain": f"{STAGE_2} --train_scenes 64",
    "stage 2, AGC, accumulated": f"{STAGE_2} --train_scenes 64 --gradient_clip_mode agc "
    "--gradient_accumulation 2 --share_interval 3",
    "stage 2, frozen backbone, test classes": f"{STAGE_2} --train_scenes 64 --backbone_lr_mult 0 "
    "--final_split test --dfl_weight 0.5 --seed 7",
    "stage 2, explodes": f"{STAGE_2} --train_scenes 64 --fusion_lr_mult 400 --lr 0.01",
}


@contextmanager
def checkout(ref: str) -> Iterator[Path]:
    """The tree of `ref` in a folder that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="same_steps_") as folder:
        tree = Path(folder) / "tree"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--detach", str(tree), ref], check=True, capture_output=True)
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def train(tree: Path, arguments: str, run_dir: Path) -> None:
    """Run the trainer of `tree`; an explosion is a result too."""
    command = [sys.executable, "-m", "fsdet.train", *arguments.split()]
    done = subprocess.run(
        [*command, "--checkpoint_dir", str(run_dir)],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in (0, 3):
        sys.exit(f"{tree}: {' '.join(command)}\n{done.stdout}{done.stderr}")


def compare(tree: Path, name: str, folder: Path) -> bool:
    """Train one configuration by both versions; whether all files are equal."""
    runs = [folder / "before", folder / "after"]
    for where, run_dir in zip((tree, ROOT), runs, strict=True):
        train(where, CONFIGS[name], run_dir)
    before, after = map(steps, runs)
    new = sorted({key for row in after for key in row} - {key for row in before for key in row})
    kept = [{key: value for key, value in row.items() if key not in new} for row in after]
    equal = before == kept and evaluations(runs[0]) == evaluations(runs[1])
    verdict = "equal" if equal else "DIFFERS"
    also = f", new: {', '.join(new)}" if new else ""
    print(f"{name:<42} {len(after):>4} steps  {verdict}{also}", flush=True)
    return equal


def steps(run_dir: Path) -> list[dict[str, str]]:
    """Each step's values as they are written, since NaN equals nothing."""
    lines = (run_dir / "steps.jsonl").read_text(encoding="utf-8").splitlines()
    return [{key: json.dumps(value) for key, value in json.loads(line).items()} for line in lines]


def evaluations(run_dir: Path) -> list[dict[str, float]]:
    """What was measured at the end of each epoch, without the memory in use."""
    lines = (run_dir / "evaluations.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [{key: value for key, value in row.items() if key != "memory"} for row in rows]


def main() -> int:
    """Compare every configuration; returns the exit code."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with checkout(sys.argv[1]) as tree:
        equal = []
        for number, name in enumerate(CONFIGS):
            with tempfile.TemporaryDirectory(prefix=f"same_steps_{number}_") as folder:
                equal.append(compare(tree, name, Path(folder)))
    return 0 if all(equal) else 1


if __name__ == "__main__":
    sys.exit(main())
