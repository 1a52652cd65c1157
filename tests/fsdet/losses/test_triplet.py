import pytest
import torch
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.losses import TripletMarginLoss
from pytorch_metric_learning.miners import BatchHardMiner
from pytorch_metric_learning.reducers import MeanReducer

from fsdet.losses.triplet import triplet_loss


@pytest.mark.parametrize("margin", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_value_and_gradient_equal_pytorch_metric_learning(seed, margin):
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
