import keras
import numpy as np
import pytest

from keras_deit.layers.feed_forward import FeedForward
from tests.contracts import fill, hold_layer_to_contract


def layer_of_width_one(kernel1, bias1, kernel2, bias2, **arguments):
    layer = FeedForward(hidden_dim=1, **arguments)
    layer.build((None, None, 1))
    fill(layer, [[kernel1]], [bias1], [[kernel2]], [bias2])
    return layer


def test_one_number_by_hand():
    layer = layer_of_width_one(2.0, -1.0, 3.0, 0.5)
    # 2 * 1 - 1 = 1; gelu(1) = 0.8413447 by the error function (by the hyperbolic
    # tangent it were 0.8411920); 3 * 0.8413447 + 0.5 = 3.0240342.
    np.testing.assert_allclose(layer(np.ones((1, 1, 1)))[0, 0, 0], 3.0240342, rtol=1e-6)


def test_each_token_thinks_alone():
    layer = FeedForward(hidden_dim=7)
    tokens = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")
    alone = layer(tokens[1:, 2:])
    np.testing.assert_allclose(layer(tokens)[1, 2], alone[0, 0], rtol=1e-5, atol=1e-7)


def test_hidden_layer_is_as_wide_as_asked():
    layer = FeedForward(hidden_dim=7)
    layer.build((None, 3, 4))
    assert [w.shape for w in layer.weights] == [(4, 7), (7,), (7, 4), (4,)]


def test_drops_after_both_dense_layers():
    keras.utils.set_random_seed(0)
    layer = layer_of_width_one(0.0, 100.0, 1.0, 0.0, drop_rate=0.5)
    # gelu(100) = 100; each dropout doubles what it keeps, a quarter survives both.
    output = layer(np.ones((1, 1000, 1)), training=True).numpy()
    assert set(np.unique(output)) == {0.0, 400.0}
    assert 0.2 < np.mean(output > 0) < 0.3


@pytest.mark.parametrize(("rate", "training"), [(0.5, False), (0.0, True)])
def test_drops_nothing_in_inference_or_at_rate_zero(rate, training):
    layer = layer_of_width_one(0.0, 100.0, 1.0, 0.0, drop_rate=rate)
    output = layer(np.ones((1, 100, 1)), training=training)
    np.testing.assert_array_equal(output, 100.0)


def test_starts_normal_and_uncut_with_zero_biases():
    keras.utils.set_random_seed(0)
    layer = FeedForward(hidden_dim=128)
    layer.build((None, 5, 64))
    for dense in (layer.fc1, layer.fc2):
        kernel = dense.kernel.numpy()
        np.testing.assert_allclose(kernel.std(), 0.02, rtol=0.05)
        assert np.abs(kernel).max() > 0.04
        np.testing.assert_array_equal(dense.bias, 0.0)
    assert not np.array_equal(layer.fc1.kernel, np.transpose(layer.fc2.kernel))


def test_holds_the_contract():
    tokens = np.random.default_rng(0).normal(size=(2, 5, 8)).astype("float32")
    hold_layer_to_contract(FeedForward(hidden_dim=3, drop_rate=0.1), tokens)


@pytest.mark.parametrize("rate", [-0.1, 1.5])
def test_refuses_a_drop_rate_that_is_no_share(rate):
    rule = r"`drop_rate` must be in \[0, 1\]. "
    with pytest.raises(ValueError, match=f"{rule}Received: drop_rate={rate}"):
        FeedForward(hidden_dim=3, drop_rate=rate)
