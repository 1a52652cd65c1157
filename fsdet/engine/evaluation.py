"""What a detector is worth: AP over fixed episodes, the swap control beside it, ST-IoU over videos.

The swap control is the same episodes with every class given another class's supports. A detector that
ignores its supports scores the same; the gap between the two is what the supports are worth.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from fsdet.config import TrainConfig
from fsdet.data.episodes import EVAL_SEED, BaseSource, EpisodeSource
from fsdet.data.image_set import ImageSet
from fsdet.data.sources import load_image_set
from fsdet.engine.average_precision import Scores, collect, score_episode
from fsdet.engine.intervals import half_width, standard_error
from fsdet.engine.postprocess import detect, detect_image, with_swapped_supports
from fsdet.engine.support_draws import redrawn_supports
from fsdet.engine.support_features import SupportFeatures
from fsdet.engine.video_evaluation import evaluate_videos
from fsdet.models.detector import Detector
from fsdet.progress import progress
from fsdet.structures import Batch, Detections

OBJECT_IMAGES, OBJECT_BATCH = 64, 8
"""Images on which the finding of objects is scored, and how many at a time."""


@dataclass(frozen=True)
class Evaluation:
    """Results over the same query images."""

    draws: tuple[Scores, ...]
    """With the episodes' own supports, then with further draws of supports."""
    swapped: Scores
    """With every class given its neighbour's supports."""

    @property
    def right(self) -> Scores:
        """With the episodes' own supports."""
        return self.draws[0]

    @property
    def ap50(self) -> float:
        """Mean AP50 with the episodes' own supports."""
        return self.right.ap50

    @property
    def swap_gap(self) -> float:
        """What the supports are worth, in AP50."""
        return self.right.ap50 - self.swapped.ap50

    @property
    def swap_gap_se(self) -> float:
        """Standard error of `swap_gap` over episodes, each compared with itself; NaN for a single one."""
        pairs = zip(self.right.episodes["AP50"], self.swapped.episodes["AP50"], strict=True)
        return standard_error([right - swapped for right, swapped in pairs])


def evaluate_run(
    detector: Detector, config: TrainConfig, device: str, final: bool, label: str | None = None
) -> dict[str, float]:
    """The metrics of one evaluation, by name; the prefix is `config.novel_split`.

    The novel classes and their swap control every time; further draws of their supports, videos, base
    classes on unseen images and the finding of objects of whatever class at the end only.

    Args:
        detector: put into evaluation mode meanwhile.
        config: data, sizes of the episodes, number of episodes and draws.
        device: where the detector lives.
        final: whether this is the last evaluation of a run.
        label: names a progress bar; None shows none, where another one is running.

    Raises:
        DataError: no episode has a target, or the dataset cannot be used.
    """
    prefix, count = config.novel_split, config.eval_episodes
    image_set = load_image_set(config, prefix)
    with evaluation_mode(detector):
        features = SupportFeatures(detector, image_set, device)
        novel = evaluate(
            detector,
            EpisodeSource(image_set, config, EVAL_SEED, augment=False),
            count,
            device,
            features,
            draws=config.eval_draws if final and is_choice(image_set, config.n_shot) else 1,
            label=label,
        )
        metrics = novel_metrics(novel)
        if final:
            videos = label and f"{label}, videos"
            st_iou = evaluate_videos(detector, image_set, features, config.n_shot, device, videos)
            metrics |= {} if st_iou is None else {"ST_IoU": st_iou}
            metrics |= base_metrics(detector, config, device, label)
    return {f"{prefix}/{name}": v for name, v in metrics.items() if math.isfinite(v)}


def is_choice(image_set: ImageSet, n_shot: int) -> bool:
    """Whether a class has more crops than an episode shows: else every draw of supports is the same."""
    return bool((image_set.support_counts > n_shot).any())


