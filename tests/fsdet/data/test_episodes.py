import re
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fsdet.config import DataConfig
from fsdet.data.episodes import BaseSource, EpisodeSource, with_few_shapes
from fsdet.data.image_set import ImageSet
from fsdet.errors import DataError
from fsdet.structures import Batch

CLASSES, IMAGES, VARIANTS = 7, 40, 6


def numbered(from_images: bool = True) -> ImageSet:
    """Image i is filled with i, support v of class c with 10 c + v; class 6 is in no image."""
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 5, IMAGES)
    corners = rng.integers(0, 30, (counts.sum(), 2))
    images_of_supports = rng.integers(0, IMAGES, (CLASSES, VARIANTS))
    values = 10 * np.arange(CLASSES)[:, None] + np.arange(VARIANTS)
    return ImageSet(
        images=np.broadcast_to(
            np.arange(IMAGES, dtype=np.uint8)[:, None, None, None], (IMAGES, 64, 64, 3)
        ),
        offsets=np.cumsum([0, *counts]),
        boxes=np.concatenate([corners, corners + rng.integers(4, 30, corners.shape)], 1).astype(
            "f4"
        ),
        labels=rng.integers(0, CLASSES - 1, counts.sum()),
        supports=np.broadcast_to(
            values.astype(np.uint8)[..., None, None, None], (CLASSES, VARIANTS, 8, 8, 3)
        ),
        support_images=images_of_supports if from_images else np.full((CLASSES, VARIANTS), -1),
    )


SET = numbered()


def source(n_way: int = 3, n_query: int = 2, seed: int = 0, augment: bool = True) -> EpisodeSource:
    return EpisodeSource(SET, DataConfig(n_way=n_way, n_query=n_query), seed, augment)


def images_of(batch: Batch) -> list[int]:
    return batch.images[:, 0, 0, 0].tolist()


def same(a: Batch, b: Batch) -> bool:
    pairs = (
        (a.images, b.images),
        (a.supports, b.supports),
        (a.classes, b.classes),
        (a.targets.boxes, b.targets.boxes),
        (a.targets.labels, b.targets.labels),
        (a.targets.mask, b.targets.mask),
    )
    return all(x.shape == y.shape and torch.equal(x, y) for x, y in pairs)


episodes = st.builds(
    lambda n_way, n_query, seed, index: source(n_way, n_query, seed).episode(index),
    st.integers(2, 5),
    st.integers(1, 4),
    st.integers(0, 2**31),
    st.integers(0, 2**31),
)


@settings(deadline=None)
@given(episodes)
def test_targets_are_the_objects_of_the_ways_and_nothing_else(episode):
    classes = episode.classes[0]
    for row, image in enumerate(images_of(episode)):
        boxes, names = SET.objects(image)
        kept = np.isin(names, classes.numpy())
        mask = episode.targets.mask[row]
        found = episode.targets.labels[row][mask]
        assert classes[found].tolist() == names[kept].tolist()
        extents = episode.targets.boxes[row][mask].numpy()
        np.testing.assert_allclose(
            extents[:, 2:] - extents[:, :2], boxes[kept][:, 2:] - boxes[kept][:, :2]
        )
        np.testing.assert_array_equal(extents[:, 1], boxes[kept][:, 1])
        assert not episode.targets.boxes[row][~mask].any()


@settings(deadline=None)
@given(episodes)
def test_the_queries_of_a_way_show_it_or_nothing_of_the_episode(episode):
    n_way = episode.classes.shape[1]
    n_query = len(episode.images) // n_way
    for row in range(len(episode.images)):
        shown = episode.targets.labels[row][episode.targets.mask[row]].tolist()
        assert not shown or row // n_query in shown


