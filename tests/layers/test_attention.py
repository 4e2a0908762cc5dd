import math

import keras
import numpy as np
import pytest

from keras_deit.layers.attention import MultiHeadSelfAttention, class_attention
from tests.contracts import fill, hold_layer_to_contract


def softmax(x):
    x = np.exp(x - x.max(axis=-1, keepdims=True))
    return x / x.sum(axis=-1, keepdims=True)


def attention_in_numpy(tokens, weights, num_heads):
    """Head by head; the columns of the projection are [q | k | v], head after head."""
    kernel, bias, projection_kernel, projection_bias = weights
    dim = tokens.shape[-1]
    head_dim = dim // num_heads
    qkv = tokens @ kernel + bias  # (B, T, 3 D)
    heads, maps = [], []
    for head in range(num_heads):
        q, k, v = (
            qkv[..., which * dim + head * head_dim :][..., :head_dim]
            for which in range(3)
        )
        maps.append(softmax(q @ k.swapaxes(-1, -2) / math.sqrt(head_dim)))
        heads.append(maps[-1] @ v)
    output = np.concatenate(heads, axis=-1) @ projection_kernel + projection_bias
    return output, np.stack(maps, axis=1)


def layer_with_random_weights(rng, dim=6, **arguments):
    layer = MultiHeadSelfAttention(**arguments)
    layer.build((None, 5, dim))
    fill(layer, *(rng.normal(size=w.shape) for w in layer.weights))
    return layer


def layer_with_keys_in_the_second_column(num_prefix_tokens):
    """One head of width 2: the query is the first number, the key the second."""
    layer = MultiHeadSelfAttention(num_heads=1, num_prefix_tokens=num_prefix_tokens)
    layer.build((None, 3, 2))
    kernel = np.zeros((2, 6))
    kernel[0, 0] = math.sqrt(2)  # undoes the scale
    kernel[1, 2] = 1.0
    layer.qkv.kernel.assign(kernel)
    return layer


def test_two_tokens_by_hand():
    layer = MultiHeadSelfAttention(num_heads=1)
    layer.build((None, 2, 4))
    layer.qkv.kernel.assign(np.tile(np.eye(4), 3))
    layer.projection.kernel.assign(np.eye(4))
    layer.projection.bias.assign([0.0, 1.0, 0.0, 0.0])
    x = math.sqrt(2 * math.log(3))
    # Query, key and value are the token. Token 0 is zero: all its scores are 0, it
    # takes the mean. Token 1 scores 0 and x * x / sqrt(4) = log 3: weights 1/4, 3/4.
    output = layer(np.array([[[0.0, 0, 0, 0], [x, 0, 0, 0]]]))
    expected = [[x / 2, 1, 0, 0], [3 * x / 4, 1, 0, 0]]
    np.testing.assert_allclose(output[0], expected, rtol=1e-6)


def test_class_attention_by_hand():
    layer = layer_with_keys_in_the_second_column(num_prefix_tokens=1)
    tokens = np.array([[[1.0, 0], [7, math.log(2)], [7, math.log(5)]]])
    _, row = layer(tokens, return_class_attention=True)
    # The class token scores 0, log 2, log 5: 1/8 on itself, 2/8 and 5/8 on patches.
    np.testing.assert_allclose(row, [[2 / 8, 5 / 8]], rtol=1e-6)


def test_class_attention_of_two_prefix_tokens_by_hand():
    layer = layer_with_keys_in_the_second_column(num_prefix_tokens=2)
    tokens = np.array([[[1.0, 0], [2, 0], [7, 0], [7, math.log(2)]]])
    _, row = layer(tokens, return_class_attention=True)
    # class: 0, 0, 0, log 2 -> fifths 1, 1, 1, 2; distillation: 0, 0, 0, log 4 ->
    # sevenths 1, 1, 1, 4. Means over both rows: (1/5 + 1/7) / 2, (2/5 + 4/7) / 2.
    np.testing.assert_allclose(row, [[6 / 35, 17 / 35]], rtol=1e-6)


def test_the_whole_attention_by_hand():
    layer = layer_with_keys_in_the_second_column(num_prefix_tokens=1)
    tokens = np.array([[[1.0, 0], [0, math.log(2)], [2, math.log(5)]]])
    _, attention = layer(tokens, return_attention=True)
    # Row i is the softmax of query i times the keys 0, log 2, log 5: eighths 1 2 5;
    # thirds; thirtieths 1 4 25.
    rows = [[1 / 8, 2 / 8, 5 / 8], [1 / 3] * 3, [1 / 30, 4 / 30, 25 / 30]]
    np.testing.assert_allclose(attention, [[rows]], rtol=1e-6)


