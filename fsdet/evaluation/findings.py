"""What an evaluation finds: every detection with its score, right or wrong, and the first episodes for a picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fsdet.data.image_set import Array
from fsdet.evaluation.matching import ScoreThreshold, best_threshold, match
from fsdet.structures import Batch, Detections


@dataclass(frozen=True)
class SearchedEpisode:
    """One episode with its detections."""

    episode: Batch
    found: list[Detections]
    """Of each query image."""
    matches: list[Array]
    """Of each query image: the target of each detection, -1 for a wrong one."""


class Findings:
    """Collects the detections of an evaluation, which passes each episode to `add`.

    Args:
        kept: number of first episodes that are kept whole.
    """

    def __init__(self, kept: int) -> None:
        self.episodes: list[SearchedEpisode] = []
        self._kept = kept
        self._scores: list[Array] = []
        self._right: list[Array] = []
        self._targets = 0

    def add(self, episode: Batch, found: list[Detections]) -> None:
        """Add one episode with the detections of its query images."""
        targets, matches = episode.targets, []
        for row, one in enumerate(found):
            mask = targets.mask[row]
            matches.append(match(one, targets.boxes[row][mask], targets.labels[row][mask]))
            self._scores.append(one.scores.numpy())
            self._right.append(matches[-1] >= 0)
        self._targets += int(targets.mask.sum())
        if len(self.episodes) < self._kept:
            self.episodes.append(SearchedEpisode(episode, found, matches))

    @property
    def threshold(self) -> ScoreThreshold | None:
        """The score threshold with the best F1 over all of them; None if no detection is right."""
        scores, right = (
            np.concatenate(parts or [np.empty(0)]) for parts in (self._scores, self._right)
        )
        return best_threshold(scores, right.astype(bool), self._targets)
