"""Other supports for the same query images: how much of a result is the luck of the draw."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fsdet.data.episodes import EVAL_SEED
from fsdet.data.image_set import ImageSet
from fsdet.structures import Batch


def redrawn_supports(image_set: ImageSet, episode: Batch, index: int, draw: int) -> Tensor:
    """Numbers of other crops to search an episode with, none cut from one of its query images.

    Args:
        image_set: of the episode.
        episode: a single one, not augmented.
        index: its number; with `draw` it seeds the choice.
        draw: from 1; draw 0 is the episode's own.

    Returns:
        (1, n_way, n_shot) as `Batch.support_ids`; a class with fewer free crops repeats some.
    """
    rng = np.random.default_rng((EVAL_SEED, index, draw))
    shown = episode.image_ids.numpy()
    n_shot, n_crops = episode.support_ids.shape[2], image_set.supports.shape[1]
    chosen = []
    for label, own in zip(episode.classes[0].tolist(), episode.support_ids[0], strict=True):
        free = image_set.free_crops(label, shown)
        pool = label * n_crops + free if len(free) else own.numpy()
        chosen.append(np.resize(rng.permutation(pool), n_shot))
    return torch.from_numpy(np.stack(chosen))[None]
