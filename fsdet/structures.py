"""Targets, batches and detections as frozen dataclasses of tensors. Boxes are always xyxy in pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor


@dataclass(frozen=True)
class Targets:
    """Annotated objects of a batch, padded to the most that any image holds."""

    boxes: Float[Tensor, "images objects 4"]
    """Corners xyxy in pixels; zeros where there is no object."""
    labels: Int[Tensor, "images objects"]
    """Class index: the way within the episode (stages 2 and 3) or the base class (stage 1)."""
    mask: Bool[Tensor, "images objects"]
    """True where there is an object."""
    limit: int | None = None
    """Upper limit of the number of objects in all images, for shapes that follow from it; None: every place."""

    def map(self, change: Callable[[Tensor], Tensor]) -> Targets:
        """The same with `change` applied to every tensor."""
        return Targets(change(self.boxes), change(self.labels), change(self.mask), self.limit)

    def padded(self, objects: int) -> Targets:
        """The same with `objects` places per image, at least as many as there are; the new ones are empty."""
        extra = objects - self.mask.shape[1]
        return self.map(lambda x: torch.cat([x, x.new_zeros(len(x), extra, *x.shape[2:])], dim=1))


@dataclass(frozen=True)
class Batch:
    """Query images with targets, and the support crops they are searched with.

    In stages 2 and 3 a batch is several episodes, each of n_way * n_query consecutive images. In
    stage 1 it is one "episode" whose supports are crops of random base classes, unrelated to the images.
    """

    images: UInt8[Tensor, "images 3 side side"]
    targets: Targets
    supports: UInt8[Tensor, "episodes n_way n_shot 3 crop_side crop_side"]
    support_ids: Int[Tensor, "episodes n_way n_shot"]
    """Which crops of the image set these are: class * variants + variant."""
    classes: Int[Tensor, "episodes n_way"]
    """The dataset's class of each way."""
    image_ids: Int[Tensor, " images"]
    """Which images of the image set these are."""

    def to(self, device: str) -> Batch:
        """The same on `device`; copies from pinned memory do not block."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=True))

    def episodes(self) -> list[Batch]:
        """Each episode as a batch of its own."""
        count = len(self.supports)
        shown = len(self.images) // count
        return [
            self._episode(slice(n, n + 1), slice(n * shown, (n + 1) * shown)) for n in range(count)
        ]

    def _episode(self, own: slice, shown: slice) -> Batch:
        return Batch(
            self.images[shown],
            self.targets.map(lambda tensor: tensor[shown]),
            self.supports[own],
            self.support_ids[own],
            self.classes[own],
            self.image_ids[shown],
        )

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


@dataclass(frozen=True)
class Detections:
    """Detections in one image, best first."""

    boxes: Float[Tensor, "detections 4"]
    """Corners xyxy in pixels."""
    scores: Float[Tensor, " detections"]
    """In 0 … 1."""
    labels: Int[Tensor, " detections"]
    """Way within the episode."""
