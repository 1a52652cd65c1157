"""The nouns of the detector as frozen dataclasses of tensors. Boxes are always xyxy in pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor


@dataclass(frozen=True)
class Targets:
    """Annotated objects of a batch, padded to the most that any image holds."""

    boxes: Tensor
    """(B, M, 4) xyxy in pixels; zeros where there is no object."""
    labels: Tensor
    """(B, M) class index: the way within the episode (stage 2) or the base class (stage 1)."""
    mask: Tensor
    """(B, M) bool, True where there is an object."""

    def map(self, change: Callable[[Tensor], Tensor]) -> Targets:
        """The same with `change` applied to every tensor."""
        return Targets(change(self.boxes), change(self.labels), change(self.mask))


@dataclass(frozen=True)
class Batch:
    """Query images with targets, and the support crops they are searched with.

    In stage 2 a batch is E episodes and B = E * n_way * n_query; the images of an episode are
    neighbours. In stage 1 E = 1 and the supports are crops of random base classes, unrelated to
    the images.
    """

    images: Tensor
    """(B, 3, S, S) uint8."""
    targets: Targets
    supports: Tensor
    """(E, n_way, n_shot, 3, s, s) uint8."""
    support_ids: Tensor
    """(E, n_way, n_shot) which crops of the image set these are: class * V + variant."""
    classes: Tensor
    """(E, n_way) the dataset's class of each way."""
    image_ids: Tensor
    """(B,) which images of the image set these are."""

    def to(self, device: str) -> Batch:
        """The same on `device`; copies from pinned memory do not block."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=True))

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """The same with `change` applied to every tensor but the ids, which are looked up on the host."""
        return Batch(
            change(self.images),
            self.targets.map(change),
            change(self.supports),
            self.support_ids,
            change(self.classes),
            self.image_ids,
        )

    def swapped(self) -> Batch:
        """The same episodes with every class given its neighbour's supports (the swap control)."""
        return replace(
            self,
            supports=self.supports.roll(1, dims=1),
            support_ids=self.support_ids.roll(1, dims=1),
        )


@dataclass(frozen=True)
class Detections:
    """What was found in one image, best first."""

    boxes: Tensor
    """(N, 4) xyxy in pixels."""
    scores: Tensor
    """(N,) in 0 … 1."""
    labels: Tensor
    """(N,) way within the episode."""
