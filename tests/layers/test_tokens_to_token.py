import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_deit.layers.tokens_to_token import TokensToToken, tokens_to_grid
from tests.contracts import hold_layer_to_contract

SIZE = (32, 48)


def random_pixels(size=SIZE, batch=2):
    return np.random.default_rng(0).normal(size=(batch, *size, 3)).astype("float32")


def layer_with_random_weights(size=SIZE, **arguments):
    rng = np.random.default_rng(0)
    layer = TokensToToken(embed_dim=6, token_dim=4, **arguments)
    layer.build((None, *size, 3))
    for weight in layer.weights:
        weight.assign(0.3 * rng.normal(size=weight.shape))
    return layer


def soft_split(grid, kernel_size, stride, padding):
    """As `nn.Unfold`: channel after channel within a patch."""
    sides = (padding, padding)
    patches = tf.image.extract_patches(
        np.pad(grid, ((0, 0), sides, sides, (0, 0))),
        sizes=(1, kernel_size, kernel_size, 1),
        strides=(1, stride, stride, 1),
        rates=(1, 1, 1, 1),
        padding="VALID",
    ).numpy()
    batch, rows, columns, _ = patches.shape
    patches = patches.reshape(batch, rows * columns, kernel_size**2, -1)
    return patches.swapaxes(2, 3).reshape(batch, rows * columns, -1)


def test_two_tokens_of_one_split_by_hand():
    layer = TokensToToken(embed_dim=1, splits=((2, 2),))
    pixels = np.array([[[1.0, 2.0, 5.0, 6.0], [3.0, 4.0, 7.0, 8.0]]])[..., None]
    layer.build(pixels.shape)
    layer.projection.kernel.assign([[1.0], [10.0], [100.0], [1000.0]])
    layer.projection.bias.assign([0.5])
    # The patches are [1, 2, 3, 4] and [5, 6, 7, 8].
    np.testing.assert_allclose(layer(pixels)[0, :, 0], [4321.5, 8765.5])
    assert layer.attentions == []


def test_tokens_stand_row_by_row_in_their_grid_by_hand():
    tokens = np.array([[[1], [2], [3], [4], [5], [6]]])
    grid = tokens_to_grid(tokens, rows=2, columns=3)
    np.testing.assert_array_equal(grid[0, ..., 0], [[1, 2, 3], [4, 5, 6]])


@pytest.mark.parametrize("attention", ["performer", "transformer"])
@pytest.mark.parametrize(("rows", "columns"), [(2, 2), (2, 3), (3, 2), (4, 2)], ids=str)
def test_equals_its_composition(attention, rows, columns):
    size = (16 * rows, 16 * columns)
    layer = layer_with_random_weights(size, attention=attention)
    first, second = layer.attentions
    pixels = random_pixels(size)
    x = first(soft_split(pixels, 7, 4, padding=2)).numpy()
    x = x.reshape(2, 4 * rows, 4 * columns, 4)
    x = second(soft_split(x, 3, 2, padding=1)).numpy()
    x = x.reshape(2, 2 * rows, 2 * columns, 4)
    kernel, bias = layer.projection.get_weights()
    expected = soft_split(x, 3, 2, padding=1) @ kernel + bias
    np.testing.assert_allclose(layer(pixels), expected, rtol=1e-4, atol=1e-5)
    assert layer.grid == (rows, columns)


