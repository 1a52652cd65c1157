from dataclasses import replace

import numpy as np
import pytest
import torch

from fsdet.config import DataConfig
from fsdet.data.episodes import EVAL_SEED, EpisodeSource
from fsdet.data.image_set import ImageSet
from fsdet.engine.support_draws import redrawn_supports

DATA = DataConfig(n_way=3, n_query=3, n_shot=2)


@pytest.fixture
def own_crops(train_set: ImageSet) -> ImageSet:
    """Scenes whose crops are said to be cut from the first images that show their class."""
    origins = np.full(train_set.support_images.shape, -1)
    for label in train_set.usable_classes:
        shown = train_set.images_of_class[label][: origins.shape[1]]
        origins[label, : len(shown)] = shown
    return replace(train_set, support_images=origins)


def test_no_draw_shows_a_crop_of_a_query_image(own_crops):
    source = EpisodeSource(own_crops, DATA, EVAL_SEED, augment=False)
    n_crops = own_crops.supports.shape[1]
    tempted = 0
    for index in range(40):
        episode = source.batch(index, 1)
        shown = {picture.permute(1, 2, 0).numpy().tobytes() for picture in episode.images}
        tempted += any(
            own_crops.image(i).tobytes() in shown
            for label in episode.classes[0]
            for i in own_crops.origins(int(label))
            if i >= 0
        )
        for draw in range(1, 4):
            for crop in redrawn_supports(own_crops, episode, index, draw).flatten().tolist():
                origin = own_crops.support_images[crop // n_crops, crop % n_crops]
                assert origin < 0 or own_crops.image(origin).tobytes() not in shown
    assert tempted > 10  # many an episode had such a crop within reach


def test_draws_are_fixed_and_differ(train_set):
    episode = EpisodeSource(train_set, DATA, EVAL_SEED, augment=False).batch(0, 1)
    draws = [redrawn_supports(train_set, episode, 0, draw) for draw in range(1, 9)]
    again = [redrawn_supports(train_set, episode, 0, draw) for draw in range(1, 9)]
    assert all(torch.equal(a, b) for a, b in zip(draws, again, strict=True))
    assert len({tuple(d.flatten().tolist()) for d in draws}) > 1
    for drawn in draws:
        assert drawn.shape == episode.support_ids.shape
        classes = drawn // train_set.supports.shape[1]
        assert torch.equal(classes, episode.classes[..., None].expand_as(classes))
        assert all(len(set(way)) == 2 for way in drawn[0].tolist())  # no crop twice