def test_class_attention_is_the_mean_over_heads_and_prefix_rows():
    attention = np.arange(2 * 4 * 4, dtype="float32").reshape(1, 2, 4, 4)
    # Rows 0 of both heads are [0, 1, 2, 3] and [16, 17, 18, 19].
    np.testing.assert_array_equal(class_attention(attention, 1), [[9, 10, 11]])
    # With rows 1, [4, 5, 6, 7] and [20, 21, 22, 23], and two columns less.
    np.testing.assert_array_equal(class_attention(attention, 2), [[12, 13]])


@pytest.mark.parametrize("num_heads", [1, 2, 3, 6])
def test_equals_numpy_head_by_head(num_heads):
    rng = np.random.default_rng(0)
    layer = layer_with_random_weights(rng, num_heads=num_heads, num_prefix_tokens=2)
    tokens = rng.normal(size=(2, 5, 6)).astype("float32")
    output, maps = attention_in_numpy(tokens, layer.get_weights(), num_heads)
    got, row = layer(tokens, return_class_attention=True)
    same, same_row, attention = layer(
        tokens, return_class_attention=True, return_attention=True
    )
    np.testing.assert_allclose(attention, maps, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(same, got)
    np.testing.assert_array_equal(same_row, row)
    np.testing.assert_allclose(got, output, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(row, maps[:, :, :2, 2:].mean(axis=(1, 2)), rtol=1e-4)
    np.testing.assert_array_equal(layer(tokens), got)


def test_equal_tokens_take_their_common_value():
    layer = layer_with_random_weights(np.random.default_rng(0), num_heads=2)
    token = np.random.default_rng(1).normal(size=(3, 1, 6)).astype("float32")
    tokens = np.repeat(token, 4, axis=1)
    kernel, bias, projection_kernel, projection_bias = layer.get_weights()
    value = (tokens @ kernel + bias)[..., 12:]
    expected = value @ projection_kernel + projection_bias
    np.testing.assert_allclose(layer(tokens), expected, rtol=1e-4, atol=1e-5)


def test_has_a_bias_in_the_fused_projection_only_where_asked():
    rng = np.random.default_rng(0)
    with_bias = layer_with_random_weights(rng, num_heads=2)
    without = layer_with_random_weights(rng, num_heads=2, qkv_bias=False)
    assert [w.shape for w in with_bias.weights] == [(6, 18), (18,), (6, 6), (6,)]
    assert [w.shape for w in without.weights] == [(6, 18), (6, 6), (6,)]


def test_starts_normal_and_uncut_with_zero_biases():
    keras.utils.set_random_seed(0)
    layer = MultiHeadSelfAttention(num_heads=4)
    layer.build((None, 5, 64))
    for dense in (layer.qkv, layer.projection):
        kernel = dense.kernel.numpy()
        np.testing.assert_allclose(kernel.std(), 0.02, rtol=0.05)
        assert np.abs(kernel).max() > 0.04
        np.testing.assert_array_equal(dense.bias, 0.0)


def test_computes_the_softmax_in_float32_under_half_precision():
    layer = MultiHeadSelfAttention(num_heads=1, dtype="mixed_bfloat16")
    tokens = np.zeros((1, 1 + 3, 4), "float32")
    _, row, attention = layer(
        tokens, return_class_attention=True, return_attention=True
    )
    for x in (row, attention):
        assert keras.backend.standardize_dtype(x.dtype) == "float32"
    np.testing.assert_array_equal(row, [[0.25] * 3])
    np.testing.assert_array_equal(attention, [[[[0.25] * 4] * 4]])


@pytest.mark.parametrize("arguments", [{}, {"qkv_bias": False, "num_prefix_tokens": 2}])
def test_holds_the_contract(arguments):
    layer = MultiHeadSelfAttention(num_heads=2, **arguments)
    tokens = np.random.default_rng(0).normal(size=(2, 5, 8)).astype("float32")
    hold_layer_to_contract(layer, tokens)


@pytest.mark.parametrize("num_prefix_tokens", [1, 2])
@pytest.mark.parametrize("whole", [{}, {"return_attention": True}])
def test_holds_the_contract_with_class_attention(num_prefix_tokens, whole):
    layer = MultiHeadSelfAttention(num_heads=2, num_prefix_tokens=num_prefix_tokens)
    tokens = np.random.default_rng(0).normal(size=(2, 5, 8)).astype("float32")
    hold_layer_to_contract(layer, tokens, return_class_attention=True, **whole)


def test_holds_the_contract_with_the_attention_alone():
    layer = MultiHeadSelfAttention(num_heads=2)
    tokens = np.random.default_rng(0).normal(size=(2, 5, 8)).astype("float32")
    hold_layer_to_contract(layer, tokens, return_attention=True)


def test_refuses_a_width_that_heads_do_not_divide():
    rule = "`embed_dim` must be a multiple of `num_heads`. "
    with pytest.raises(ValueError, match=f"{rule}Received: embed_dim=8, num_heads=3"):
        MultiHeadSelfAttention(num_heads=3).build((None, 5, 8))
