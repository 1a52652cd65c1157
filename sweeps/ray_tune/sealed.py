"""`Sealed`: what Ray Tune carries without looking into it.

Ray sends the config of a trial back with each of its results, and writes each result into messages of its log, shown or
not. A request or a report with some ninety settings makes up half of what the driver then does.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from ray import cloudpickle

T = TypeVar("T")


class Sealed(Generic[T]):
    """A value that is pickled once, is unpickled where it is used first, and has a short `repr`."""

    __slots__ = ("_data", "_value")

    def __init__(self, value: T) -> None:
        self._value: T | None = value
        self._data: bytes = cloudpickle.dumps(value)

    @property
    def value(self) -> T:
        """The value."""
        if self._value is None:
            self._value = cloudpickle.loads(self._data)
        return self._value

    def __deepcopy__(self, memo: object) -> Sealed[T]:
        """Itself: nothing changes it."""
        return self

    def __getstate__(self) -> bytes:
        return self._data

    def __setstate__(self, data: bytes) -> None:
        self._value, self._data = None, data
