"""The inputs of `fuzz.py`: each kind writes files into the working directory and returns their command."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random

import optuna
from fuzz_files import called
from PIL import Image

import fsdet.training.trainer  # noqa: F401  now, since libraries write into HOME when they are imported
from fsdet.command import run_command
from fsdet.data.__main__ import main as check_data
from fsdet.evaluate import main as evaluate
from fsdet.export import main as export
from fsdet.health.__main__ import main as health
from fsdet.predict import main as predict
from fsdet.train import main as train_main
from sweeps.best import main as best
from sweeps.config import Objective, SweepSpec
from sweeps.config.check import check_spec
from sweeps.config.file import load_spec
from sweeps.errors import SweepError
from sweeps.list import main as show_list
from sweeps.report.__main__ import main as report
from sweeps.rerun import main as rerun
from sweeps.run import folder_to_resume
from sweeps.run import main as sweep
from sweeps.schema import main as schema
from sweeps.session.resume import check_study, recorded_reports
from sweeps.session.sweep import open_study
from sweeps.storage.lookup import new_folder
from sweeps.study.location import store_of
from sweeps.study.records import Preset
from sweeps.study.study import add_preset, read_trials
from sweeps.sync import main as sync

Command = Callable[[], int]

SWEEP = """\
name: fuzz
space:
  lr: {low: 0.0001, high: 0.01, log: true}
  gradient_clip_mode: {choices: [norm, agc]}
  gradient_clip_norm: {low: 0.1, high: 100, log: true, when: {gradient_clip_mode: norm}}
  fusion_lr_mult: {low: 1, high: 9, step: 2}
  head_lr_mult: {tie: fusion_lr_mult, times: 2}
baselines:
  before: {lr: 0.001, gradient_clip_mode: norm, gradient_clip_norm: 10, fusion_lr_mult: 3}
fixed:
  epochs: 9
  n_episodes: 3
