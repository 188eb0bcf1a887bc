import pytest
import torch

from kaleidoscene.codecs.codec import CodecConfig
from kaleidoscene.codecs.pixel import PixelCodec
from kaleidoscene.codecs.registry import make_codec
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.randomness import seeded


@pytest.mark.parametrize("factor", [1, 2, 8])
def test_pixel_codec_is_exact_and_keeps_its_contract(factor):
    codec = make_codec(CodecConfig(factor=factor))
    images = torch.rand(2, 3, 3, 8, 16)
    latents = codec.encode(images)
    assert latents.shape == (2, 3, codec.channels, 8 // factor, 16 // factor)
    assert latents.min() >= -1 and latents.max() <= 1
    torch.testing.assert_close(codec.decode(latents), images, rtol=0, atol=1e-6)


def test_pixel_codec_clamps_and_refuses_sizes_that_do_not_fit():
    codec = PixelCodec(4)
    assert codec.decode(torch.full((1, 48, 2, 3), 7.0)).max() == 1
    with pytest.raises(KaleidosceneError, match="multiples of 4"):
        codec.encode(torch.rand(1, 3, 10, 8))


@pytest.fixture
def autoencoder(tmp_path):
    """A tiny AutoencoderKL of the real class, saved and loaded in its real format."""
    diffusers = pytest.importorskip("diffusers")
    model = diffusers.AutoencoderKL(
        block_out_channels=(8, 8, 16, 16), down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, latent_channels=16, norm_num_groups=4, sample_size=32,
        scaling_factor=1.5305, shift_factor=0.0609,
    )  # fmt: skip
    model.save_pretrained(tmp_path / "vae", safe_serialization=True)
    return model.eval(), tmp_path / "vae"


@pytest.mark.filterwarnings("ignore")  # the library's own
def test_kl_codec_applies_scale_and_shift_of_its_config(autoencoder):
    model, folder = autoencoder
    codec = make_codec(CodecConfig(kind="kl", source=str(folder)))
    assert (codec.factor, codec.channels) == (8, 16)
    images = torch.rand(2, 3, 3, 16, 24)
    latents = codec.encode(images)
    raw = model.encode(2 * images.flatten(0, 1) - 1).latent_dist.mode()
    torch.testing.assert_close(latents.flatten(0, 1), (raw - 0.0609) * 1.5305)
    assert latents.shape == (2, 3, 16, 2, 3)
    decoded = codec.decode(latents)
    torch.testing.assert_close(
        decoded.flatten(0, 1), (0.5 + 0.5 * model.decode(raw).sample).clamp(0, 1), rtol=0, atol=1e-5
    )
    sampled = codec.encode(images, [seeded(0), seeded(1)])
    assert (sampled - latents).abs().max() > 1e-3


@pytest.mark.filterwarnings("ignore")
def test_a_missing_autoencoder_is_named(tmp_path):
    pytest.importorskip("diffusers")
    with pytest.raises(KaleidosceneError, match="No autoencoder at"):
        make_codec(CodecConfig(kind="kl", source=str(tmp_path / "nothing")))
