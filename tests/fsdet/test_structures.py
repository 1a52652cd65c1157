import subprocess
import sys

import pytest
import torch
from jaxtyping import TypeCheckError

from fsdet.structures import Batch, Detections, Targets


def targets(images: int, objects: int = 2) -> Targets:
    shape = (images, objects)
    mask = torch.ones(shape, dtype=torch.bool)
    return Targets(torch.rand(*shape, 4), torch.zeros(shape, dtype=torch.int64), mask)


def batch(n_way: int) -> Batch:
    """One image of one episode, whose supports are as bright as their class is high."""
    supports = torch.arange(n_way, dtype=torch.uint8).view(1, n_way, 1, 1, 1, 1)
    return Batch(
        images=torch.zeros(1, 3, 8, 8, dtype=torch.uint8),
        targets=targets(1),
        supports=supports.expand(1, n_way, 2, 3, 4, 4),
        support_ids=torch.arange(2 * n_way).view(1, n_way, 2),
        classes=torch.arange(n_way)[None],
        image_ids=torch.zeros(1, dtype=torch.int64),
    )


def test_map_leaves_the_ids_on_the_host():
    one = batch(2)
    moved = one.map(torch.clone)
    assert moved.support_ids is one.support_ids
    assert moved.image_ids is one.image_ids
    assert moved.targets.boxes is not one.targets.boxes
    assert torch.equal(moved.targets.boxes, one.targets.boxes)


def test_the_tests_check_the_shapes_in_annotations():
    with pytest.raises(TypeCheckError, match="boxes"):
        Targets(torch.zeros(2, 3, 5), torch.zeros(2, 3).long(), torch.ones(2, 3).bool())
    with pytest.raises(TypeCheckError, match="scores"):
        Detections(torch.zeros(2, 4), torch.zeros(3), torch.zeros(2).long())


def test_nothing_else_checks_them():
    code = "import sys, fsdet.training.trainer; sys.exit('beartype' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
