"""The metrics of a detector: AP over fixed episodes with a swap control, and ST-IoU over videos.

The swap control repeats the same episodes with every class searched with another class's supports. A detector that
ignores its supports scores the same on both; the gap measures how much it uses them. Episodes of one class have no
other supports: with `n_way` 1 the control is not available, and its metrics are missing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeAlias

import torch

from fsdet.config import TrainConfig
from fsdet.data.episodes import EVAL_SEED, BaseSource, EpisodeSource
from fsdet.data.sources import load_image_set
from fsdet.device import kind_of
from fsdet.evaluation.average_precision import Scores, collect, score_episode
from fsdet.evaluation.intervals import standard_error
from fsdet.evaluation.videos import evaluate_videos
from fsdet.models.detector import Detector
from fsdet.models.postprocess import detect, detect_images, with_swapped_supports
from fsdet.models.support_features import SupportFeatures
from fsdet.progress import progress
from fsdet.structures import Batch, Detections

OnEpisode: TypeAlias = Callable[[Batch, list[Detections]], None]
"""Receives an episode and the detections of its query images, found with the episode's own supports."""
IMAGES_AT_ONCE = {"cuda": 64}
"""Images of whole episodes that a device searches in one pass; elsewhere it is one episode, whose values then do not
depend on its neighbours."""
OBJECT_IMAGES, OBJECT_BATCH = 64, 8
"""Images on which class-agnostic detection is scored, and how many per batch."""


@dataclass(frozen=True)
class Evaluation:
    """Results over the same episodes."""

    correct: Scores
    """With the episodes' own supports."""
    swapped: Scores | None
    """With every class searched with its neighbour's supports; None for episodes of one class."""

    @property
    def ap50(self) -> float:
        """Mean AP50 with the episodes' own supports."""
        return self.correct.ap50

    @property
    def swapped_ap50(self) -> float:
        """Mean AP50 with swapped supports; NaN for episodes of one class."""
        return math.nan if self.swapped is None else self.swapped.ap50

    @property
    def swap_gap(self) -> float:
        """AP50 that is lost when the supports are swapped; NaN for episodes of one class."""
        return math.nan if self.swapped is None else self.correct.ap50 - self.swapped.ap50

    @property
    def swap_gap_se(self) -> float:
        """Standard error of `swap_gap` over episodes, each compared with itself; NaN for a single one."""
        if self.swapped is None:
            return math.nan
        pairs = zip(self.correct.episodes["AP50"], self.swapped.episodes["AP50"], strict=True)
        return standard_error([correct - swapped for correct, swapped in pairs])


def evaluate_run(
    detector: Detector,
    config: TrainConfig,
    device: str,
    final: bool,
    label: str | None = None,
    on_episode: OnEpisode | None = None,
) -> dict[str, float]:
    """The metrics of one evaluation, by name.

    Every evaluation except the last is over the same few episodes of `config.novel_split`, so that epochs and
    trials can be compared while they run. The last one gives the result of the run: over `config.eval_draws` times as
    many episodes of `config.reported_split`, none of which was used for selection; also base classes on unseen images,
    class-agnostic detection of objects, and videos if there are any.

    Args:
        detector: in evaluation mode while this runs.
        config: data, sizes of the episodes, their number.
        device: of the detector.
        final: whether this is the last evaluation of a run.
        label: of the progress bar; None shows none.
        on_episode: called with each episode of novel classes.

    Raises:
        DataError: no episode has a target, or the dataset cannot be used.
    """
    split = config.reported_split if final else config.novel_split
    image_set = load_image_set(config, split)
    with evaluation_mode(detector):
        features = SupportFeatures(detector, image_set, device)
        novel = evaluate(
            detector,
            EpisodeSource(image_set, config, EVAL_SEED, augment=False),
            final_episodes(config) if final else range(config.eval_episodes),
            device,
            features,
            label=label,
            on_episode=on_episode,
        )
        metrics = novel_metrics(novel)
        if final:
            videos = label and f"{label}, videos"
            st_iou = evaluate_videos(detector, image_set, features, config.n_shot, device, videos)
            metrics |= {} if st_iou is None else {"ST_IoU": st_iou}
            metrics |= base_metrics(detector, config, device, label)
    return {f"{split}/{name}": v for name, v in metrics.items() if math.isfinite(v)}


def final_episodes(config: TrainConfig) -> range:
    """Numbers of the episodes of the last evaluation, which follow those of the others."""
    return range(config.eval_episodes, config.eval_episodes * (1 + config.eval_draws))


