import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_deit.layers import token_transformer
from keras_deit.layers.token_transformer import TokenTransformer
from tests.contracts import hold_layer_to_contract


def normalized(x, norm):
    gamma, beta = (np.float64(w) for w in norm.get_weights())
    x = x - x.mean(axis=-1, keepdims=True)
    return x / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-5) * gamma + beta


def transformer_in_numpy(layer, tokens):
    """In float64; the scale is that of the incoming width."""

    def dense(x, layer):
        kernel, *bias = (np.float64(w) for w in layer.get_weights())
        return x @ kernel + sum(bias)

    def gelu(x):
        return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))

    qkv = dense(normalized(np.float64(tokens), layer.norm1), layer.qkv)
    q, k, v = np.split(qkv, 3, axis=-1)
    scores = q @ k.swapaxes(1, 2) / math.sqrt(tokens.shape[-1])  # (B, T, T)
    attention = np.exp(scores - scores.max(axis=-1, keepdims=True))
    attention = attention / attention.sum(axis=-1, keepdims=True)
    y = v + dense(attention @ v, layer.projection)
    hidden = gelu(dense(normalized(y, layer.norm2), layer.mlp.fc1))
    return y + dense(hidden, layer.mlp.fc2)


def layer_with_zero_weights(dim, token_dim=1, **arguments):
    """Its normalizations are as they start; all dense layers answer zero."""
    layer = TokenTransformer(token_dim, **arguments)
    layer.build((None, None, dim))
    for dense in (layer.qkv, layer.projection, layer.mlp.fc1, layer.mlp.fc2):
        dense.set_weights([np.zeros(w.shape) for w in dense.weights])
    return layer


def layer_with_random_weights(token_dim=5, dim=12):
    rng = np.random.default_rng(0)
    layer = TokenTransformer(token_dim)
    layer.build((None, None, dim))
    for weight in layer.weights:
        weight.assign(rng.normal(size=weight.shape))
    return layer


def test_two_tokens_by_hand():
    layer = layer_with_zero_weights(dim=4)
    # Both tokens are as normalized already. The first number is key and value, log 3
    # times it the query.
    layer.qkv.kernel.assign([[math.log(3), 1.0, 1.0], *[[0.0] * 3] * 3])
    layer.projection.kernel.assign([[2.0]])
    layer.projection.bias.assign([10.0])
    layer.mlp.fc2.bias.assign([100.0])
    tokens = np.array([[[1.0, -1.0, 1.0, -1.0], [-1.0, 1.0, -1.0, 1.0]]])
    # Scores log(3) / sqrt(4), both signs: weights 3/4 and 1/4, so 3/4 - 1/4 = 1/2 of
    # the values 1 and -1. With v: 1 + 2 / 2 + 10 + 100, and -1 - 2 / 2 + 10 + 100.
    # A scale of 1 / sqrt(token_dim) would have weights 9/10 and 1/10.
    np.testing.assert_allclose(layer(tokens)[0, :, 0], [112.0, 108.0], rtol=1e-5)


def test_equal_tokens_take_their_common_value():
    layer = layer_with_random_weights()
    token = np.random.default_rng(1).normal(size=(2, 1, 12)).astype("float32")
    two, six = (layer(np.repeat(token, count, axis=1)) for count in (2, 6))
    expected = np.repeat(two[:, :1], 6, axis=1)
    np.testing.assert_allclose(six, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("dim", "token_dim"), [(12, 5), (3, 8), (6, 6)])
@pytest.mark.parametrize("num_tokens", [2, 6, 35])
@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_equals_numpy_in_double_precision(dim, token_dim, num_tokens, scale):
    layer = layer_with_random_weights(token_dim, dim)
    # At scale 1e-3 the variance is as small as the epsilon of norm1, which counts.
    tokens = np.random.default_rng(1).normal(size=(2, num_tokens, dim))
    tokens = (scale * tokens).astype("float32")
    expected = transformer_in_numpy(layer, tokens)
    np.testing.assert_allclose(layer(tokens), expected, rtol=1e-4, atol=1e-4)


def test_both_normalizations_have_the_epsilon_of_the_official_code():
    layer = layer_with_zero_weights(dim=2, token_dim=2)
    a = 1e-5**0.5  # the token (-a, a) has mean 0 and variance epsilon
    for norm in (layer.norm1, layer.norm2):
        output = norm(np.array([[[-a, a]]]))
        np.testing.assert_allclose(output[0, 0], [-(0.5**0.5), 0.5**0.5], rtol=1e-4)


def test_has_no_bias_in_the_fused_projection():
    layer = layer_with_random_weights(token_dim=5, dim=12)
    assert [(w.name, w.shape) for w in layer.qkv.weights] == [("kernel", (12, 15))]
    shapes = [w.shape for w in (*layer.projection.weights, *layer.mlp.weights)]
    assert shapes == [(5, 5), (5,)] * 3
    assert len(layer.trainable_weights) == len(layer.weights) == 11


def test_starts_normal_with_zero_biases():
    layer = TokenTransformer(token_dim=64)
    layer.build((None, 5, 147))
    for dense in (layer.qkv, layer.projection, layer.mlp.fc1, layer.mlp.fc2):
        np.testing.assert_allclose(dense.kernel.numpy().std(), 0.02, rtol=0.05)
        np.testing.assert_array_equal(dense.weights[1:], 0.0)


def test_drops_nothing_in_training():
    layer = layer_with_random_weights()
    tokens = np.random.default_rng(1).normal(size=(2, 6, 12)).astype("float32")
    once, again = (layer(tokens, training=True) for _ in range(2))
    np.testing.assert_array_equal(once, again)
    np.testing.assert_allclose(once, layer(tokens), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_computes_the_softmax_in_float32_under_half_precision(policy, monkeypatch):
    # Seen from within: on a CPU, TensorFlow's own softmax does the same by itself.
    seen = []

    def softmax(x):
        seen.append(keras.backend.standardize_dtype(x.dtype))
        return tf.nn.softmax(x)

    monkeypatch.setattr(token_transformer.ops, "softmax", softmax)
    layer = TokenTransformer(token_dim=2, dtype=policy)
    output = layer(np.ones((1, 3, 4), "float32"))
    assert seen == ["float32"]
    assert output.dtype == policy.removeprefix("mixed_")


def test_holds_the_contract():
    tokens = np.random.default_rng(0).normal(size=(2, 5, 12)).astype("float32")
    hold_layer_to_contract(TokenTransformer(token_dim=8), tokens)