@settings(deadline=None)
@given(episodes)
def test_supports_are_of_their_way_and_not_from_a_query_image(episode):
    for way, label in enumerate(episode.classes[0].tolist()):
        values = episode.supports[0, way, :, 0, 0, 0].numpy()
        assert (values // 10 == label).all()
        assert not np.isin(SET.support_images[label][values % 10], images_of(episode)).any()


@settings(deadline=None)
@given(episodes)
def test_ways_are_different_classes_that_images_show(episode):
    classes = episode.classes[0].tolist()
    assert len(set(classes)) == len(classes)
    assert set(classes) <= set(SET.usable_classes.tolist())
    assert CLASSES - 1 not in classes


def tiny(images: int, origins: list[list[int]], shown: list[list[int]]) -> ImageSet:
    """`shown[i]` are the classes in image i; crop v of class c was cut from image `origins[c][v]`."""
    labels = [c for classes in shown for c in classes]
    crops = np.array(origins)
    values = 10 * np.arange(len(origins))[:, None] + np.arange(crops.shape[1])
    return ImageSet(
        images=np.broadcast_to(
            np.arange(images, dtype=np.uint8)[:, None, None, None], (images, 64, 64, 3)
        ),
        offsets=np.cumsum([0, *map(len, shown)]),
        boxes=np.tile(np.array([1, 2, 30, 40], np.float32), (len(labels), 1)),
        labels=np.array(labels),
        supports=np.broadcast_to(
            values.astype(np.uint8)[..., None, None, None], (*crops.shape, 8, 8, 3)
        ),
        support_images=crops,
        names=tuple(f"name {c}" for c in range(len(origins))),
    )


@st.composite
def tiny_sets(draw) -> ImageSet:
    """Sets as small as few-shot sets are: a few images of several classes, and crops from the same images."""
    images, classes, crops = (
        draw(st.integers(2, 6)),
        draw(st.integers(2, 4)),
        draw(st.integers(1, 3)),
    )
    shown = [
        sorted(draw(st.sets(st.integers(0, classes - 1), max_size=classes))) for _ in range(images)
    ]
    origins = []
    for label in range(classes):
        where = [i for i in range(images) if label in shown[i]] or [-1]
        origins.append(draw(st.lists(st.sampled_from(where), min_size=crops, max_size=crops)))
    return tiny(images, origins, shown)


@settings(deadline=None, max_examples=300)
@given(tiny_sets(), st.integers(1, 5), st.integers(0, 9))
def test_even_the_smallest_set_never_searches_an_image_with_its_own_crop(image_set, n_query, seed):
    """Or it is refused, which is right only if no draw would do."""
    if len(image_set.usable_classes) < 2:
        return
    dealer = EpisodeSource(image_set, DataConfig(n_way=2, n_query=n_query), seed, augment=False)
    pairs = list(combinations(image_set.usable_classes.tolist(), 2))
    for index in range(5):
        episode = episode_or_refusal(dealer, index)
        if isinstance(episode, str):
            assert re.search(r"name \d.*lower n_way", episode)
            assert not any(possible(image_set, pair) for pair in pairs)
            continue
        for way, label in enumerate(episode.classes[0].tolist()):
            crops = episode.supports[0, way, :, 0, 0, 0].numpy()
            assert (crops // 10 == label).all()
            origins = image_set.support_images[label][crops % 10]
            assert not np.isin(origins, images_of(episode)).any()


def episode_or_refusal(dealer: EpisodeSource, index: int) -> Batch | str:
    try:
        return dealer.episode(index)
    except DataError as refusal:
        return str(refusal)


def possible(image_set: ImageSet, pair: tuple[int, ...]) -> bool:
    """Whether some images kept back leave each class of the pair a crop and a query."""
    images = range(len(image_set))
    for size in range(3):
        for kept in combinations(images, size):
            crops = all(np.isin(image_set.origins(c), [-1, *kept]).any() for c in pair)
            queries = all(not np.isin(image_set.images_of_class[c], kept).all() for c in pair)
            if crops and queries:
                return True
    return False


def test_no_crop_repeats_while_another_is_left():
    image_set = tiny(4, [[0, 1, 2], [3, 3, 3]], [[0], [0], [0, 1], [1]])
    dealer = EpisodeSource(image_set, DataConfig(n_way=2, n_query=1, n_shot=5), 0, augment=False)
    for index in range(30):
        episode = dealer.episode(index)
        way = episode.classes[0].tolist().index(0)
        crops = episode.supports[0, way, :, 0, 0, 0].tolist()
        origins = image_set.support_images[0]
        free = {crop for crop in range(3) if origins[crop] not in images_of(episode)}
        assert set(crops) == free


def test_a_base_batch_shows_only_crops_that_are_there():
    image_set = replace(SET, support_counts=np.full(CLASSES, 2))
    for first in range(0, 80, 8):
        crops = BaseSource(image_set, seed=0).batch(first, 8).supports[0, :, 0, 0, 0, 0]
        assert (crops % 10 < 2).all()


def test_every_way_is_met_among_the_targets_of_most_episodes():
    dealt = [source(n_query=4).episode(index) for index in range(50)]
    full = [set(e.targets.labels[e.targets.mask].tolist()) == {0, 1, 2} for e in dealt]
    assert np.mean(full) > 0.95


def test_an_index_gives_the_same_episode_whatever_was_dealt_before():
    used = source()
    for index in range(5):
        used.episode(index)
    assert same(used.episode(3), source().episode(3))
    assert same(used.batch(7, 2), source().batch(7, 2))


def test_another_index_or_seed_gives_another_episode():
    first = source().episode(0)
    assert not any(same(first, source().episode(index)) for index in range(1, 30))
    assert not same(first, source(seed=1).episode(0))


def test_a_batch_is_its_episodes_one_after_the_other():
    dealer = source()
    batch, parts = dealer.batch(4, 3), [dealer.episode(index) for index in (4, 5, 6)]
    assert torch.equal(batch.images, torch.cat([part.images for part in parts]))
    assert torch.equal(batch.supports, torch.cat([part.supports for part in parts]))
    assert batch.targets.mask.sum() == sum(part.targets.mask.sum() for part in parts)
    assert batch.targets.mask.sum() == batch.targets.limit
    for row, mask in enumerate(batch.targets.mask):
        part, within = parts[row // 6], row % 6
        kept = part.targets.mask[within]
        assert torch.equal(batch.targets.boxes[row][mask], part.targets.boxes[within][kept])
        assert torch.equal(batch.targets.labels[row][mask], part.targets.labels[within][kept])


def test_few_shapes_have_a_power_of_two_of_objects_per_image_the_new_ones_empty():
    batches = [BaseSource(numbered(), 0).batch(first, 2) for first in range(0, 40, 2)]
    seen = {batch.targets.mask.shape[1] for batch in batches}
    found = [with_few_shapes(batch).targets for batch in batches]
    assert {targets.mask.shape[1] for targets in found} == {1 << (n - 1).bit_length() for n in seen}
    assert any(n & (n - 1) for n in seen)
    for batch, targets in zip(batches, found, strict=True):
        places = batch.targets.mask.shape[1]
        assert places <= targets.mask.shape[1] < 2 * places
        assert not targets.mask[:, places:].any()
        assert batch.targets.limit == batch.targets.mask.sum()
        assert targets.limit is None
        assert targets.boxes[:, :places].equal(batch.targets.boxes)
        assert targets.labels[:, :places].equal(batch.targets.labels)


def test_some_queries_show_none_of_the_classes():
    masks = [source().episode(index).targets.mask for index in range(50)]
    empty = torch.cat([~mask.any(dim=1) for mask in masks]).float().mean()
    assert 0.02 < empty < 0.2


def test_half_of_the_training_images_are_mirrored_and_no_other():
    def mirrored(augment: bool) -> float:
        changed = []
        for index in range(60):
            episode = source(augment=augment).episode(index)
            for row, image in enumerate(images_of(episode)):
                boxes, names = SET.objects(image)
                kept = boxes[np.isin(names, episode.classes[0].numpy())]
                if len(kept):
                    shown = episode.targets.boxes[row][episode.targets.mask[row]].numpy()
                    changed.append(not np.array_equal(shown, kept))
        return float(np.mean(changed))

    assert mirrored(augment=False) == 0
    assert 0.4 < mirrored(augment=True) < 0.6


def test_evaluation_has_queries_without_target_too():
    masks = [source(augment=False).episode(index).targets.mask for index in range(50)]
    shown = torch.cat([mask.any(dim=1) for mask in masks]).float().mean()
    assert 0.8 < shown < 1


def test_base_batches_pass_through_all_images_once_a_lap():
    dealer = BaseSource(SET, seed=0)
    laps = [
        [
            image
            for first in range(lap * IMAGES, (lap + 1) * IMAGES, 8)
            for image in images_of(dealer.batch(first, 8))
        ]
        for lap in range(2)
    ]
    assert [sorted(lap) for lap in laps] == [list(range(IMAGES))] * 2
    assert laps[0] != laps[1]


def test_a_base_batch_does_not_depend_on_those_before():
    used = BaseSource(SET, seed=0)
    for first in (0, 96, 32):
        used.batch(first, 32)
    assert same(used.batch(24, 32), BaseSource(SET, seed=0).batch(24, 32))


def test_a_base_batch_has_all_objects_and_crops_of_the_named_classes():
    batch = BaseSource(SET, seed=0).batch(0, 8)
    for row, image in enumerate(images_of(batch)):
        shown = batch.targets.labels[row][batch.targets.mask[row]]
        assert shown.tolist() == SET.objects(image)[1].tolist()
    assert sorted(batch.classes[0].tolist()) == SET.usable_classes.tolist()
    assert (batch.supports[0, :, 0, 0, 0, 0] // 10).tolist() == batch.classes[0].tolist()


@pytest.mark.parametrize("stage", [1, 2])
def test_pixels_that_stay_in_place_are_the_same(stage):
    def source(channels_last: bool) -> BaseSource | EpisodeSource:
        if stage == 1:
            return BaseSource(SET, 0, channels_last)
        config = DataConfig(n_way=3, n_query=2)
        return EpisodeSource(SET, config, 0, augment=True, channels_last=channels_last)

    plain, in_place = (source(last).batch(0, 2) for last in (False, True))
    assert same(plain, in_place)
    assert plain.images.is_contiguous()
    assert in_place.images.is_contiguous(memory_format=torch.channels_last)
    pinned = in_place.map(torch.clone)  # as pinning does, it keeps the order in memory
    assert pinned.images.is_contiguous(memory_format=torch.channels_last)