objective: {metric: val/nAP50}
sampler: {name: random, seed: 1, startup_trials: 6}
scheduler: {name: asha, reduction: 3}
budget: {hours: 1}
confirm: {top_k: 2, seeds: 5}
resources: {cpus: 1, gpus: 0}
storage: {path: out}
trials: 4
"""
VALUES = [
    *("~", "null", "true", "''", "-1", "0", "1", ".inf", "-.inf", ".nan", "1e300", "-1e300", "1e-300"),
    *("1e-12", "4294967296", "18446744073709551616", "9" * 5000, "0." + "1" * 5000, "0x" + "f" * 900),
    *("2001-99-99", "2001-01-01", "12:30:45", "!!int x", "!!python/object/apply:os.system [ls]", "!x 1"),
    *("!!set {a, b}", "!!binary aGk=", "!!timestamp 1", '"\\ud800"', '"\\0"', '"\\e[31m"', "[/red]", "'[bold]'"),
    *("~nobody/x", "~/x", "../../x", "/", "/dev/zero", "x" * 5000, "a?b%20c", "{}", "[]", "[1, 2]", "{a: 1}"),
    *("[[[[[[]]]]]]", "&a [*a]", "*b", "{low: 0, high: 1}", "{low: 1, high: 1e300, step: 1e-12}", "[.nan]"),
    *("{low: 0, high: 1, step: 1e-12}", "{choices: []}", "{choices: [[]]}", "{tie: lr, times: 1e308}"),
    *("asha", "grid", "nsgaii", "cmaes", "gp", "auto", "s3://" + "://" * 20_000, "postgresql://u:p@h/" + "@" * 9999),
    "[" * 3000,
    "[" + ",".join(map(str, range(30_000))) + "]",
    "{" + ",".join(f"k{n}: 1" for n in range(20_000)) + "}",
    "x" * 1_000_000,
]  # fmt: skip
KEYS = [
    "~",
    "5",
    "1.5",
    "true",
    "<<",
    "=",
    "? [1]\n",
    "[x]",
    "'[/x]'",
    "name",
    "space",
    "lr",
    "y" * 300,
    '"\\ud800"',
]


def mutated_yaml(chance: Random, text: str) -> bytes:
    """`text` with values and keys replaced, lines moved, or bytes changed."""
    lines = text.splitlines()
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        at = chance.randrange(len(lines))
        key, colon, value = lines[at].partition(":")
        match chance.randrange(8):
            case 0 | 1 | 2:
                lines[at] = f"{key}: {chance.choice(VALUES)}"
            case 3 if "{" in value:
                parts = value.strip().strip("{}").split(", ")
                part = chance.randrange(len(parts))
                parts[part] = f"{parts[part].partition(':')[0]}: {chance.choice(VALUES)}"
                lines[at] = f"{key}: {{{', '.join(parts)}}}"
            case 4:
                indent = key[: len(key) - len(key.lstrip())]
                lines[at] = f"{indent}{chance.choice(KEYS)}{colon}{value}"
            case 5:
                lines.insert(at, lines[chance.randrange(len(lines))])
            case 6:
                del lines[at]
            case _:
                lines = (
                    mutated_bytes(chance, "\n".join(lines).encode()).decode("latin1").split("\n")
                )
        lines = lines or [""]
    return ("\n".join(lines) + "\n").encode(errors="surrogatepass")


def mutated_bytes(chance: Random, data: bytes) -> bytes:
    """`data` with some bytes changed, cut out, repeated or cut off."""
    for _ in range(chance.randint(1, 4)):
        at, end = sorted(chance.randrange(len(data) + 1) for _ in range(2))
        middle = chance.choice((
            chance.randbytes(chance.randint(1, 8)),
            b"",
            data[at:end] * 2,
            b"\0" * (end - at),
            chance.choice(VALUES).encode(),
        ))  # fmt: skip
        data = data[:at] + middle + data[end if chance.random() < 0.5 else at :]
    return data


def yaml_case(chance: Random) -> Command:
    """A sweep's file."""
    Path("x.yaml").write_bytes(mutated_yaml(chance, SWEEP))

    def check() -> int:
        spec, lines = load_spec("x.yaml")
        check_spec(spec, lines)
        return 0

    if chance.random() < 0.1:  # the command itself, which looks at data and machine, takes longer
        return lambda: sweep(["x.yaml", "--check"])
    return lambda: run_command(check, mistakes=(SweepError,))


def config_case(chance: Random) -> Command:
    """A configuration of one training, whose data never exists."""
    text = "lr: 0.001\nepochs: 2\nseed: 3\nhealth_dfl: [1, 2]\nearly_eval_epochs: [1]\nstage: 1\n"
    Path("x.yaml").write_bytes(mutated_yaml(chance, text))
    words = ["--config", "x.yaml", "--dataset", "yolo", "--data_root", "nowhere"]
    return called(train_main, words)


def flags_case(chance: Random) -> Command:
    """Flags of a sweep and of a training."""
    value = chance.choice(VALUES)[:100_000].replace("\0", "")
    if chance.random() < 0.5:
        keys = (
            "lr",
            "space.lr.low",
            "space",
            "fixed",
            "sampler.seed",
            "a.b.c",
            "",
            ".",
            "name",
            "storage.path",
        )
        Path("x.yaml").write_text(SWEEP, encoding="utf-8")
        return lambda: sweep(["x.yaml", "--check", "--set", f"{chance.choice(keys)}={value}"])
    flags = (
        "lr",
        "epochs",
        "seed",
        "device",
        "base_classes",
        "resume",
        "health_dfl",
        "embed_dim",
        "lrr",
    )
    fixed = ["--dataset", "yolo", "--data_root", "nowhere"]
    words = [*fixed, f"--{chance.choice(flags)}", *value.split(" ", 3)]
    return called(train_main, words)


