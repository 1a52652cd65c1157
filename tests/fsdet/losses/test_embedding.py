import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.losses import SupConLoss, TripletMarginLoss
from pytorch_metric_learning.miners import BatchHardMiner
from pytorch_metric_learning.reducers import MeanReducer

from fsdet.losses.embedding import supcon_loss, triplet_loss


@pytest.mark.parametrize("temperature", [0.07, 0.1, 1.0])
@pytest.mark.parametrize(
    "labels",
    [
        [0, 0, 1, 1, 2, 2, 2, 2],
        [0, 0, 1, 2, 3, 4, 5, 6],  # six anchors have no partner
    ],
)
def test_supcon_and_its_gradient_equal_pytorch_metric_learning(labels, temperature):
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(8, 6, generator=generator, requires_grad=True)
    loss = supcon_loss(embeddings, torch.tensor(labels), temperature)
    reference = SupConLoss(temperature=temperature)(embeddings, torch.tensor(labels))
    torch.testing.assert_close(loss, reference, rtol=1e-4, atol=1e-5)
    ours, theirs = (torch.autograd.grad(x, embeddings)[0] for x in (loss, reference))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("labels", [[], [3], [0, 1, 2]])
def test_without_partners_exactly_zero_and_still_differentiable(labels):
    embeddings = torch.randn(len(labels), 4, requires_grad=True)
    loss = supcon_loss(embeddings, torch.tensor(labels, dtype=torch.long), 0.1)
    with torch.autograd.set_detect_anomaly(True):
        loss.backward()
    assert loss == 0
    assert embeddings.grad.equal(torch.zeros(len(labels), 4))


@given(
    labels=st.lists(st.integers(0, 3), max_size=12),
    scale=st.sampled_from([0.0, 1e-6, 1.0, 1e6]),
    seed=st.integers(0, 5),
)
def test_finite_and_never_negative(labels, scale, seed):
    noise = torch.randn(len(labels), 4, generator=torch.Generator().manual_seed(seed))
    embeddings = (scale * noise).requires_grad_()
    loss = supcon_loss(embeddings, torch.tensor(labels, dtype=torch.long), 0.1)
    loss.backward()
    assert loss.isfinite()
    assert loss >= 0 or loss.item() == pytest.approx(0, abs=1e-5)
    assert embeddings.grad.isfinite().all()


def test_of_one_label_alone_the_formula_of_the_paper_stays():
    # the reference gives up without a negative; the paper's sum runs over all other anchors
    loss = supcon_loss(torch.ones(5, 3), torch.zeros(5, dtype=torch.long), 0.1)
    assert loss.item() == pytest.approx(math.log(4))


def test_the_length_of_an_embedding_does_not_count():
    embeddings, labels = torch.randn(6, 4), torch.tensor([0, 0, 1, 1, 2, 2])
    lengths = torch.linspace(0.1, 10, 6)[:, None]
    torch.testing.assert_close(
        supcon_loss(embeddings, labels, 0.1), supcon_loss(lengths * embeddings, labels, 0.1)
    )


def test_single_precision_under_autocast():
    embeddings, labels = torch.randn(6, 4), torch.tensor([0, 0, 1, 1, 2, 2])
    expected = supcon_loss(embeddings, labels, 0.1)
    with torch.autocast("cpu", torch.bfloat16):
        loss = supcon_loss(embeddings, labels, 0.1)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("margin", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_triplet_and_its_gradient_equal_pytorch_metric_learning(seed, margin):
    torch.manual_seed(seed)
    ours = torch.randn(30, 8, requires_grad=True)
    theirs = ours.detach().clone().requires_grad_()
    labels = torch.randint(0, 4, (30,))
    reference = TripletMarginLoss(margin, distance=CosineSimilarity(), reducer=MeanReducer())
    triplets = BatchHardMiner(distance=CosineSimilarity())(theirs, labels)
    expected = reference(theirs, labels, triplets)
    loss = triplet_loss(ours, labels, margin)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)


def test_the_labels_say_who_is_anchor_positive_and_negative():
    """Two classes on the axes: by the right labels the margin holds, by exchanged ones it is broken."""
    points = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
    assert triplet_loss(points, torch.tensor([0, 0, 1, 1]), 0.3) == 0
    assert triplet_loss(points, torch.tensor([0, 1, 0, 1]), 0.3) > 1


@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2], [0]])
def test_without_a_triplet_it_is_zero_and_part_of_the_graph(labels):
    embeddings = torch.randn(len(labels), 4, requires_grad=True)
    loss = triplet_loss(embeddings, torch.tensor(labels), 0.3)
    assert loss == 0
    loss.backward()
    assert embeddings.grad is not None
    assert not embeddings.grad.any()


def test_a_class_of_one_is_a_negative_but_no_anchor():
    points = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    assert triplet_loss(points, torch.tensor([0, 0, 1]), 0.3) == pytest.approx(0.3)


LOSSES = {"supcon": lambda *given: supcon_loss(*given[:2], 0.1, *given[2:]),
          "triplet": lambda *given: triplet_loss(*given[:2], 0.3, *given[2:])}  # fmt: skip


@pytest.mark.parametrize("name", LOSSES)
@given(
    labels=st.lists(st.integers(0, 3), min_size=1, max_size=12),
    kept=st.integers(0, 2**12 - 1),
    seed=st.integers(0, 5),
)
def test_what_does_not_count_might_as_well_not_be_there(name, labels, kept, seed):
    embeddings = torch.randn(len(labels), 4, generator=torch.Generator().manual_seed(seed))
    embeddings.requires_grad_()
    labels = torch.tensor(labels)
    counts = torch.tensor([bool(kept >> i & 1) for i in range(len(labels))])
    counts[0] = True
    loss = LOSSES[name](embeddings, labels, counts)
    expected = LOSSES[name](embeddings[counts], labels[counts])
    torch.testing.assert_close(loss, expected)
    with torch.autograd.set_detect_anomaly(True):
        ours, theirs = (torch.autograd.grad(x, embeddings)[0] for x in (loss, expected))
    torch.testing.assert_close(ours, theirs)
    assert not ours[~counts].any()
