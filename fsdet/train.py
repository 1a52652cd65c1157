"""`python -m fsdet.train …`: one training run. Parse, check, train, close.

The flags are the fields of `fsdet.config.TrainConfig`; `--config FILE` reads them from YAML, and flags
take precedence.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fsdet.command import ExitCode, FlagParser, read_flags, run_command
from fsdet.config import TrainConfig
from fsdet.config.parsing import build_config, flags_of, load_config
from fsdet.errors import ConfigError
from fsdet.progress import ProgressHandler
from fsdet.report import NO_SWAP_CONTROL, Report, Result

if TYPE_CHECKING:
    from fsdet.data.image_set import Split

log = logging.getLogger("fsdet.run")

COMMAND = "python -m fsdet.train"
DESCRIPTION = "Train the few-shot detector. --config FILE.yaml gives the settings without a flag."


def train(
    config: TrainConfig,
    on_report: Callable[[Report], None] | None = None,
    resume: Path | None = None,
    until: int | None = None,
) -> Result:
    """Run one training from start to end, or from one pause to the next.

    A run that pauses and is resumed from its last checkpoint, in any process, gives on a CPU the same result as one
    that never pauses. The pauses are not part of `config`: the learning-rate schedule is that of all its epochs.

    Args:
        config: everything the run depends on; files go to `config.checkpoint_dir`.
        on_report: called at every evaluation, at a pause, at the end and at an explosion; it stops the run by raising.
        resume: checkpoint of this run to resume from; `config.resume` is one to start from. An evaluation of its epoch
            that the run has stored is reported again, not computed again.
        until: number of epochs done at which the run pauses: it saves a checkpoint, evaluates, and reports phase
            `paused`. If `resume` has as many epochs already, it is reported at once. None, or at least
            `config.epochs`, trains to the end. The pause is evaluated in full unless `config.early_eval_epochs` lists
            the epoch. List it there, or make it a multiple of `config.eval_interval`: otherwise this evaluation is one
            more that a run without the pause does not have, and by which the best epoch is chosen.

    Returns:
        the last metrics and where the files are. A pause and an explosion are results, not exceptions.

    Raises:
        FsdetError: the config or a file in it cannot be used; nothing was started.
    """
    if until is not None and until < 1:
        raise ConfigError(
            f"until: must be at least 1, but got {until}; name the epoch to pause after, or None to train to the end"
        )
    log.info("%s", plan_of(config))
    if config.n_way == 1:
        log.warning("swap control %s", NO_SWAP_CONTROL)
    import torch  # only now: it takes seconds to load

    from fsdet.data.sources import load_image_set, log_problems
    from fsdet.training.logs import debug_log
    from fsdet.training.trainer import run_training

    check(config)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    prepare(config)
    image_set = load_image_set(config, config.train_split)
    try:
        config.checkpoint_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"checkpoint_dir: {config.checkpoint_dir} cannot be created ({error.strerror}); name another folder"
        ) from None
    with debug_log(config.checkpoint_dir), torch.autograd.set_detect_anomaly(config.debug):
        log_problems(config)
        return run_training(config, image_set, on_report, resume, until)


def plan_of(config: TrainConfig) -> str:
    """How many optimiser steps the settings mean, and by which of them."""
    drawn = "batches" if config.stage == 1 else f"episodes, batches of {config.batch_size}"
    return (
        f"stage {config.stage}: {config.total_steps} optimiser steps: {config.epochs} epochs of "
        f"{config.steps_per_epoch} ({config.n_episodes} {drawn}, accumulation {config.gradient_accumulation})"
    )


def check(config: TrainConfig) -> None:
    """Check every file and name in `config` without starting anything.

    Raises:
        FsdetError: the first one that cannot be used.
    """
    from fsdet.checkpoint.content import load_checkpoint
    from fsdet.data.sources import check_data
    from fsdet.device import check_cuda
    from fsdet.models.backbone import Backbone, load_yolo_weights
    from fsdet.models.support_encoder import check_support_encoder, find_weights
    from fsdet.training.resuming import check_architecture

    check_support_encoder(config.support_encoder)
    check_data(config, used_splits(config))
    if config.resume is not None:
        check_architecture(load_checkpoint(config.resume), config, config.resume)
    else:  # a checkpoint replaces these
        find_weights(config)
        if config.yolo_weights is not None:
            load_yolo_weights(Backbone(), config.yolo_weights)
    if config.device.startswith("cuda"):
        check_cuda(config.device)


def prepare(config: TrainConfig) -> None:
    """Decode or compose the images that a run needs, once per machine, with progress bars.

    Raises:
        DataError: the dataset is broken or too small.
    """
    from fsdet.data.sources import load_image_set

    for split in used_splits(config):
        load_image_set(config, split)


def used_splits(config: TrainConfig) -> tuple[Split, ...]:
    """The splits that a run trains and is evaluated on."""
    return config.train_split, config.novel_split, "base"


def parse(arguments: Sequence[str]) -> TrainConfig:
    """Flags over `--config FILE` over defaults.

    Raises:
        ConfigError: the file or a value cannot be used.
        SystemExit: with code 0, after `--help`.
    """
    first = FlagParser(COMMAND, add_help=False, allow_abbrev=False)
    first.add_argument("--config", type=Path)
    known, rest = first.parse_known_args(arguments)
    default = load_config(known.config) if known.config else TrainConfig()
    flags = read_flags(flags_of(TrainConfig, dict(default)), rest, COMMAND, DESCRIPTION)
    return build_config(vars(flags), "the command line")


def main() -> int:
    """Command line; returns the exit code."""
    handler = ProgressHandler(logging.INFO)  # the debug log has the rest
    logging.basicConfig(format="%(message)s", handlers=[handler])
    logging.getLogger("fsdet").setLevel(logging.INFO)
    return run_command(run, "interrupted; continue with --resume and the newest checkpoint")


def run() -> int:
    """Train as the command line says and print the outcome; returns the exit code."""
    from fsdet.health.checklist import read_health

    result = train(parse(sys.argv[1:]))
    print(f"health: {read_health(result.run_dir).verdict}")
    print(f"        all lines: python -m fsdet.health {result.run_dir}")
    if result.explosion is not None:
        where = f"step {result.explosion.step}: {result.explosion.detail}"
        print(f"exploded at {where}", file=sys.stderr)
        return ExitCode.EXPLODED
    print(f"done: {result.steps} steps, files in {result.run_dir}")
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
