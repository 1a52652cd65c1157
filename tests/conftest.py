"""Checks the shapes in the annotations of `fsdet` while the tests run; nothing checks them at any other time."""

from jaxtyping import install_import_hook

CHECKED = (
    "fsdet.structures",
    "fsdet.models",
    "fsdet.losses",
    "fsdet.evaluation",
)
"""Modules and packages whose tensors state their shapes."""

install_import_hook(CHECKED, "beartype.beartype")
