import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_deit.layers.token_reorganization import (
    TokenReorganization,
    gather_tokens,
    num_kept_tokens,
)
from tests.contracts import hold_layer_to_contract


def numbered_tokens(num_prefix_tokens=1):
    """Prefix 9 (and 8), patches 0, 1, 2, 3; they count .1, .4, .2, .25: sum .95."""
    tokens = [9.0, 8.0][:num_prefix_tokens] + [0.0, 1.0, 2.0, 3.0]
    attention = [[0.1, 0.4, 0.2, 0.25]]
    return np.reshape(tokens, (1, -1, 1)), np.array(attention, "float32")


def random_inputs(batch=3, num_patches=7, num_prefix_tokens=1, dim=4):
    rng = np.random.default_rng(0)
    tokens = rng.normal(size=(batch, num_prefix_tokens + num_patches, dim))
    attention = rng.uniform(size=(batch, num_patches))
    return tokens.astype("float32"), attention.astype("float32")


def reorganized_in_numpy(tokens, attention, num_kept, num_prefix_tokens, fuse):
    """Image by image, as the official code does it."""
    images = []
    for x, a in zip(tokens, attention, strict=True):
        prefix, patches = x[:num_prefix_tokens], x[num_prefix_tokens:]
        order = np.argsort(-a, kind="stable")
        rest = np.sort(order[num_kept:])
        parts = [prefix, patches[order[:num_kept]]]
        if fuse:
            parts.append((a[rest, None] * patches[rest]).sum(axis=0, keepdims=True))
        images.append(np.concatenate(parts))
    return np.stack(images)


def test_keeps_the_attentive_and_fuses_the_rest_by_hand():
    tokens, attention = numbered_tokens()
    output = TokenReorganization(keep_rate=0.5)(tokens, attention)
    # Kept: patches 1 and 3, as their attention falls. Fused: 0.1 * 0 + 0.2 * 2; the
    # weights 0.1 and 0.2 are not normalized.
    np.testing.assert_allclose(output[0, :, 0], [9.0, 1.0, 3.0, 0.4], rtol=1e-6)


def test_drops_the_rest_without_fusing_by_hand():
    tokens, attention = numbered_tokens()
    output = TokenReorganization(keep_rate=0.5, fuse=False)(tokens, attention)
    np.testing.assert_array_equal(output[0, :, 0], [9.0, 1.0, 3.0])


def test_two_prefix_tokens_stay_in_place_by_hand():
    tokens, attention = numbered_tokens(num_prefix_tokens=2)
    output = TokenReorganization(0.5, num_prefix_tokens=2)(tokens, attention)
    np.testing.assert_allclose(output[0, :, 0], [9.0, 8.0, 1.0, 3.0, 0.4], rtol=1e-6)


def test_says_which_tokens_stayed_by_hand():
    tokens, attention = numbered_tokens(num_prefix_tokens=2)
    layer = TokenReorganization(0.75, num_prefix_tokens=2)
    output, kept = layer(tokens, attention, return_indices=True)
    np.testing.assert_array_equal(kept, [[1, 3, 2]])  # among the patches alone
    assert kept.dtype == "int32"
    np.testing.assert_array_equal(output, layer(tokens, attention))


def test_of_equal_tokens_the_first_stay():
    tokens, _ = numbered_tokens()
    attention = np.full((1, 4), 0.25, "float32")
    _, kept = TokenReorganization(0.5)(tokens, attention, return_indices=True)
    np.testing.assert_array_equal(kept, [[0, 1]])


@pytest.mark.parametrize("fuse", [True, False])
def test_is_the_identity_at_rate_one(fuse):
    tokens, attention = random_inputs()
    layer = TokenReorganization(fuse=fuse)
    output, kept = layer(tokens, attention, return_indices=True)
    np.testing.assert_array_equal(output, tokens)
    np.testing.assert_array_equal(layer(tokens, attention), tokens)
    np.testing.assert_array_equal(kept, np.argsort(-attention, axis=1))


def test_is_the_identity_where_the_ceiling_keeps_all():
    tokens, attention = random_inputs()
    # ceil(0.9 * 7) = 7
    output = TokenReorganization(0.9)(tokens, attention)
    np.testing.assert_array_equal(output, tokens)