WORDS = (  # of a command line
    *("--nonsense", "--json", "--storage", "--checkpoint", "--supports", "--images", "--device"),
    *("--eval_draws", "--score_threshold", "--config", "--set", "--trials", "--all", "--check"),
    *("--markdown", "--port", "-h", "-x", "--", "-", "--=1", "check", "x", "0", "", "nowhere/x.pt"),
)
MAINS: tuple[Callable[[], int], ...] = (
    *(evaluate, export, health, predict, best, show_list, report, rerun, sync, schema),
    lambda: sweep(sys.argv[1:]),
    lambda: check_data(sys.argv[1:]),
)
"""All commands but the one that serves and the one that trains: `flags_case` has that."""


def commands_case(chance: Random) -> Command:
    """Any command with any words, where there is nothing to work on."""
    main = chance.choice(MAINS)
    words = [chance.choice(WORDS) for _ in range(chance.randrange(5))]
    if chance.random() < 0.3:
        words.append(chance.choice(VALUES)[:100_000].replace("\0", ""))
    return called(main, words)


LABEL = "0 0.5 0.5 0.2 0.2\n1 0.3 0.3 0.1 0.1\n"
DESCRIPTION = "path: .\ntrain: images\nval: images\nnames: {0: cat, 1: dog, 2: fox, 3: hen}\n"


def labels_case(chance: Random) -> Command:
    """A YOLO dataset of four images."""
    Path("images").mkdir()
    Path("labels").mkdir()
    for number in range(4):
        Image.new("RGB", (64, 64), (60 * number, 9, 9)).save(f"images/{number}.png")
        Path(f"labels/{number}.txt").write_bytes(mutated_bytes(chance, LABEL.encode()))
    text = DESCRIPTION.encode()
    Path("data.yaml").write_bytes(
        mutated_yaml(chance, DESCRIPTION) if chance.random() < 0.5 else text
    )
    flags = ["--data_root", ".", "--cache_dir", "cache", "--sheet", "s.png"]
    return lambda: check_data(["check", "--dataset", "yolo", *flags])


def resume_case(chance: Random) -> Command:
    """The folder of a sweep that was killed, with one file damaged."""
    Path("x.yaml").write_text(SWEEP, encoding="utf-8")
    spec, _ = load_spec("x.yaml")
    folder = new_folder(spec.name, storage=spec.storage.path)
    folder.save_spec(spec)
    folder.save_record({"sweep_id": "x", "study": None})
    study = optuna.create_study(
        storage=store_of(folder).storage(), study_name=store_of(folder).name
    )
    for name, values in spec.baseline_parameters().items():
        add_preset(study, spec, Preset(values, name))
    run = folder.trials_dir / "0000"
    run.mkdir(parents=True)
    steps = [{"step": step, "grad/norm": 1.0} for step in range(1, 9)]
    evaluations = [
        {"step": 4, "epoch": 1, "val/nAP50": 0.1},
        {"step": 8, "epoch": 2, "val/nAP50": "nan"},
    ]
    for file, rows in (("steps.jsonl", steps), ("evaluations.jsonl", evaluations)):
        (run / file).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    files = (folder.spec_file, folder.study_file, folder.record_file, *run.iterdir())
    damaged = chance.choice(sorted(files))
    text = damaged.read_bytes()
    change = (
        mutated_yaml(chance, text.decode())
        if damaged.suffix == ".yaml"
        else mutated_bytes(chance, text)
    )
    damaged.write_bytes(change)
    if chance.random() < 0.3:
        return lambda: best([spec.name, "--storage", "out"])
    return lambda: run_command(lambda: _resume(spec), mistakes=(SweepError,))


def _resume(spec: SweepSpec) -> int:
    """What a session reads before it starts Ray."""
    folder = folder_to_resume(spec, spec.name)
    store = store_of(folder)
    store.repair()
    check_study(store, folder, {})
    open_study(spec, store)
    for record in read_trials(store):
        list(recorded_reports(folder.trials_dir / record.folder, Objective()))
    return 0


KINDS: dict[str, Callable[[Random], Command]] = {
    "yaml": yaml_case,
    "config": config_case,
    "flags": flags_case,
    "commands": commands_case,
    "labels": labels_case,
    "resume": resume_case,
}
