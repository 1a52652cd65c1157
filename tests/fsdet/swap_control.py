"""The swap control without its shortcut: batches in which the supports of an episode are swapped."""

from dataclasses import replace

from fsdet.structures import Batch


def swapped(batch: Batch) -> Batch:
    """The same episodes with every class given its neighbour's supports."""
    return replace(
        batch,
        supports=batch.supports.roll(1, dims=1),
        support_ids=batch.support_ids.roll(1, dims=1),
    )
