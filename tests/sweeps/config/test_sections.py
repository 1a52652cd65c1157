"""The sections of a sweep's YAML, each by itself."""

from __future__ import annotations

import pytest
from conftest import small_spec

from sweeps.config import Resources


@pytest.mark.parametrize("path", ["s3://key:secret@bucket/x", "https://host/x?token=secret"])
def test_storage_takes_no_secret(path):
    with pytest.raises(ValueError, match="must hold no password"):
        small_spec(storage={"path": path})


def test_gpus_are_a_number_or_auto():
    for wrong in ("all", -1, None, True):
        with pytest.raises(ValueError, match="must be auto or a number of at least 0"):
            Resources.model_validate({"gpus": wrong})
    assert Resources.model_validate({"gpus": 0.5}).gpu_share == 0.5
