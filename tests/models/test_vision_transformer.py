import numpy as np
import pytest

from keras_deit.models.encoder import EncoderConfig
from keras_deit.models.factory import build_model
from keras_deit.models.preprocessing import IMAGENET, WHOLE_IMAGE
from keras_deit.models.vision_transformer import ViTConfig, vision_transformer


def tiny_model(encoder=None, **changes):
    encoder = EncoderConfig(8, num_heads=2, num_classes=3, **(encoder or {}))
    fields = {"image_size": (8, 12), "patch_size": 4, **changes}
    return vision_transformer(ViTConfig(encoder, **fields), name="tiny")


def some_images(height=8, width=12):
    rng = np.random.default_rng(0)
    return rng.uniform(0, 255, (2, height, width, 3)).astype("float32")


@pytest.mark.parametrize("distilled", [False, True])
def test_the_stations_from_the_image_to_the_logits_compose(distilled):
    model = tiny_model({"depth": 2, "distilled": distilled, "reorganize_at": ()})
    x = (some_images() / 255 - IMAGENET.mean) / IMAGENET.std
    for name in ("patch_embedding", "prefix_tokens", "position_embedding"):
        x = model.get_layer(name)(x)
    assert tuple(x.shape) == (2, (2 if distilled else 1) + 2 * 3, 8)
    for name in ("block_0", "block_1", "norm"):
        x = model.get_layer(name)(x)
    outputs = model(some_images())
    assert isinstance(outputs, dict) == distilled
    outputs = outputs if distilled else {"class": outputs}
    for index, head in enumerate(outputs):
        expected = model.get_layer(f"{head}_head")(x[:, index])
        np.testing.assert_allclose(outputs[head], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("distilled", "num_weights"), [(False, 152), (True, 155)])
def test_has_as_many_weights_as_the_checkpoints(distilled, num_weights):
    assert len(tiny_model({"distilled": distilled}).weights) == num_weights


@pytest.mark.parametrize("fuse", [True, False])
def test_reorganizes_its_patches(fuse):
    # ceil(0.5 * 6) = 3 of the 2 x 3 patches stay, and perhaps the fused token.
    encoder = {"depth": 2, "keep_rate": 0.5, "reorganize_at": (1,), "fuse": fuse}
    model = tiny_model(encoder)
    assert model.get_layer("block_0").output.shape == (None, 1 + 6, 8)
    tokens, kept = model.get_layer("block_1").output
    assert tokens.shape == (None, 1 + 3 + fuse, 8)
    assert kept.shape == (None, 3)
    assert tuple(model(some_images()).shape) == (2, 3)


def test_defaults_are_the_published_ones():
    config = ViTConfig(EncoderConfig(embed_dim=192, num_heads=3))
    assert (config.patch_size, config.image_size) == (16, (224, 224))
    assert (config.preprocessing, config.dtype) == (IMAGENET, None)


def test_is_called_what_it_is_told_to():
    assert tiny_model({"depth": 0}).name == "tiny"


def test_takes_integer_pixels_as_the_same_floats():
    model = build_model("deit_micro_patch4_32", num_classes=3, depth=1)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype="uint8")
    np.testing.assert_array_equal(model(pixels), model(pixels.astype("float32")))


def test_looks_at_the_pixels_as_its_config_says():
    model = tiny_model({"depth": 0}, preprocessing=WHOLE_IMAGE)
    layer = model.get_layer("pixel_normalization")
    assert (layer.mean, layer.std, layer.crop_ratio) == ((0.5,) * 3, (0.5,) * 3, 1.0)


def test_half_precision_reaches_every_layer_but_the_heads():
    model = tiny_model({"depth": 1, "distilled": True}, dtype="mixed_bfloat16")
    assert {x.dtype.name for x in model(some_images()).values()} == {"float32"}
    for name in ("pixel_normalization", "patch_embedding", "prefix_tokens", "block_0"):
        assert model.get_layer(name).compute_dtype == "bfloat16"


def test_refuses_an_image_that_is_no_whole_number_of_patches():
    rule = "`image_size` must be a multiple of `patch_size`. "
    received = r"Received: image_size=\(8, 10\), patch_size=4"
    with pytest.raises(ValueError, match=rule + received):
        tiny_model(image_size=(8, 10))
