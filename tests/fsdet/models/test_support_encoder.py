import pytest
import torch

from fsdet.config import ModelConfig
from fsdet.errors import ConfigError
from fsdet.models.support_encoder import build_support_encoder, check_support_encoder


@pytest.mark.parametrize(
    ("name", "size"),
    [("small_conv", 32), ("small_conv", 48), ("resnet10t", 48), ("vit_tiny_patch16_224", 64)],
)
def test_every_encoder_gives_embeddings_of_the_asked_width(name, size):
    torch.manual_seed(0)
    config = ModelConfig(support_encoder=name, support_pretrained=False, embed_dim=32)
    encoder = build_support_encoder(config, size)
    embeddings = encoder(torch.rand(3, 3, size, size))
    assert embeddings.shape == (3, 32)
    embeddings.square().sum().backward()
    silent = [n for n, p in encoder.named_parameters() if p.grad is None]
    assert silent == []


def test_the_encoder_tells_crops_apart():
    torch.manual_seed(0)
    encoder = build_support_encoder(ModelConfig(), 32).eval()
    black, white = encoder(torch.zeros(1, 3, 32, 32)), encoder(torch.ones(1, 3, 32, 32))
    assert not torch.allclose(black, white, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "close"),
    [
        ("small_cnov", "small_conv"),
        ("resnet10tt", "resnet10t"),
        ("vit_smal_patch14_dinov2.lvd142m", "vit_small_patch14_dinov2"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name, close):
    with pytest.raises(ConfigError, match=f"support_encoder: '{name}' .*did you mean '{close}'"):
        check_support_encoder(name)


def test_a_name_like_no_other_is_answered_with_where_to_look():
    with pytest.raises(ConfigError, match=r"timm\.list_models"):
        check_support_encoder("§§§§§§§§§§§§")


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "swin_tiny_patch4_window7_224"])
def test_models_of_other_families_fit(name):
    size = 64 if name.startswith("mobile") else 224
    config = ModelConfig(support_encoder=name, support_pretrained=False)
    encoder = build_support_encoder(config, size).eval()
    assert encoder(torch.rand(2, 3, size, size)).shape == (2, config.embed_dim)