def novel_metrics(novel: Evaluation) -> dict[str, float]:
    """Name without prefix -> value: nAP50 and its kin, its spread, the swap control, the draws."""
    right = novel.right
    metrics = {f"n{name}": value for name, value in right.means().items()}
    metrics |= {"nAP50_se": right.ap50_se, "nAP50_ci95": right.ap50_ci95}
    metrics |= {"nAP50_swapped": novel.swapped.ap50}
    metrics |= {"swap_gap": novel.swap_gap, "swap_gap_se": novel.swap_gap_se}
    if len(novel.draws) > 1:
        values = [draw.ap50 for draw in novel.draws]
        metrics["nAP50_draws_mean"] = sum(values) / len(values)
        metrics["nAP50_draws_ci95"] = half_width(values)
    return metrics


def base_metrics(
    detector: Detector, config: TrainConfig, device: str, label: str | None
) -> dict[str, float]:
    """Name without prefix -> value: base classes on unseen images, over half as many episodes."""
    image_set = load_image_set(config, "base")
    base = evaluate(
        detector,
        EpisodeSource(image_set, config, EVAL_SEED, augment=False),
        math.ceil(config.eval_episodes / 2),
        device,
        label=label and f"{label}, base classes",
    )
    objects = evaluate_objects(detector, BaseSource(image_set, EVAL_SEED), device)
    return {
        **{f"b{name}": value for name, value in base.right.means().items()},
        "bAP50_ci95": base.right.ap50_ci95,
        "bAP50_swapped": base.swapped.ap50,
        "base_swap_gap": base.swap_gap,
        "object_AP50": objects.ap50,
    }


@torch.no_grad()
def evaluate(
    detector: Detector,
    episodes: EpisodeSource,
    count: int,
    device: str,
    features: SupportFeatures | None = None,
    draws: int = 1,
    label: str | None = None,
) -> Evaluation:
    """Score `detector` on episodes 0 … count - 1.

    The images of an episode are encoded once, and each support crop once.

    Args:
        detector: put into evaluation mode meanwhile.
        episodes: fixed source.
        count: number of episodes.
        device: where the detector lives.
        features: embedded supports of the source's image set; None embeds them here.
        draws: how often supports are drawn for the same query images.
        label: names a progress bar; None shows none.

    Raises:
        DataError: no episode has a target.
    """
    image_set = episodes.image_set
    features = features or SupportFeatures(detector, image_set, device)
    rows: list[list[dict[str, float]]] = []
    with evaluation_mode(detector):
        for index in progress(range(count), label) if label else range(count):
            episode = episodes.batch(index, 1)
            others = (redrawn_supports(image_set, episode, index, draw) for draw in range(1, draws))
            supports = (episode.support_ids, *others)
            encoded = detector.encode(episode.images.to(device))
            found = [detect(detector.search(encoded, features.look_up(ids))) for ids in supports]
            rows.append(score_draws(episode, found))
    *right, swapped = (collect(list(column)) for column in zip(*rows, strict=True))
    return Evaluation(tuple(right), swapped)


def score_draws(episode: Batch, found: list[list[Detections]]) -> list[dict[str, float]]:
    """The scores of one episode with each draw of supports, and last with the first draw's swapped.

    Args:
        episode: a single one.
        found: for each draw, the detections of each query image.
    """
    n_way = episode.classes.shape[1]
    swapped = with_swapped_supports(found[0], n_way)
    return [score_episode(episode.targets, one, n_way) for one in (*found, swapped)]


@torch.no_grad()
def evaluate_objects(detector: Detector, images: BaseSource, device: str) -> Scores:
    """Score the finding of objects of whatever class, without supports, on the first images."""
    scores = []
    with evaluation_mode(detector):
        for first in range(0, OBJECT_IMAGES, OBJECT_BATCH):
            batch = images.batch(first, OBJECT_BATCH)
            head = detector.find_objects(detector.encode(batch.images.to(device)))
            objectness = head.objectness.float().sigmoid()[..., None]
            pairs = zip(head.boxes().float(), objectness, strict=True)
            found = [detect_image(boxes, values) for boxes, values in pairs]
            targets = replace(batch.targets, labels=torch.zeros_like(batch.targets.labels))
            scores.append(score_episode(targets, found, n_way=1))
    return collect(scores)


@contextmanager
def evaluation_mode(detector: Detector) -> Iterator[None]:
    """Put the detector into evaluation mode, and back into the mode it was in."""
    was_training = detector.training
    detector.eval()
    try:
        yield
    finally:
        detector.train(was_training)