def novel_metrics(novel: Evaluation) -> dict[str, float]:
    """Name without prefix -> value: AP of novel classes, its spread over episodes and classes, the swap control."""
    correct = novel.correct
    metrics = {f"n{name}": value for name, value in correct.means().items()}
    metrics |= {"nAP50_se": correct.ap50_se, "nAP50_ci95": correct.ap50_ci95}
    metrics |= {"nAP50_se_classes": correct.ap50_se_classes, "nAP50_swapped": novel.swapped_ap50}
    metrics |= {"swap_gap": novel.swap_gap, "swap_gap_se": novel.swap_gap_se}
    return metrics


def base_metrics(
    detector: Detector, config: TrainConfig, device: str, label: str | None
) -> dict[str, float]:
    """Name without prefix -> value: base classes on unseen images, over half as many episodes as an evaluation has."""
    image_set = load_image_set(config, "base")
    base = evaluate(
        detector,
        EpisodeSource(image_set, config, EVAL_SEED, augment=False),
        range(math.ceil(config.eval_episodes / 2)),
        device,
        label=label and f"{label}, base classes",
    )
    objects = evaluate_objects(detector, BaseSource(image_set, EVAL_SEED), device)
    return {
        **{f"b{name}": value for name, value in base.correct.means().items()},
        "bAP50_ci95": base.correct.ap50_ci95,
        "bAP50_swapped": base.swapped_ap50,
        "base_swap_gap": base.swap_gap,
        "object_AP50": objects.ap50,
    }


@torch.no_grad()
def evaluate(
    detector: Detector,
    episodes: EpisodeSource,
    numbers: range,
    device: str,
    features: SupportFeatures | None = None,
    label: str | None = None,
    on_episode: OnEpisode | None = None,
) -> Evaluation:
    """Score `detector` on the episodes of these numbers.

    The images of an episode are encoded once, and each support crop once. A GPU searches several episodes in one pass.

    Args:
        detector: in evaluation mode while this runs.
        episodes: fixed source.
        numbers: of the episodes.
        device: of the detector.
        features: embedded supports of the source's image set; None embeds them here.
        label: names a progress bar; None shows none.
        on_episode: called with each episode.

    Raises:
        DataError: no episode has a target.
    """
    features = features or SupportFeatures(detector, episodes.image_set, device)
    correct, swapped = [], []
    with evaluation_mode(detector):
        passes = passes_of(numbers, episodes.n_way * episodes.n_query, device)
        for some in progress(passes, label) if label else passes:
            batch = episodes.batch(some[0], len(some))
            for episode, found in search(detector, batch, features, device):
                n_way, classes = episode.classes.shape[1], episode.classes[0].tolist()
                correct.append(score_episode(episode.targets, found, classes))
                if on_episode is not None:
                    on_episode(episode, found)
                if n_way > 1:
                    others = with_swapped_supports(found, n_way)
                    swapped.append(score_episode(episode.targets, others, classes))
    return Evaluation(collect(correct), collect(swapped) if swapped else None)


def search(
    detector: Detector, batch: Batch, features: SupportFeatures, device: str
) -> Iterator[tuple[Batch, list[Detections]]]:
    """Each episode of a batch, and what is found in its images; all are searched in one pass."""
    encoded = detector.encode(batch.images.to(device))
    found = iter(detect(detector.search(encoded, features.embed(batch.support_ids))))
    for episode in batch.episodes():
        yield episode, list(islice(found, len(episode.images)))


def passes_of(numbers: range, images: int, device: str) -> list[range]:
    """Which episodes are searched in one pass.

    Args:
        numbers: of all episodes.
        images: of an episode.
        device: that searches them.
    """
    most = max(1, IMAGES_AT_ONCE.get(kind_of(device), 1) // images)
    return [numbers[first : first + most] for first in range(0, len(numbers), most)]


@torch.no_grad()
def evaluate_objects(detector: Detector, images: BaseSource, device: str) -> Scores:
    """Score the class-agnostic detection of objects, without supports, on the first images."""
    scores = []
    with evaluation_mode(detector):
        for first in range(0, OBJECT_IMAGES, OBJECT_BATCH):
            batch = images.batch(first, OBJECT_BATCH)
            head = detector.find_objects(detector.encode(batch.images.to(device)))
            objectness = head.objectness.float().sigmoid()[..., None]
            found = detect_images(head.boxes().float(), objectness)
            targets = replace(batch.targets, labels=torch.zeros_like(batch.targets.labels))
            scores.append(score_episode(targets, found, classes=[0]))
    return collect(scores)


@contextmanager
def evaluation_mode(detector: Detector) -> Iterator[None]:
    """Put the detector into evaluation mode, and restore its mode afterwards."""
    was_training = detector.training
    detector.eval()
    try:
        yield
    finally:
        detector.train(was_training)
