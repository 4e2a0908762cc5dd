import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_deit.layers.position_embedding import PositionEmbedding, sinusoids
from tests.contracts import fill, hold_layer_to_contract


def test_adds_one_vector_to_each_token_by_hand():
    layer = PositionEmbedding()
    layer.build((None, 3, 1))
    fill(layer, [[[1.0], [2.0], [3.0]]])
    # The same for both images: 10 + 1, 10 + 2, 10 + 3 and 20 + 1, 20 + 2, 20 + 3.
    output = layer(np.array([[[10.0]] * 3, [[20.0]] * 3]))
    np.testing.assert_array_equal(output[..., 0], [[11, 12, 13], [21, 22, 23]])


def test_starts_normal_and_uncut():
    keras.utils.set_random_seed(0)
    layer = PositionEmbedding()
    layer.build((None, 198, 64))
    embedding = layer.embedding.numpy()
    assert embedding.shape == (1, 198, 64)
    np.testing.assert_allclose(embedding.std(), 0.02, rtol=0.05)
    assert np.abs(embedding).max() > 0.04


def test_sinusoids_by_hand():
    # Position 0: sine 0, cosine 1. Position 2 at width 4: angles 2 and 2 / 10000^(1/2).
    first, _, third = sinusoids(3, 4)[0]
    np.testing.assert_array_equal(first, [0, 1, 0, 1])
    expected = [math.sin(2), math.cos(2), math.sin(0.02), math.cos(0.02)]
    np.testing.assert_allclose(third, expected, rtol=1e-6)


def test_sinusoids_are_those_of_the_official_code():
    expected = [0.84147096, 0.54030228, 0.09983341, 0.99500418]
    expected += [0.00999983, 0.99995, 0.001, 0.9999995]
    np.testing.assert_allclose(sinusoids(2, 8)[0, 1], expected, rtol=1e-5)


def test_sinusoids_are_computed_in_double_precision():
    # With single angles the last positions would be off by 1e-5 and more.
    table = sinusoids(577, 6)
    assert table.shape == (1, 577, 6)
    assert table.dtype == np.float32
    for j in range(6):
        wave = math.cos if j % 2 else math.sin
        expected = [wave(p / 10000 ** ((j - j % 2) / 6)) for p in range(577)]
        np.testing.assert_array_equal(table[0, :, j], np.float32(expected))


def test_adds_the_frozen_table_where_asked():
    layer = PositionEmbedding(sinusoidal=True)
    tokens = np.random.default_rng(0).normal(size=(2, 5, 8)).astype("float32")
    np.testing.assert_array_equal(layer(tokens), tokens + sinusoids(5, 8))
    assert [w.name for w in layer.non_trainable_weights] == ["embedding"]
    assert layer.trainable_weights == []
    learned = PositionEmbedding()
    learned.build((None, 5, 8))
    assert [w.name for w in learned.trainable_weights] == ["embedding"]


def test_the_frozen_table_is_a_weight_that_can_be_loaded():
    layer = PositionEmbedding(sinusoidal=True)
    layer.build((None, 2, 1))
    fill(layer, [[[1.0], [2.0]]])
    np.testing.assert_array_equal(layer(np.zeros((1, 2, 1))), [[[1.0], [2.0]]])


def test_the_table_of_a_half_precision_policy_is_the_rounded_one():
    layer = PositionEmbedding(sinusoidal=True, dtype="bfloat16")
    output = layer(np.zeros((1, 5, 8), "float32"))
    np.testing.assert_array_equal(output, tf.cast(sinusoids(5, 8), "bfloat16"))


@pytest.mark.parametrize("sinusoidal", [False, True])
def test_holds_the_contract(sinusoidal):
    tokens = np.random.default_rng(0).normal(size=(2, 5, 8)).astype("float32")
    hold_layer_to_contract(PositionEmbedding(sinusoidal), tokens)
