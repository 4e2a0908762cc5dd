import keras
import numpy as np
import pytest

from keras_deit.layers.pixel_normalization import PixelNormalization
from tests.contracts import hold_layer_to_contract


def test_one_pixel_by_hand():
    layer = PixelNormalization(mean=[0.0, 0.5, 0.5], std=[1.0, 0.5, 0.25])
    # 255, 0 and 127.5 are 1, 0 and 0.5: (1 - 0) / 1, (0 - 0.5) / 0.5, 0 / 0.25.
    output = layer(np.array([[[[255.0, 0.0, 127.5]]]]))
    np.testing.assert_allclose(output[0, 0, 0], [1.0, -1.0, 0.0], atol=1e-7)


def test_pixels_of_unknown_size_are_the_same():
    layer = PixelNormalization(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 4, 6, 3)).astype("float32")
    unknown = keras.Input((None, None, 3))
    model = keras.Model(unknown, layer(unknown))
    expected = (pixels / np.float32(255) - np.float32(layer.mean)) / np.float32(
        layer.std
    )
    np.testing.assert_array_equal(layer(pixels), expected)
    np.testing.assert_array_equal(model(pixels), expected)
    np.testing.assert_array_equal(layer(pixels[:, :3, :5]), expected[:, :3, :5])


@pytest.mark.parametrize("shape", [(1, 2, 3, 1), (1, 3, 3), (3, 3)])
def test_refuses_other_channels(shape):
    layer = PixelNormalization(mean=[0.5] * 3, std=[0.5] * 3)
    with pytest.raises(ValueError, match="incompatible with the layer"):
        layer(np.ones(shape))


def test_takes_integers_as_the_same_floats():
    layer = PixelNormalization(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
    pixels = np.random.default_rng(0).integers(0, 256, size=(2, 4, 4, 3))
    expected = layer(pixels.astype("float32"))
    np.testing.assert_array_equal(layer(pixels.astype("uint8")), expected)
    np.testing.assert_array_equal(layer(pixels.astype("int32")), expected)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "bfloat16", "mixed_float16"])
def test_computes_in_float32_under_half_precision(policy):
    layer = PixelNormalization(mean=[200 / 255], std=[1 / 255], dtype=policy)
    # bfloat16 knows no number between 200 and 201, but the difference is computed
    # before it is rounded.
    output = layer(np.array([[[[200.25]], [[200.75]]]], "float32"))
    assert keras.backend.standardize_dtype(output.dtype) == policy.split("_")[-1]
    output = keras.ops.cast(output, "float32")
    np.testing.assert_allclose(output[0, :, 0, 0], [0.25, 0.75], rtol=1e-2)


def test_crop_ratio_changes_no_pixel():
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 2, 2, 1)).astype("float32")
    whole, cropped = (PixelNormalization([0.5], [0.5], ratio) for ratio in (1.0, 0.5))
    np.testing.assert_array_equal(cropped(pixels), whole(pixels))


def test_has_no_weights():
    layer = PixelNormalization(mean=[0.5], std=[0.5])
    layer(np.ones((1, 2, 2, 1)))
    assert layer.weights == []


def test_holds_the_contract():
    layer = PixelNormalization((0.485, 0.456, 0.406), [0.229, 0.224, 0.225], 0.875)
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 4, 6, 3)).astype("float32")
    hold_layer_to_contract(layer, pixels)


@pytest.mark.parametrize(
    ("mean", "std"), [([0.5], [0.5, 0.5]), ([0.5], [0.0]), ([0.5, 0.5], [0.5, -1.0])]
)
def test_refuses_a_mean_and_std_that_do_not_fit(mean, std):
    with pytest.raises(ValueError) as refusal:
        PixelNormalization(mean=mean, std=std)
    assert str(refusal.value) == (
        "`mean` and `std` must have one entry for each channel, `std` positive. "
        f"Received: mean={mean}, std={std}."
    )


@pytest.mark.parametrize("crop_ratio", [0.0, -0.5, 1.1])
def test_refuses_a_crop_ratio_that_leaves_nothing_or_more_than_all(crop_ratio):
    rule = r"`crop_ratio` must be in \(0, 1\]. "
    with pytest.raises(ValueError, match=f"{rule}Received: crop_ratio={crop_ratio}"):
        PixelNormalization([0.5], [0.5], crop_ratio)
