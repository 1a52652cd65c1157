import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from fsdet.config import TrainConfig
from fsdet.errors import ConfigError
from fsdet.models.support_encoder import build_support_encoder, check_support_encoder


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("small_conv", 32),
        ("small_conv", 48),
        ("resnet10t", 48),
        ("vit_tiny_patch16_224", 64),
        ("vit_small_patch14_dinov2.lvd142m", 56),
        ("vit_small_patch16_dinov3.lvd1689m", 64),
    ],
)
def test_every_encoder_gives_embeddings_of_the_asked_width(name, size):
    torch.manual_seed(0)
    config = TrainConfig(
        support_encoder=name, support_pretrained=False, embed_dim=32, support_size=size
    )
    encoder = build_support_encoder(config)
    embeddings = encoder(torch.rand(3, 3, size, size))
    assert embeddings.shape == (3, 32)
    embeddings.square().sum().backward()
    silent = [
        n for n, p in encoder.named_parameters() if p.grad is None and n != "trunk.mask_token"
    ]
    assert silent == []


def test_the_encoder_tells_crops_apart():
    torch.manual_seed(0)
    encoder = build_support_encoder(TrainConfig(support_size=32)).eval()
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
    config = TrainConfig(support_encoder=name, support_pretrained=False, support_size=size)
    encoder = build_support_encoder(config).eval()
    assert encoder(torch.rand(2, 3, size, size)).shape == (2, config.embed_dim)


def test_weights_put_there_by_hand_are_loaded_at_any_size(tmp_path):
    name = "vit_small_patch14_dinov2.lvd142m"
    given = timm.create_model(name, img_size=70)
    (tmp_path / "weights").mkdir()
    save_file(given.state_dict(), tmp_path / "weights" / f"{name}.safetensors")
    config = TrainConfig(support_encoder=name, support_size=56, cache_dir=tmp_path)
    encoder = build_support_encoder(config)
    loaded = encoder.trunk.state_dict()
    same = [n for n, t in given.state_dict().items() if n in loaded and torch.equal(t, loaded[n])]
    assert set(loaded) - set(same) == {"pos_embed"}  # resampled to the other size


class Touches:
    """Is unpickled by calling `path.touch()`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_weights_put_there_by_hand_that_would_run_code_run_none(tmp_path):
    (tmp_path / "weights").mkdir()
    torch.save(Touches(tmp_path / "marker"), tmp_path / "weights" / "resnet10t.safetensors")
    config = TrainConfig(support_encoder="resnet10t", support_size=64, cache_dir=tmp_path)
    with pytest.raises(ConfigError, match=r"resnet10t\.safetensors: .*copy the file again"):
        build_support_encoder(config)
    assert not (tmp_path / "marker").exists()


@contextmanager
def broken_hub() -> Iterator[tuple[str, list[str]]]:
    """A hub that hangs up on everyone: its address, and the first line of every request."""
    asked: list[str] = []

    class HangUp(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            asked.append(self.rfile.readline().decode())

    with socketserver.TCPServer(("127.0.0.1", 0), HangUp) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()


def test_without_hub_and_file_the_message_names_the_file_and_the_alternative(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    name = "vit_small_patch14_dinov2.lvd142m"
    config = TrainConfig(support_encoder=name, support_size=56, cache_dir=tmp_path)
    with broken_hub() as (address, asked):
        template = (
            f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"  # made of it at import
        )
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        with pytest.raises(ConfigError) as caught:
            build_support_encoder(config)
    # the hub's own client would try again for a minute; once in a process it also asks for something else
    assert len([line for line in asked if "/resolve/" in line]) == 1, asked
    message = str(caught.value)
    assert str(tmp_path / "weights" / "vit_small_patch14_dinov2.lvd142m.safetensors") in message
    assert "timm/vit_small_patch14_dinov2.lvd142m" in message
    assert "support_encoder: small_conv" in message


def test_a_model_is_shown_colours_as_it_was_trained_with():
    config = TrainConfig(
        support_encoder="vit_tiny_patch16_224", support_pretrained=False, support_size=32
    )
    encoder = build_support_encoder(config)
    assert encoder.mean.flatten().tolist() == [0.5, 0.5, 0.5]
