import pytest
import torch
from safetensors.torch import load_file, save_file

from kaleidoscene.encoders.features import IMAGENET_MEAN, IMAGENET_STD, DinoV2
from kaleidoscene.encoders.resized import ResizedDinoV2
from kaleidoscene.errors import KaleidosceneError


@pytest.fixture
def folder(tmp_path):
    """A tiny Dinov2Model of the real class, saved in its real format."""
    transformers = pytest.importorskip("transformers")
    config = transformers.Dinov2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=56, patch_size=14
    )
    transformers.Dinov2Model(config).save_pretrained(tmp_path / "dino")
    return tmp_path / "dino"


@pytest.mark.filterwarnings("ignore")
def test_one_feature_for_every_token(folder):
    encoder = DinoV2.from_pretrained(str(folder), token_pixels=16)
    images = torch.rand(2, 3, 3, 32, 48)
    features = encoder(images)
    assert features.shape == (2, 3, 2 * 3, 32)
    resized = torch.nn.functional.interpolate(images.flatten(0, 1), (28, 42), mode="bicubic", antialias=True).clamp(
        0, 1
    )
    normal = (resized - torch.tensor(IMAGENET_MEAN).view(3, 1, 1)) / torch.tensor(IMAGENET_STD).view(3, 1, 1)
    expected = encoder.model(normal).last_hidden_state[:, 1:]
    torch.testing.assert_close(features.flatten(0, 1), expected, rtol=0, atol=1e-5)
    assert not any(p.requires_grad for p in encoder.parameters())


@pytest.mark.filterwarnings("ignore")
def test_weights_that_are_not_its_own_are_refused(folder):
    """Otherwise the library fills what it does not find with random numbers."""
    path = folder / "model.safetensors"
    weights = load_file(path)
    whole = path.read_bytes()
    for tensors, said in (
        ({f"other.{name}": x for name, x in weights.items()}, "tensors of the network are not in its weights"),
        ({name: x for name, x in weights.items() if "layer.1." not in name}, r"such as 'encoder\.layer\.1\."),
        (weights | {"layernorm.weight": torch.ones(7)}, "damaged, or not of its config.json"),
    ):
        save_file(tensors, path, {"format": "pt"})
        with pytest.raises(KaleidosceneError, match=said):
            DinoV2.from_pretrained(str(folder), 16)
    path.write_bytes(whole[:-50])
    with pytest.raises(KaleidosceneError, match="damaged, or not of its config.json"):
        DinoV2.from_pretrained(str(folder), 16)
    path.write_bytes(whole)
    assert DinoV2.from_pretrained(str(folder), 16)


def test_a_missing_encoder_is_named(tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(KaleidosceneError, match="No DINOv2 at"):
        DinoV2.from_pretrained(str(tmp_path / "nothing"), 16)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("registers", [0, 3])
def test_patches_of_another_size_on_images_as_they_are(tmp_path, registers):
    """RnG's encoder: a kernel of 14 pixels brought to 8, positions to the grid; images are not enlarged."""
    transformers = pytest.importorskip("transformers")
    sizes = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=56, patch_size=14)
    if registers:
        config = transformers.Dinov2WithRegistersConfig(**sizes, num_register_tokens=registers)
        model = transformers.Dinov2WithRegistersModel(config)
    else:
        model = transformers.Dinov2Model(transformers.Dinov2Config(**sizes))
    model.save_pretrained(tmp_path / "dino")
    encoder = ResizedDinoV2.from_pretrained(str(tmp_path / "dino"), 8, 32)
    kernel = torch.nn.functional.interpolate(
        model.embeddings.patch_embeddings.projection.weight, (8, 8), mode="bilinear", align_corners=False
    )
    torch.testing.assert_close(encoder.model.embeddings.patch_embeddings.projection.weight, kernel)
    images = torch.rand(2, 3, 3, 16, 40)
    features = encoder(images)
    assert features.shape == (2, 3, 2 * 5, 32) and not features.requires_grad
    torch.testing.assert_close(encoder(images[1:, 2:]), features[1:, 2:], rtol=1e-4, atol=1e-5)
    assert not encoder(images.flip(-1)).allclose(features)  # places count
    with pytest.raises(KaleidosceneError, match="No DINOv2 at"):
        ResizedDinoV2.from_pretrained(str(tmp_path / "nothing"), 8, 32)
    with pytest.raises(KaleidosceneError, match="tokens of 32 channels, the network has 24"):
        ResizedDinoV2.from_pretrained(str(tmp_path / "dino"), 8, 24)