@pytest.mark.parametrize("num_prefix_tokens", [1, 2])
@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize(("rate", "num_kept"), [(0.01, 1), (0.5, 4), (0.8, 6)])
def test_equals_the_official_algorithm(num_prefix_tokens, fuse, rate, num_kept):
    inputs = random_inputs(num_prefix_tokens=num_prefix_tokens)
    output = TokenReorganization(rate, num_prefix_tokens, fuse)(*inputs)
    expected = reorganized_in_numpy(*inputs, num_kept, num_prefix_tokens, fuse)
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-6)


def test_the_fused_tokens_are_the_complement_of_the_golden():
    # Kept [[3, 0], [1, 4]] of 5, so [[1, 2, 4], [0, 2, 3]] melt.
    attention = np.array([[8, 1, 1, 9, 1], [1, 9, 1, 1, 8]], "float32")
    tokens = np.tile(10.0 ** np.arange(-1, 5)[:, None], (2, 1, 1))
    layer = TokenReorganization(keep_rate=0.4)
    output, kept = layer(tokens, attention, return_indices=True)
    np.testing.assert_array_equal(kept, [[3, 0], [1, 4]])
    np.testing.assert_allclose(output[:, -1, 0], [10110, 1101], rtol=1e-6)


@pytest.mark.parametrize("fuse", [True, False])
def test_the_rate_of_a_call_comes_before_that_of_the_layer(fuse):
    inputs = random_inputs()
    layer = TokenReorganization(0.5, fuse=fuse)
    other = TokenReorganization(0.3, fuse=fuse)
    np.testing.assert_array_equal(layer(*inputs, keep_rate=0.3), other(*inputs))
    np.testing.assert_array_equal(layer(*inputs, keep_rate=1.0), inputs[0])
    symbols = [keras.Input(x.shape[1:]) for x in inputs]
    output, kept = layer(*symbols, keep_rate=0.3, return_indices=True)
    assert (output.shape, kept.shape) == ((None, 1 + 3 + fuse, 4), (None, 3))
    assert layer(*symbols, keep_rate=1.0).shape == (None, 8, 4)


@pytest.mark.parametrize(
    ("rate", "fused", "unfused"),
    [
        (1.0, [196, 196, 196], [196, 196, 196]),
        (0.9, [178, 162, 147], [177, 160, 144]),
        (0.8, [158, 128, 104], [157, 126, 101]),
        (0.7, [139, 99, 71], [138, 97, 68]),
        (0.6, [119, 73, 45], [118, 71, 43]),
        (0.5, [99, 51, 27], [98, 49, 25]),
    ],
)
def test_counts_are_those_of_the_official_models(rate, fused, unfused):
    for counts, fuse in ((fused, True), (unfused, False)):
        num_tokens = 196
        layer = TokenReorganization(rate, fuse=fuse)
        for count in counts:
            num_kept = num_kept_tokens(num_tokens, rate)
            shape = layer.compute_output_shape((2, 1 + num_tokens, 8), (2, num_tokens))
            num_tokens = num_kept + (fuse and num_kept < num_tokens)
            assert num_tokens == count == shape[1] - 1


def test_the_ceiling_is_taken_in_doubles():
    # 0.55 * 100 = 55.00000000000001 as a double; 0.7 * 10 = 7, though 7.0000002 as
    # a product of singles.
    assert [num_kept_tokens(100, 0.55), num_kept_tokens(10, 0.7)] == [56, 7]
    assert [num_kept_tokens(4, 1e-9), num_kept_tokens(4, 1)] == [1, 4]
    assert all(type(num_kept_tokens(n, r)) is int for n, r in ((4, 1), (4, 0.5)))


@pytest.mark.parametrize("fuse", [True, False])
def test_gradients_flow_through_tokens_and_attention(fuse):
    tokens, attention = map(tf.constant, random_inputs(batch=2))
    layer = TokenReorganization(0.5, fuse=fuse)
    rng = np.random.default_rng(1)
    slope = rng.normal(size=(2, 1 + 4 + fuse, 4)).astype("float32")
    signature = [tf.TensorSpec((None, *x.shape[1:])) for x in (tokens, attention)]

    @tf.function(input_signature=signature)
    def gradients(tokens, attention):
        with tf.GradientTape() as tape:
            tape.watch([tokens, attention])
            loss = tf.reduce_sum(slope * layer(tokens, attention))
        inputs = [tokens, attention]
        return tape.gradient(loss, inputs, unconnected_gradients="zero")

    of_tokens, of_attention = map(np.array, gradients(tokens, attention))
    # d loss / d x: the slope where the token went, times its attention if it melted.
    # d loss / d a: of a token that melted, its product with the slope there.
    for image in range(2):
        order = np.argsort(-attention[image])
        kept, melted = order[:4], order[4:]
        assert not np.any(of_attention[image, kept])
        expected = np.zeros((8, 4), "float32")
        expected[[0, *(1 + kept)]] = slope[image, :5]
        if fuse:
            last, a = slope[image, -1], np.array(attention)[image, melted]
            expected[1 + melted] = a[:, None] * last
            products = np.array(tokens)[image, 1 + melted] @ last
            np.testing.assert_allclose(of_attention[image, melted], products, rtol=1e-5)
        np.testing.assert_allclose(of_tokens[image], expected, rtol=1e-5)
    assert np.any(of_attention) == fuse


