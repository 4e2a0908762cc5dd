import keras
import numpy as np

from keras_deit.layers.squeeze_excite import SqueezeExcite
from tests.contracts import fill, hold_layer_to_contract


def test_one_channel_by_hand():
    layer = SqueezeExcite(squeeze_dim=1)
    layer.build((None, 1, 2, 1))
    fill(layer, [[1.0]], [0.0], [[1.0]], [0.0])
    # Means 2 and -2; after the ReLU 2 and 0; gates sigmoid(2) = 0.880797 and 0.5.
    output = layer(np.array([[[[1.0], [3.0]]], [[[-1.0], [-3.0]]]]))
    expected = [[0.880797, 2.642391], [-0.5, -1.5]]
    np.testing.assert_allclose(output[:, 0, :, 0], expected, rtol=1e-6)


def test_equals_numpy():
    rng = np.random.default_rng(0)
    layer = SqueezeExcite(squeeze_dim=3)
    layer.build((None, 4, 5, 6))
    fill(layer, *(rng.normal(size=w.shape) for w in layer.weights))
    kernel1, bias1, kernel2, bias2 = layer.get_weights()
    x = rng.normal(size=(2, 4, 5, 6)).astype("float32")
    squeezed = np.maximum(x.mean(axis=(1, 2)) @ kernel1 + bias1, 0)
    gate = 1 / (1 + np.exp(-(squeezed @ kernel2 + bias2)))
    expected = x * gate[:, None, None, :]
    np.testing.assert_allclose(layer(x), expected, rtol=1e-4, atol=1e-6)


def test_halves_every_channel_with_zero_weights():
    layer = SqueezeExcite(squeeze_dim=3)
    layer.build((None, 4, 4, 6))
    fill(layer, *(np.zeros(w.shape) for w in layer.weights))
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 6)).astype("float32")
    np.testing.assert_allclose(layer(x), x / 2, rtol=1e-6)


def test_starts_normal_with_variance_two_over_fan_out():
    keras.utils.set_random_seed(0)
    layer = SqueezeExcite(squeeze_dim=64)
    layer.build((None, 4, 4, 256))
    for dense, fan_out in ((layer.fc1, 64), (layer.fc2, 256)):
        kernel, std = dense.kernel.numpy(), (2 / fan_out) ** 0.5
        np.testing.assert_allclose(kernel.std(), std, rtol=0.05)
        assert np.abs(kernel).max() > 2.5 * std  # not cut
        np.testing.assert_array_equal(dense.bias, 0.0)


def test_holds_the_contract():
    x = np.random.default_rng(0).normal(size=(2, 4, 6, 8)).astype("float32")
    hold_layer_to_contract(SqueezeExcite(squeeze_dim=2), x)
