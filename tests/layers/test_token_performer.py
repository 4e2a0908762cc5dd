import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_deit.layers.token_performer import (
    TokenPerformer,
    linear_attention,
    random_features,
)
from tests.contracts import hold_layer_to_contract


def layer_with_random_weights(scale=0.5, token_dim=5, num_random_features=3, dim=6):
    rng = np.random.default_rng(0)
    layer = TokenPerformer(token_dim, num_random_features)
    layer.build((None, None, dim))
    for weight in layer.weights:
        weight.assign(scale * rng.normal(size=weight.shape))
    return layer


def layer_of_width_one():
    """Whatever the token: key 0.5, query 0.25, value 5; all other weights are zero."""
    layer = TokenPerformer(token_dim=1, num_random_features=1)
    layer.build((None, 3, 2))
    for weight in (*layer.projection.weights, *layer.mlp.weights, layer.kqv.kernel):
        weight.assign(np.zeros(weight.shape))
    layer.kqv.bias.assign([0.5, 0.25, 5.0])
    return layer


def normalized(x, norm):
    gamma, beta = (np.float64(w) for w in norm.get_weights())
    x = x - x.mean(axis=-1, keepdims=True)
    return x / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-5) * gamma + beta


def performer_in_numpy(layer, tokens):
    """In float64, with the quadratic form of the attention."""

    def dense(x, layer):
        kernel, bias = (np.float64(w) for w in layer.get_weights())
        return x @ kernel + bias

    def gelu(x):
        return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))

    def features(x):
        w = np.float64(layer.random_features)
        return np.exp(x @ w.T - (x**2).sum(-1, keepdims=True) / 2) / len(w) ** 0.5

    kqv = dense(normalized(np.float64(tokens), layer.norm1), layer.kqv)
    key, query, value = np.split(kqv, 3, axis=-1)
    scores = features(query) @ features(key).swapaxes(1, 2)  # (B, T, T)
    y = scores @ value / (scores.sum(axis=-1, keepdims=True) + 1e-8)
    y = value + dense(y, layer.projection)
    hidden = gelu(dense(normalized(y, layer.norm2), layer.mlp.fc1))
    return y + dense(hidden, layer.mlp.fc2)


def test_features_by_hand():
    projection = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    x = np.array([[[0.0, 0.0], [2.0, 0.0]]])
    # exp(0) / sqrt(4); and scores 2, 0, 2, 0 less |x|^2 / 2 = 2.
    low = math.exp(-2) / 2
    expected = [[[0.5, 0.5, 0.5, 0.5], [0.5, low, 0.5, low]]]
    np.testing.assert_allclose(random_features(x, projection), expected, rtol=1e-6)


def test_linear_attention_by_hand():
    query = np.array([[[1.0, 0.0], [1.0, 1.0]]])
    key = np.array([[[1.0, 0.0], [0.0, 3.0]]])
    value = np.array([[[2.0], [4.0]]])
    # Query 0 scores 1 and 0: value 2. Query 1 scores 1 and 3: (2 + 3 * 4) / 4.
    output = linear_attention(query, key, value)
    np.testing.assert_allclose(output[0, :, 0], [2.0, 3.5], rtol=1e-6)


def test_the_skip_connection_is_the_value_by_hand():
    layer = layer_of_width_one()
    layer.projection.kernel.assign([[2.0]])
    layer.projection.bias.assign([1.0])
    layer.mlp.fc2.bias.assign([100.0])
    # All values are 5, so is their mean: 5 + (2 * 5 + 1) + 100.
    output = layer(np.array([[[1.0, 2.0], [3.0, 1.0], [0.0, 0.0]]]))
    np.testing.assert_allclose(output, np.full((1, 3, 1), 116.0), rtol=1e-6)


def test_attention_to_nothing_is_zero():
    zeros = np.zeros((1, 3, 2), "float32")
    output = linear_attention(zeros, zeros, np.ones((1, 3, 4), "float32"))
    np.testing.assert_array_equal(output, np.zeros((1, 3, 4)))


def test_epsilon_is_added_to_the_normalizer():
    # One feature sqrt(1e-8) on each side: the score is as large as epsilon.
    feature = np.full((1, 1, 1), 1e-4)
    output = linear_attention(feature, feature, np.ones((1, 1, 1)))
    np.testing.assert_allclose(output, [[[0.5]]], rtol=1e-6)


def test_many_features_approach_the_softmax():
    rng = np.random.default_rng(0)
    query, key = 0.5 * rng.normal(size=(2, 1, 4, 3))
    value = rng.normal(size=(1, 4, 2))
    projection = rng.normal(size=(200_000, 3))
    scores = np.exp(query @ key.swapaxes(1, 2))
    output = linear_attention(
        random_features(query, projection), random_features(key, projection), value
    )
    softmax = scores / scores.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(output, softmax @ value, atol=0.01)


