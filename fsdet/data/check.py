"""`python -m fsdet.data check …`: the content of a dataset, its problems, and episodes as the model sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from fsdet.command import FlagParser, read_flags
from fsdet.config import DataConfig, TrainConfig
from fsdet.config.parsing import build_config, flags_of, load_config
from fsdet.data.contact_sheet import write_sheet
from fsdet.data.episodes import EVAL_SEED, EpisodeSource
from fsdet.data.image_set import ImageSet, Split
from fsdet.data.problems import RULES, Problem
from fsdet.data.sources import load_image_set, load_problems
from fsdet.errors import ConfigError, DataError
from fsdet.tables import build_table, number_column, print_table

SPLITS: tuple[Split, ...] = ("train", "base", "val", "test", "shots")
COMMAND = "python -m fsdet.data check"
DESCRIPTION = (
    "Read, decode and check a dataset without training. --config FILE.yaml gives the settings without a flag; "
    "--sheet FILE.png (default contact_sheet.png) is the contact sheet to write, --episodes N its episodes per split."
)


@dataclass(frozen=True)
class CheckOptions:
    """The options of the command line."""

    config: DataConfig
    """A complete config; only the settings of the data are used."""
    sheet: Path
    episodes: int


def parse(arguments: Sequence[str]) -> CheckOptions:
    """Flags over `--config FILE` over defaults.

    Raises:
        ConfigError: the file or a value cannot be used.
        SystemExit: with code 0, after `--help`.
    """
    first = FlagParser(COMMAND, add_help=False, allow_abbrev=False)
    first.add_argument("--config", type=Path)
    first.add_argument("--sheet", type=Path, default=Path("contact_sheet.png"))
    first.add_argument("--episodes", type=int, default=2)
    known, rest = first.parse_known_args(arguments)
    values = dict(load_config(known.config) if known.config else TrainConfig())
    flags = read_flags(flags_of(DataConfig, values), rest, COMMAND, DESCRIPTION)
    # also checks the combination of settings
    config = build_config({**values, **vars(flags)}, "the flags")
    if known.episodes < 1:
        raise ConfigError(f"episodes: must be at least 1, but got {known.episodes}")
    return CheckOptions(config, known.sheet, known.episodes)


def check(options: CheckOptions, console: Console) -> None:
    """Print the report and draw the sheet.

    Raises:
        ConfigError: the sheet cannot be written.
        DataError: the dataset is refused, or a split that every run needs.
    """
    config = options.config
    check_sheet(options.sheet)
    if config.dataset != "openmoji":
        print_problems(load_problems(config), console)
    sets: dict[Split, ImageSet] = {}
    refused: dict[Split, DataError] = {}
    for split in SPLITS:
        try:
            sets[split] = load_image_set(config, split)
        except DataError as error:
            refused[split] = error
    print_splits(sets, refused, console)
    needed: tuple[Split, ...] = ("train", "base", config.novel_split)
    for split in needed:
        if split in refused:
            raise refused[split]
    sources: dict[str, EpisodeSource] = {
        split: EpisodeSource(image_set, config, EVAL_SEED, augment=False)
        for split, image_set in sets.items()
    }
    try:
        write_sheet(sources, options.episodes, options.sheet)
    except OSError as error:
        raise ConfigError(
            f"sheet: {options.sheet} cannot be written ({error.strerror}); name another file"
        ) from None
    console.print(
        f"episodes as the model sees them: {options.sheet}", markup=False, highlight=False
    )


def check_sheet(path: Path) -> None:
    """Refuse what cannot be a file, before anything is decoded.

    Raises:
        ConfigError: it is a folder, or its parent is a file.
    """
    if path.is_dir():
        raise ConfigError(f"sheet: {path} is a folder; name a PNG file in it")
    for above in path.parents:
        if above.is_file():
            raise ConfigError(f"sheet: {above} is a file, so {path} cannot be written below it")


def print_problems(problems: Sequence[Problem], console: Console) -> None:
    """Each kind of problem that was found, with its rule and the first files, and the kinds that were not."""

    def write(text: str, style: str = "") -> None:
        console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)

    write("Problems found, and how each is handled", "italic")
    for problem in problems:
        write(f"{problem.count:>7,}  {problem.kind}: {RULES[problem.kind]}")
        more = ["…"] if problem.count > len(problem.places) else []
        for place in [*problem.places, *more]:
            write(f"{'':9}{place}", "dim")
    found = {problem.kind for problem in problems}
    console.print(
        "      0  " + ", ".join(kind for kind in RULES if kind not in found) + "\n", style="dim"
    )


def print_splits(
    sets: dict[Split, ImageSet], refused: dict[Split, DataError], console: Console
) -> None:
    """Size and classes of each split, or why it is refused."""
    headings = ("images", "without object", "objects", "classes", "usable")
    table = build_table("split", *map(number_column, headings), "names of the first usable classes")
    for split in SPLITS:
        if split in refused:
            table.add_row(split, *[""] * 5, f"refused: {refused[split]}")
            continue
        s = sets[split]
        empty = int((s.offsets[1:] == s.offsets[:-1]).sum())
        names = [s.names[c] for c in s.usable_classes] if s.names else []
        some = ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
        sizes = (len(s), empty, len(s.labels), s.n_classes, len(s.usable_classes))
        table.add_row(split, *(f"{size:,}" for size in sizes), some)
    console.print("Splits", style="italic")
    print_table(console, table)
    console.print()
