"""The files that a sweep names, as absolute paths."""

from __future__ import annotations

from yaml_files import GOOD, load


def test_files_are_found_wherever_they_are_named(in_own_folder):
    for name in ("a.pt", "b.pt"):
        (in_own_folder / name).touch()
    text = GOOD.replace(
        "  fusion_lr_mult: {low",
        "  resume: {choices: [a.pt, b.pt]}\n"
        "  dfl_weight: {choices: [1], when: {resume: b.pt}}\n"
        "  fusion_lr_mult: {low",
    )
    text = text.replace("clip: {", "clip: {resume: a.pt, ")
    text = text.replace("agc: {", "agc: {resume: b.pt, dfl_weight: 1, ")
    spec = load(text)
    a, b = (str(in_own_folder / name) for name in ("a.pt", "b.pt"))
    assert spec.space["resume"].choices == (a, b)
    assert spec.space["dfl_weight"].conditions == {"resume": (b,)}
    assert spec.baseline_parameters()["clip"]["resume"] == a


def test_paths_are_absolute_and_found_beside_the_yaml(in_own_folder):
    (in_own_folder / "weights.pt").touch()
    spec = load(GOOD + "fixed: {resume: weights.pt}\n")
    assert spec.fixed["resume"] == str(in_own_folder / "weights.pt")
