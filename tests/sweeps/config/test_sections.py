"""The sections of a sweep's YAML, each by itself."""

from __future__ import annotations

import pytest
from conftest import small_spec
from pydantic import ValidationError

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


@pytest.mark.parametrize("gpus", [0, 1, 2])
def test_mps_is_for_trials_that_share_a_card(gpus):
    with pytest.raises(ValidationError, match=f"mps is for trials .* but gpus is {gpus}; set gpus"):
        Resources(gpus=gpus, mps=True)
    assert Resources(gpus=0.25, mps=True).mps
    assert Resources(gpus="auto", mps=True).mps