def test_golden():
    layer = TokenPerformer(token_dim=4)
    layer.build((None, 3, 6))
    # As the official parameters are sorted; a linear weight there is (out, in).
    weights = (
        *(layer.kqv.bias, layer.kqv.kernel),
        *(layer.mlp.fc1.bias, layer.mlp.fc1.kernel),
        *(layer.mlp.fc2.bias, layer.mlp.fc2.kernel),
        *(layer.norm1.beta, layer.norm1.gamma, layer.norm2.beta, layer.norm2.gamma),
        *(layer.projection.bias, layer.projection.kernel),
        layer.random_features,
    )
    for index, weight in enumerate(weights):
        values = 0.3 * np.sin(0.37 * np.arange(math.prod(weight.shape)) + index)
        if weight.name == "kernel":
            values = values.reshape(weight.shape[::-1]).T
        weight.assign(values.reshape(weight.shape) + (weight.name == "gamma"))
    output = layer(np.cos(0.21 * np.arange(18)).reshape(1, 3, 6))
    expected = [
        [-0.71346176, 0.38403815, -1.67560995, -0.77478904],
        [-0.83143061, 0.41903910, -1.59737766, -0.90617663],
        [-0.71563053, -0.17336401, -0.99506050, -1.03214288],
    ]
    np.testing.assert_allclose(output[0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("num_tokens", [1, 6, 35])
@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_equals_numpy_in_double_precision(num_tokens, scale):
    layer = layer_with_random_weights()
    # At scale 1e-3 the variance is as small as the epsilon of norm1, which counts.
    tokens = np.random.default_rng(1).normal(size=(2, num_tokens, 6))
    tokens = (scale * tokens).astype("float32")
    expected = performer_in_numpy(layer, tokens)
    np.testing.assert_allclose(layer(tokens), expected, rtol=1e-4, atol=1e-4)


def test_both_normalizations_have_the_epsilon_of_the_official_code():
    layer = TokenPerformer(token_dim=2)
    layer.build((None, 3, 2))
    a = 1e-5**0.5  # the token (-a, a) has mean 0 and variance epsilon
    for norm in (layer.norm1, layer.norm2):
        output = norm(np.array([[[-a, a]]]))
        np.testing.assert_allclose(output[0, 0], [-(0.5**0.5), 0.5**0.5], rtol=1e-4)


def test_features_start_orthogonal_and_stay_as_they_are():
    layer = TokenPerformer(token_dim=8)
    layer.build((None, 5, 12))
    rows = layer.random_features.numpy()
    assert rows.shape == (4, 8)  # half of token_dim
    np.testing.assert_allclose(rows @ rows.T, 4 * np.eye(4), atol=1e-5)
    assert [w.name for w in layer.non_trainable_weights] == ["random_features"]
    assert len(layer.trainable_weights) == 12
    tokens = np.random.default_rng(0).normal(size=(2, 5, 12)).astype("float32")
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(tokens) ** 2)
    trained = [weight.value for weight in layer.trainable_weights]
    assert all(np.any(g != 0) for g in tape.gradient(loss, trained))


def test_starts_normal_with_zero_biases_and_as_many_features_as_asked():
    layer = TokenPerformer(token_dim=64, num_random_features=7)
    layer.build((None, 5, 147))
    assert tuple(layer.random_features.shape) == (7, 64)
    for dense in (layer.kqv, layer.projection, layer.mlp.fc1, layer.mlp.fc2):
        np.testing.assert_allclose(dense.kernel.numpy().std(), 0.02, rtol=0.05)
        np.testing.assert_array_equal(dense.bias, 0.0)


class Outer(keras.layers.Layer):
    """Calls another layer under its own dtype policy."""

    def __init__(self, inner, **kwargs):
        super().__init__(**kwargs)
        self.inner = inner

    def call(self, x):
        return self.inner(x)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_computes_in_float32_under_mixed_policies(policy, nested, scale):
    reference = layer_with_random_weights(scale=0.7)
    layer = TokenPerformer(5, 3, dtype=policy)
    layer.build((None, 7, 6))
    layer.set_weights(reference.get_weights())
    tokens = np.random.default_rng(1).normal(size=(2, 7, 6))
    tokens = tf.cast(scale * tokens, "float32")
    half = policy.removeprefix("mixed_")
    if nested:  # the outer layer casts its input
        tokens = tf.cast(tf.cast(tokens, half), "float32")
    output = (Outer(layer, dtype=policy) if nested else layer)(tokens)
    expected = tf.cast(reference(tokens), half)
    assert output.dtype == expected.dtype
    assert np.all(np.isfinite(expected))
    np.testing.assert_array_equal(output, expected)  # only the last cast rounds


def test_drops_a_tenth_of_each_branch_in_training_only():
    layer = layer_of_width_one()
    layer.projection.bias.assign([0.9])
    # gelu(6) = 6, to seven digits: the MLP adds 6 + 3 = 9.
    layer.mlp.fc1.bias.assign([6.0])
    layer.mlp.fc2.kernel.assign([[1.0]])
    layer.mlp.fc2.bias.assign([3.0])
    tokens = np.zeros((20, 200, 2), "float32")
    np.testing.assert_allclose(layer(tokens, training=False), 14.9 + tokens[..., :1])
    np.testing.assert_allclose(layer(tokens), 14.9 + tokens[..., :1])
    # 5, plus 0 or 0.9 / 0.9, plus 0 or 9 / 0.9; nothing within the MLP is dropped.
    output = np.round(layer(tokens, training=True), 3)
    values, counts = np.unique(output, return_counts=True)
    np.testing.assert_array_equal(values, [5.0, 6.0, 15.0, 16.0])
    expected = 4000 * np.array([0.01, 0.09, 0.09, 0.81])
    assert np.all(np.abs(counts - expected) < 5 * np.sqrt(expected))


@pytest.mark.parametrize("num_random_features", [None, 3])
def test_holds_the_contract(num_random_features):
    layer = TokenPerformer(8, num_random_features)
    tokens = np.random.default_rng(0).normal(size=(2, 5, 12)).astype("float32")
    hold_layer_to_contract(layer, tokens)
