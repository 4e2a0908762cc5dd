import keras
import numpy as np
import pytest

from keras_deit.layers.patch_embedding import PatchEmbedding
from tests.contracts import fill, hold_layer_to_contract


def test_four_patches_by_hand():
    layer = PatchEmbedding(embed_dim=1, patch_size=1)
    layer.build((None, 2, 2, 1))
    fill(layer, [[[[10.0]]]], [0.5])
    # Row by row: 1, 2, then 3, 4; each times 10, plus 0.5.
    tokens = layer(np.array([[[[1.0], [2.0]], [[3.0], [4.0]]]]))
    np.testing.assert_allclose(tokens[0, :, 0], [10.5, 20.5, 30.5, 40.5])


def test_equals_slicing_and_a_matrix_product():
    rng = np.random.default_rng(0)
    layer = PatchEmbedding(embed_dim=5, patch_size=4)
    pixels = rng.normal(size=(2, 8, 12, 3)).astype("float32")
    layer.build(pixels.shape)
    kernel, bias = rng.normal(size=(4, 4, 3, 5)), rng.normal(size=5)
    fill(layer, kernel, bias)
    patches = [
        pixels[:, row : row + 4, column : column + 4].reshape(2, -1)
        for row in (0, 4)
        for column in (0, 4, 8)
    ]  # 6 of (B, 4 * 4 * 3)
    expected = np.stack(patches, axis=1) @ kernel.reshape(-1, 5) + bias
    np.testing.assert_allclose(layer(pixels), expected, rtol=1e-4, atol=1e-4)


def test_one_patch_may_be_the_whole_image():
    layer = PatchEmbedding(embed_dim=5, patch_size=8)
    assert tuple(layer(np.ones((2, 8, 8, 3))).shape) == (2, 1, 5)


def test_starts_uniform_within_one_over_the_root_of_the_fan_in():
    keras.utils.set_random_seed(0)
    layer = PatchEmbedding(embed_dim=192, patch_size=16)
    layer.build((None, 32, 32, 3))
    limit = (3 * 16 * 16) ** -0.5  # 0.03608
    for weight in layer.get_weights():  # the bias, too
        assert 0.95 * limit < np.abs(weight).max() <= limit
        np.testing.assert_allclose(weight.std(), limit / 3**0.5, rtol=0.1)


def test_holds_the_contract():
    pixels = np.random.default_rng(0).normal(size=(2, 8, 12, 3)).astype("float32")
    hold_layer_to_contract(PatchEmbedding(embed_dim=5, patch_size=4), pixels)


@pytest.mark.parametrize("size", [(8, 9), (9, 8), (3, 8), (None, 8)])
def test_refuses_an_image_that_is_no_whole_number_of_patches(size):
    rule = "`image_size` must be a multiple of `patch_size`. "
    received = rf"Received: image_size=\({size[0]}, {size[1]}\), patch_size=4"
    with pytest.raises(ValueError, match=rule + received):
        PatchEmbedding(embed_dim=5, patch_size=4).build((None, *size, 3))