@pytest.mark.parametrize("size", [(224, 224), (384, 384), (224, 384), (384, 224)])
def test_has_one_token_for_each_16_pixels(size):
    layer = TokensToToken(embed_dim=8)
    tokens = layer(keras.Input((*size, 3)))
    assert tuple(tokens.shape) == (None, size[0] * size[1] // 256, 8)
    assert layer.grid == (size[0] // 16, size[1] // 16)
    assert layer.step == 16


def test_the_step_is_the_product_of_the_strides():
    assert TokensToToken(embed_dim=8, splits=((5, 4), (3, 3))).step == 12


def test_is_as_large_as_published():
    layer = TokensToToken(embed_dim=384)
    layer.build((None, 224, 224, 3))
    d, m = 64, 32

    def performer(dim):  # norm1, kqv, w, projection, norm2, MLP
        return 2 * dim + 3 * d * (dim + 1) + m * d + d * (d + 1) * 3 + 2 * d

    expected = performer(3 * 49) + performer(9 * d) + 384 * (9 * d + 1)
    assert layer.count_params() == expected
    assert layer.attentions[0].num_random_features == m
    layer = TokensToToken(embed_dim=384, attention="transformer")
    layer.build((None, 224, 224, 3))
    # No random features and no bias of the fused projection.
    assert layer.count_params() == expected - 2 * (m * d + 3 * d)


def test_soft_splits_have_no_weights():
    layer = layer_with_random_weights()
    assert len(layer.soft_splits) == 3
    assert all(split.weights == [] for split in layer.soft_splits)
    of_attentions = sum(len(attention.weights) for attention in layer.attentions)
    assert len(layer.weights) == of_attentions + 2 == 28


@pytest.mark.parametrize("attention", ["performer", "transformer"])
def test_the_gradient_reaches_every_weight(attention):
    layer = layer_with_random_weights(attention=attention)
    weights = [weight.value for weight in layer.trainable_weights]
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(random_pixels()) ** 2)
    for gradient in tape.gradient(loss, weights):
        assert np.all(np.isfinite(gradient))
        assert np.any(gradient != 0)


@pytest.mark.parametrize(("attention", "drops"), [("performer", 1), ("transformer", 0)])
def test_drops_in_training_only_where_the_official_code_does(attention, drops):
    layer = layer_with_random_weights(attention=attention)
    pixels = random_pixels()
    np.testing.assert_array_equal(layer(pixels, training=False), layer(pixels))
    once, again = (layer(pixels, training=True) for _ in range(2))
    assert np.any(once != again) == drops
    assert np.allclose(once, layer(pixels), rtol=1e-6, atol=1e-6) != drops


def test_starts_normal_with_zero_biases():
    layer = TokensToToken(embed_dim=96)
    layer.build((None, *SIZE, 3))
    kernel, bias = layer.projection.get_weights()
    np.testing.assert_allclose(kernel.std(), 0.02, rtol=0.05)
    np.testing.assert_array_equal(bias, 0.0)


def test_splits_survive_json_as_tuples():
    layer = TokensToToken(embed_dim=6, token_dim=4, splits=[[5, 4], [3, 2]])
    config = json.loads(json.dumps(layer.get_config()))
    twin = TokensToToken.from_config(config)
    assert twin.splits == layer.splits == ((5, 4), (3, 2))
    assert twin.get_config() == layer.get_config()


@pytest.mark.parametrize("attention", ["performer", "transformer"])
def test_saved_equals_loaded(attention, tmp_path):
    image = keras.Input((*SIZE, 3))
    layer = layer_with_random_weights(attention=attention)
    model = keras.Model(image, layer(image))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    pixels = random_pixels()
    np.testing.assert_array_equal(loaded(pixels), model(pixels))


@pytest.mark.parametrize("attention", ["performer", "transformer"])
def test_holds_the_contract(attention):
    layer = TokensToToken(6, 4, attention, splits=((3, 2), (3, 2)))
    hold_layer_to_contract(layer, random_pixels((8, 12)))


@pytest.mark.parametrize("size", [(225, 224), (224, 225), (224, None)])
def test_refuses_an_image_that_the_step_does_not_divide(size):
    rule = "`image_size` must be a multiple of 16, the product of the strides. "
    received = rf"Received: image_size=\({size[0]}, {size[1]}\)"
    with pytest.raises(ValueError, match=rule + received):
        TokensToToken(embed_dim=8).build((None, *size, 3))


def test_refuses_another_attention():
    rule = r"`attention` must be one of \['performer', 'transformer'\]. "
    hint = r"Did you mean 'performer'\? Received: attention='performers'"
    with pytest.raises(ValueError, match=rule + hint):
        TokensToToken(embed_dim=8, attention="performers")


def test_refuses_to_have_no_split():
    rule = r"pairs of a kernel size and a stride in \[1, kernel_size\]. Received"
    for splits in ((), ((3, 0),), ((3, 2), (2, 3))):
        with pytest.raises(ValueError, match=rule):
            TokensToToken(embed_dim=4, splits=splits)
