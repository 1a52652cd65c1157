import inspect

import pytest
import swap_control
import torch

from fsdet.config import MODULES, LossConfig, TrainConfig
from fsdet.data.episodes import EpisodeSource
from fsdet.losses.criterion import Criterion
from fsdet.models.detector import Detector, build_detector
from fsdet.structures import Batch


@pytest.fixture(scope="module")
def detector() -> Detector:
    """In evaluation mode, with all attention and similarity large enough to be seen."""
    built = build_detector(TrainConfig(support_size=32))
    with torch.no_grad():
        for block in built.scs_fusion.blocks:
            block.gain.fill_(1)
    return built.eval()


def inputs(size: int = 64, n_way: int = 3, per_episode: int = 2, n_episodes: int = 2):
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)

    return noise(n_episodes * per_episode, 3, size, size), noise(n_episodes, n_way, 2, 3, 32, 32)


@pytest.mark.parametrize("size", [64, 96, 160])
@torch.no_grad()
def test_shapes_follow_the_image_size(detector, size):
    output = detector(*inputs(size))
    points = sum((size // stride) ** 2 for stride in (4, 8, 16, 32))
    assert output.logits.shape == (4, points, 3)
    assert output.head.box_logits.shape == (4, points, 4, 16)
    assert output.head.points.shape == (points, 2)
    assert output.supports.shape == (2, 3, 2, 64)
    assert output.head.boxes().shape == (4, points, 4)
    assert (output.head.points > 0).all()
    assert (output.head.points < size).all()
    assert output.head.points.unique(dim=0).shape[0] >= (size // 4) ** 2


@torch.no_grad()
def test_permuting_the_classes_permutes_the_logits(detector):
    images, supports = inputs()
    order = [2, 0, 1]
    plain, permuted = detector(images, supports), detector(images, supports[:, order])
    torch.testing.assert_close(permuted.logits, plain.logits[..., order], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        permuted.head.box_logits, plain.head.box_logits, rtol=1e-4, atol=1e-5
    )


@torch.no_grad()
def test_the_order_of_the_shots_does_not_matter(detector):
    images, supports = inputs()
    plain, turned = detector(images, supports), detector(images, supports.flip(2))
    torch.testing.assert_close(turned.logits, plain.logits, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_other_supports_give_another_output(detector):
    images, supports = inputs()
    plain = detector(images, supports)
    other = detector(images, supports.roll(1, dims=1))
    assert not torch.allclose(plain.logits, other.logits, atol=1e-4)
    foreign = detector(images, 255 - supports)
    assert not torch.allclose(plain.head.embeddings, foreign.head.embeddings, atol=1e-6)


@torch.no_grad()
def test_an_episode_does_not_see_its_neighbours(detector):
    images, supports = inputs()
    together, alone = detector(images, supports), detector(images[2:], supports[1:])
    torch.testing.assert_close(together.logits[2:], alone.logits, rtol=1e-4, atol=1e-5)


def test_the_forward_pass_is_given_no_truth(detector):
    assert list(inspect.signature(Detector.forward).parameters) == ["self", "images", "supports"]
    assert list(inspect.signature(Detector.encode).parameters) == ["self", "images"]
    assert list(inspect.signature(Detector.search).parameters) == ["self", "images", "supports"]
    assert list(inspect.signature(Detector.find_objects).parameters) == ["self", "images"]


def test_every_tensor_of_stage_2_learns(train_set):
    config = TrainConfig(support_size=32, n_way=3, n_query=2)
    detector = build_detector(config)
    criterion = Criterion(LossConfig(), 2, 64, train_set.n_classes)
    source = EpisodeSource(train_set, config, 0, augment=True)
    learned: set[str] = set()
    for index in range(2):
        batch = source.batch(index, 1)
        detector.zero_grad()
        criterion.episode(detector(batch.images, batch.supports), batch).total.backward()
        learned |= {
            n for n, p in detector.named_parameters() if p.grad is not None and p.grad.any()
        }
    trainable = {name for name, p in detector.named_parameters() if p.requires_grad}
    assert trainable - learned == set()
    assert {name.split(".")[0] for name in trainable} == set(MODULES)


def test_every_parameter_belongs_to_one_module(detector):
    grouped = [p for tensors in detector.parameters_by_module().values() for p in tensors]
    assert len(grouped) == len({id(p) for p in grouped}) == len(list(detector.parameters()))


def test_the_seed_decides_the_weights():
    one, again, other = (build_detector(TrainConfig(seed=seed)).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_swapped_batches_change_the_predictions(detector, train_set):
    source = EpisodeSource(train_set, TrainConfig(support_size=32), 0, augment=False)
    batch: Batch = source.batch(0, 1)
    with torch.no_grad():
        plain = detector(batch.images, batch.supports).logits
        swapped = detector(batch.images, swap_control.swapped(batch).supports).logits
    torch.testing.assert_close(swapped, plain.flip(-1), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(swapped, plain, atol=1e-4)
