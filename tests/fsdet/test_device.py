import pytest
import torch

from fsdet.config import TrainConfig
from fsdet.device import autocast_type, check_cuda, usable_device
from fsdet.errors import ConfigError


def test_a_device_that_does_not_exist_is_refused():
    with pytest.raises(ConfigError, match="device: 'cuda:99' cannot be used"):
        usable_device("cuda:99")
    with pytest.raises(ConfigError, match="device: 'gpu' cannot be used"):
        usable_device("gpu")
    with pytest.raises(
        ConfigError, match=r"'cuda:99' .*CUDA devices found.*set device: auto or cpu"
    ):
        check_cuda("cuda:99")
    assert usable_device("cpu") == "cpu"


@pytest.mark.parametrize(
    ("precision", "device", "expected"),
    [
        ("off", "cuda", None),
        ("bf16", "cpu", None),
        ("bf16", "cuda:1", torch.bfloat16),
        ("fp16", "cuda", torch.float16),
    ],
)
def test_mixed_precision_is_for_gpus(precision, device, expected):
    assert autocast_type(TrainConfig(mixed_precision=precision), device) == expected
