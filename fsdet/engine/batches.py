"""The batches of a run in order; on a GPU the next one is made while the device works."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import torch

from fsdet.data.episodes import BaseSource, EpisodeSource
from fsdet.structures import Batch

Request = tuple[int, int]
"""First episode or image, and how many."""


class Batches:
    """Deals out batches of `source` on `device`.

    Args:
        source: a batch is a function of its request alone, so making it early changes nothing.
        device: on a CPU every batch is made when it is asked for: a second thread would take the core away.
    """

    def __init__(self, source: EpisodeSource | BaseSource, device: str) -> None:
        self.source, self._device = source, device
        self._pool = ThreadPoolExecutor(1, "batches") if device.startswith("cuda") else None
        self._ahead: dict[Request, Future[Batch]] = {}

    def take(self, wanted: Request, then: Request | None) -> Batch:
        """The batch `wanted`; `then` will probably be asked for next."""
        if self._pool is None:
            return self.source.batch(*wanted)
        future = self._ahead.pop(wanted, None) or self._pool.submit(self._pinned, *wanted)
        self._ahead = {} if then is None else {then: self._pool.submit(self._pinned, *then)}
        return future.result().to(self._device)

    def _pinned(self, first: int, count: int) -> Batch:
        return self.source.batch(first, count).map(torch.Tensor.pin_memory)