def test_gathers_as_numpy_does():
    rng = np.random.default_rng(0)
    tokens = rng.normal(size=(3, 5, 4)).astype("float32")
    for num_taken in (1, 3, 5):
        indices = rng.permuted(np.tile(np.arange(5), (3, 1)), axis=1)[:, :num_taken]
        expected = np.take_along_axis(tokens, indices[..., None], axis=1)
        for dtype in ("int32", "int64"):
            output = gather_tokens(tf.constant(tokens), tf.constant(indices, dtype))
            np.testing.assert_array_equal(output, expected)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_ranks_and_fuses_in_float32_under_half_precision(policy):
    layer = TokenReorganization(0.5, dtype=policy)
    # 0.5, and 0.5 with numbers added that half precision does not have.
    attention = np.array([[0.5, 0.5 + 1e-6, 0.5 - 1e-6, 0.5 + 2e-6]], "float32")
    tokens = np.array([[[9.0], [256.0], [1.0], [2.0], [3.0]]], "float32")
    output, kept = layer(tokens, attention, return_indices=True)
    np.testing.assert_array_equal(kept, [[3, 1]])
    np.testing.assert_array_equal(tf.cast(output[0, :4, 0], "float32"), [9, 3, 1, 129])
    assert output.dtype == policy.removeprefix("mixed_")


def test_fused_weights_are_not_rounded_to_half_precision():
    layer = TokenReorganization(0.01, dtype="mixed_bfloat16")
    # In bfloat16, 1 + 2^-9 is 1, and so the 64 tokens would sum to 0 and not 1/16.
    attention = np.float32([[2.0, *[1 + 2**-9, 1.0] * 32]])
    tokens = np.float32([0.0, 0.0, *[1.0, -1.0] * 32]).reshape(1, -1, 1)
    output = layer(tokens, attention)
    np.testing.assert_array_equal(tf.cast(output[0, :, 0], "float32"), [0, 0, 2**-4])


@pytest.mark.parametrize("fuse", [True, False])
def test_takes_a_batch_of_unknown_size(fuse):
    layer = TokenReorganization(0.5, num_prefix_tokens=2, fuse=fuse)
    signature = [tf.TensorSpec((None, 9, 4)), tf.TensorSpec((None, 7))]
    traced = tf.function(layer, input_signature=signature)
    for batch in (1, 3):
        inputs = random_inputs(batch, num_prefix_tokens=2)
        np.testing.assert_allclose(traced(*inputs), layer(*inputs), rtol=1e-6)


@pytest.mark.parametrize("num_prefix_tokens", [1, 2])
@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("rate", [1.0, 0.5])
def test_holds_the_contract(num_prefix_tokens, fuse, rate):
    inputs = random_inputs(num_prefix_tokens=num_prefix_tokens)
    layer = TokenReorganization(rate, num_prefix_tokens, fuse)
    hold_layer_to_contract(layer, *inputs)
    hold_layer_to_contract(layer, *inputs, keep_rate=0.3, return_indices=True)


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.5, math.nan])
def test_refuses_a_rate_that_keeps_nothing_or_too_much(rate):
    rule = r"`keep_rate` must be in \(0, 1\]. "
    received = f"Received: keep_rate={rate}"
    with pytest.raises(ValueError, match=rule + received):
        TokenReorganization(rate)
    with pytest.raises(ValueError, match=rule + received):
        TokenReorganization()(*random_inputs(), keep_rate=rate)


def test_refuses_to_have_no_prefix_token():
    rule = "`num_prefix_tokens` must be at least 1: there is a class token. "
    with pytest.raises(ValueError, match=f"{rule}Received: num_prefix_tokens=0"):
        TokenReorganization(keep_rate=0.5, num_prefix_tokens=0)
