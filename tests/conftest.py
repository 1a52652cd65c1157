"""Checks the shapes in the annotations of `fsdet`; skips what needs a GPU where none is; begins with slow files."""

import pytest
import torch
from jaxtyping import install_import_hook

CHECKED = (
    "fsdet.structures",
    "fsdet.models",
    "fsdet.losses",
    "fsdet.evaluation",
)
"""Modules and packages whose tensors state their shapes."""

install_import_hook(CHECKED, "beartype.beartype")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a GPU: `make test-gpu` on a machine with one")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that no process is left alone with one of them at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
