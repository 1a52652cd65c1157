"""The page of detections: what is right, wrong and missed is in its colours, whatever the size of an episode."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageColor

from fsdet.config import DataConfig
from fsdet.data.episodes import EVAL_SEED, EpisodeSource
from fsdet.evaluation.detections_page import MISSED, PAGE, RIGHT, WRONG, write_page
from fsdet.evaluation.findings import Findings, SearchedEpisode
from fsdet.structures import Batch, Detections

DATA = DataConfig(image_size=64, support_size=32, n_way=2, n_query=1, n_shot=2)


def detections(episode: Batch, shift: float) -> list[Detections]:
    """Every target, `shift` pixels off."""
    found = []
    for row in range(len(episode.images)):
        mask = episode.targets.mask[row]
        boxes, labels = episode.targets.boxes[row][mask], episode.targets.labels[row][mask]
        found.append(Detections(boxes + shift, torch.full((len(boxes),), 0.7), labels))
    return found


def searched(source: EpisodeSource, shift: float, episodes: int = 2) -> list[SearchedEpisode]:
    findings = Findings(episodes)
    for number in range(episodes):
        episode = source.batch(number, 1)
        findings.add(episode, detections(episode, shift))
    return findings.episodes


def pixels_of(colour: str, path: Path) -> int:
    pixels = np.asarray(Image.open(path).convert("RGB"))[120:]  # below the legend
    return int((pixels == ImageColor.getrgb(colour)).all(axis=2).sum())


@pytest.mark.parametrize(
    ("shift", "threshold", "shown", "hidden"),
    [
        (0, 0.5, {RIGHT}, {WRONG, MISSED}),
        (500, 0.5, {WRONG, MISSED}, {RIGHT}),
        (0, 0.9, {MISSED}, {RIGHT, WRONG}),
    ],
)
def test_right_wrong_and_missed_have_their_colours(
    train_set, tmp_path, shift, threshold, shown, hidden
):
    source = EpisodeSource(train_set, DATA, EVAL_SEED, augment=False)
    path = tmp_path / "page.png"
    write_page(path, searched(source, shift), train_set.names, threshold, ["a title"])
    assert all(pixels_of(colour, path) > 100 for colour in shown)
    assert all(pixels_of(colour, path) == 0 for colour in hidden)
    assert Image.open(path).getpixel((0, 0)) == 254  # white, the last but one of the palette


@pytest.mark.parametrize(("ways", "queries", "shots"), [(2, 6, 5), (8, 1, 3), (5, 2, 1)])
def test_every_size_of_episode_fits_the_page(train_set, tmp_path, ways, queries, shots):
    data = DATA.model_copy(update={"n_way": ways, "n_query": queries, "n_shot": shots})
    source = EpisodeSource(train_set, data, EVAL_SEED, augment=False)
    one = replace(searched(source, 0, 1)[0])
    write_page(tmp_path / "page.png", [one], (), 0.5, ["a title", "a line"])
    page = Image.open(tmp_path / "page.png")
    assert 400 < page.width <= PAGE
    assert 300 < page.height < 2500
    assert (tmp_path / "page.png").stat().st_size < 1_000_000
