"""Checks the shapes in the annotations of `fsdet` while the tests run; skips what needs a GPU where there is none."""

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
