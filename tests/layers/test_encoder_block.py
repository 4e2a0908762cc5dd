import math

import keras
import numpy as np
import pytest

from keras_deit.layers.encoder_block import EncoderBlock
from tests.contracts import fill, hold_layer_to_contract


def normalized(tokens, gamma, beta, epsilon=1e-6):
    mean = tokens.mean(axis=-1, keepdims=True)
    return (tokens - mean) / np.sqrt(
        tokens.var(-1, keepdims=True) + epsilon
    ) * gamma + beta


def block_with_constant_branches(num_tokens=3, **arguments):
    """Attention adds 1 to every number, the MLP adds 10, whatever the tokens."""
    block = EncoderBlock(num_heads=1, **arguments)
    block.build((None, num_tokens, 2))
    block.attention.projection.kernel.assign(np.zeros((2, 2)))
    block.attention.projection.bias.assign([1.0, 1.0])
    block.mlp.fc2.kernel.assign(np.zeros((8, 2)))
    block.mlp.fc2.bias.assign([10.0, 10.0])
    return block


def block_with_random_weights(num_tokens=7, num_heads=2, **arguments):
    rng = np.random.default_rng(0)
    block = EncoderBlock(num_heads, **arguments)
    block.build((None, num_tokens, 8))
    fill(block, *(rng.normal(size=w.shape) for w in block.weights))
    return block


def random_tokens(num_tokens=7, batch=2):
    rng = np.random.default_rng(1)
    return rng.normal(size=(batch, num_tokens, 8)).astype("float32")


def attention_maps(block, x):
    """Softmax over the keys of each head, in NumPy: (B, h, T, T)."""
    kernel, bias = block.attention.qkv.get_weights()
    batch, length, dim = x.shape
    qkv = (x @ kernel + bias).reshape(batch, length, 3, block.num_heads, -1)
    q, k, _ = qkv.transpose(2, 0, 3, 1, 4)
    maps = np.exp(q @ k.swapaxes(-1, -2) / math.sqrt(dim // block.num_heads))
    return maps / maps.sum(axis=-1, keepdims=True)


def added_to_each_image(block, training, num_images=400):
    tokens = np.zeros((num_images, 3, 2), "float32")
    added = block(tokens, training=training).numpy()
    per_image = added[:, 0, 0]
    np.testing.assert_array_equal(added, added[:, :1, :1] + tokens)  # whole images
    return np.round(per_image, 3)


def test_adds_both_branches_to_the_tokens():
    block = block_with_constant_branches()
    # 5 + 1 (attention) + 10 (MLP)
    np.testing.assert_allclose(block(np.full((1, 3, 2), 5.0)), np.full((1, 3, 2), 16.0))


@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_equals_its_composition_in_numpy(scale):
    block = block_with_random_weights(mlp_ratio=1.5)
    # At scale 1e-3 the variance is as small as epsilon, which then counts.
    tokens = np.float32(scale) * random_tokens()
    x = tokens + block.attention(normalized(tokens, *block.norm1.get_weights())).numpy()
    x = x + block.mlp(normalized(x, *block.norm2.get_weights())).numpy()
    np.testing.assert_allclose(block(tokens), x, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("epsilon", [1e-6, 1e-5])
def test_normalizes_with_the_epsilon_that_was_asked_for(epsilon):
    block = EncoderBlock(num_heads=1, norm_epsilon=epsilon)
    block.build((None, 1, 2))
    # The token (-a, a) has mean 0 and variance a^2 = epsilon: a / sqrt(2 epsilon).
    a = epsilon**0.5
    for norm in (block.norm1, block.norm2):
        output = norm(np.array([[[-a, a]]], "float32"))
        np.testing.assert_allclose(output[0, 0], [-(0.5**0.5), 0.5**0.5], rtol=1e-4)


def test_passes_its_arguments_on():
    block = EncoderBlock(
        4, mlp_ratio=2.5, drop_rate=0.1, qkv_bias=False, num_prefix_tokens=2
    )
    block.build((None, 5, 8))
    assert block.attention.num_heads == 4
    assert block.attention.qkv.bias is None
    assert block.attention.num_prefix_tokens == 2
    assert block.mlp.hidden_dim == 20
    assert block.mlp.drop_rate == 0.1


def test_drops_each_branch_of_each_image_on_its_own_in_training():
    keras.utils.set_random_seed(0)
    block = block_with_constant_branches(drop_path_rate=0.5)
    # Each branch is dropped or doubled: 0 or 2, plus 0 or 20; a quarter of each.
    added, counts = np.unique(added_to_each_image(block, True), return_counts=True)
    np.testing.assert_array_equal(added, [0.0, 2.0, 20.0, 22.0])
    assert np.all((counts >= 70) & (counts <= 130))  # 100 expected, 3.5 sigma


def test_divides_what_stays_by_its_chance_to_stay():
    keras.utils.set_random_seed(0)
    block = block_with_constant_branches(drop_path_rate=0.2)
    added = added_to_each_image(block, True)
    assert set(added) == {0.0, 1.25, 12.5, 13.75}
    assert 0.56 < np.mean(added == 13.75) < 0.72  # 0.8 * 0.8


def test_draws_anew_at_each_call():
    keras.utils.set_random_seed(0)
    block = block_with_constant_branches(drop_path_rate=0.5)
    first, second = (added_to_each_image(block, True) for _ in range(2))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(("rate", "training"), [(0.5, False), (0.0, True)])
def test_drops_nothing_in_inference_or_at_rate_zero(rate, training):
    block = block_with_constant_branches(drop_path_rate=rate)
    np.testing.assert_array_equal(added_to_each_image(block, training), 11.0)


def test_drops_everything_at_rate_one():
    block = block_with_constant_branches(drop_path_rate=1.0)
    np.testing.assert_array_equal(added_to_each_image(block, True), 0.0)


def test_reorganizes_between_the_branches_by_hand():
    block = block_with_constant_branches(num_tokens=5, keep_rate=0.5)
    # Normalized, the tokens are zero: each attends with 1/5 to each, the first stay.
    tokens = np.reshape([9.0, 1.0, 2.0, 3.0, 4.0], (1, 5, 1)) + np.zeros((1, 1, 2))
    # After the attention 10, 2, 3, 4, 5; the last two melt into (4 + 5) / 5 = 1.8.
    expected = np.reshape([20.0, 12.0, 13.0, 11.8], (1, 4, 1)) + np.zeros((1, 1, 2))
    np.testing.assert_allclose(block(tokens)[0], expected, rtol=1e-6)
    without = block_with_constant_branches(num_tokens=5, keep_rate=0.5, fuse=False)
    np.testing.assert_allclose(without(tokens)[0], expected[:, :3], rtol=1e-6)


@pytest.mark.parametrize("num_prefix_tokens", [1, 2])
@pytest.mark.parametrize("fuse", [True, False])
def test_ranks_by_the_attention_of_all_prefix_tokens(num_prefix_tokens, fuse):
    prefix = num_prefix_tokens
    block = block_with_random_weights(
        num_prefix_tokens=prefix, keep_rate=0.5, fuse=fuse
    )
    tokens = random_tokens()
    x = normalized(tokens, *block.norm1.get_weights())
    row = attention_maps(block, x)[:, :, :prefix, prefix:].mean(axis=(1, 2))
    order = np.argsort(-row, axis=1)
    x = tokens + block.attention(x).numpy()
    patches = np.take_along_axis(x[:, prefix:], order[..., None], axis=1)
    row = np.take_along_axis(row, order, axis=1)[..., None]
    parts = [x[:, :prefix], patches[:, :3]]  # 3 of 6, or of 5
    if fuse:
        parts.append((row * patches)[:, 3:].sum(axis=1, keepdims=True))
    x = np.concatenate(parts, axis=1)
    x = x + block.mlp(normalized(x, *block.norm2.get_weights())).numpy()
    output, kept = block(tokens)
    np.testing.assert_array_equal(kept, order[:, :3])
    np.testing.assert_allclose(output, x, rtol=1e-4, atol=1e-3)


def test_golden_of_a_block_that_reorganizes():
    block = EncoderBlock(num_heads=2, norm_epsilon=1e-5, keep_rate=0.5)
    block.build((None, 6, 4))
    # As the official parameters are sorted; a linear weight there is (out, in).
    dense = (
        block.attention.projection,
        block.attention.qkv,
        block.mlp.fc1,
        block.mlp.fc2,
    )
    weights = [weight for layer in dense for weight in (layer.bias, layer.kernel)]
    norms = (block.norm1, block.norm2)
    weights += [weight for norm in norms for weight in (norm.beta, norm.gamma)]
    for index, weight in enumerate(weights):
        values = 0.3 * np.sin(0.37 * np.arange(math.prod(weight.shape)) + index)
        weight.assign(values.reshape(weight.shape[::-1]).T + (weight.name == "gamma"))
    tokens = np.cos(0.21 * np.arange(24)).reshape(1, 6, 4)
    output, kept = block(tokens)
    expected = [
        [0.3005, 0.7549, 1.2326, 1.2245],
        [-0.0394, 0.2760, 0.6340, 0.5309],
        [-0.8155, -0.5352, -0.1770, -0.2444],
        [-1.5121, -1.1387, -0.6606, -0.5859],
        [-0.7200, -0.4589, -0.1296, 0.1023],
    ]
    np.testing.assert_allclose(output[0], expected, atol=6e-5)
    np.testing.assert_array_equal(kept, [[0, 1, 2]])


def test_keep_rate_one_changes_no_bit():
    plain, keeping = (block_with_random_weights(keep_rate=k) for k in (None, 1.0))
    tokens = random_tokens()
    output, kept = keeping(tokens)
    np.testing.assert_array_equal(output, plain(tokens))
    np.testing.assert_array_equal(np.sort(kept), [np.arange(6)] * 2)


def test_the_rate_of_a_call_comes_before_that_of_the_block():
    tokens = random_tokens()
    block = block_with_random_weights(keep_rate=0.7)
    other = block_with_random_weights(keep_rate=0.3)
    for rate, same in ((0.3, other(tokens)), (None, block(tokens))):
        for one, another in zip(block(tokens, keep_rate=rate), same, strict=True):
            np.testing.assert_array_equal(one, another)
    plain = block_with_random_weights()
    np.testing.assert_array_equal(block(tokens, keep_rate=1.0)[0], plain(tokens))


@pytest.mark.parametrize("rate", [0.3, 1.0])
def test_a_block_without_a_rate_ignores_that_of_a_call(rate):
    block = block_with_random_weights()
    tokens = random_tokens()
    np.testing.assert_array_equal(block(tokens, keep_rate=rate), block(tokens))
    assert block(keras.Input((7, 8)), keep_rate=rate).shape == (None, 7, 8)


def test_declares_how_many_tokens_a_call_leaves():
    tokens = keras.Input((7, 8))
    block = EncoderBlock(num_heads=2, keep_rate=0.7, num_prefix_tokens=2)
    for rate, left, num_kept in ((None, 7, 4), (0.5, 6, 3), (0.3, 5, 2), (1.0, 7, 5)):
        output, kept = block(tokens, keep_rate=rate)
        assert output.shape == (None, left, 8)
        assert (kept.shape, kept.dtype) == ((None, num_kept), "int32")


def test_a_model_with_the_rate_of_a_call_is_saved_with_it(tmp_path):
    tokens = keras.Input((7, 8))
    output, kept = EncoderBlock(2, keep_rate=0.7)(tokens, keep_rate=0.5)
    model = keras.Model(tokens, [EncoderBlock(2)(output), kept])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for one, other in zip(model(random_tokens()), loaded(random_tokens()), strict=True):
        np.testing.assert_array_equal(one, other)
    assert model.output_shape == [(None, 1 + 3 + 1, 8), (None, 3)]


@pytest.mark.parametrize("rate", [None, 0.5])
def test_returns_the_attention_between_the_tokens_that_came_in(rate):
    block, tokens = block_with_random_weights(keep_rate=rate), random_tokens()
    *others, attention = block(tokens, return_attention=True)
    maps = attention_maps(block, normalized(tokens, *block.norm1.get_weights()))
    np.testing.assert_allclose(attention, maps, rtol=1e-4, atol=1e-6)
    without = block(tokens)
    without = (without,) if rate is None else without
    for one, same in zip(others, without, strict=True):
        np.testing.assert_array_equal(one, same)


def test_drops_whole_branches_before_it_reorganizes():
    block = block_with_constant_branches(
        num_tokens=5, keep_rate=0.5, drop_path_rate=0.5
    )
    output = block(np.zeros((400, 5, 2)), training=True)[0].numpy()
    # Attention adds 0 or 2, a sum of two fifths of it melts; the MLP adds 0 or 20.
    values = np.unique(np.round(output[:, [0, 3], 0], 3), axis=0)
    np.testing.assert_allclose(values, [[0, 0], [2, 0.8], [20, 20], [22, 20.8]])


def test_holds_the_contract():
    block = EncoderBlock(
        num_heads=2,
        mlp_ratio=2.0,
        drop_rate=0.1,
        drop_path_rate=0.2,
        qkv_bias=False,
        norm_epsilon=1e-5,
        num_prefix_tokens=2,
    )
    hold_layer_to_contract(block, random_tokens(5))


@pytest.mark.parametrize("fuse", [True, False])
def test_holds_the_contract_with_a_keep_rate(fuse):
    block = EncoderBlock(2, keep_rate=0.7, fuse=fuse, num_prefix_tokens=2)
    hold_layer_to_contract(block, random_tokens())
    hold_layer_to_contract(block, random_tokens(), keep_rate=0.5, return_attention=True)


def test_holds_the_contract_with_its_attention():
    hold_layer_to_contract(EncoderBlock(2), random_tokens(), return_attention=True)


@pytest.mark.parametrize("rate", [-0.1, 1.5])
def test_refuses_a_drop_path_rate_that_is_no_share(rate):
    rule = r"`drop_path_rate` must be in \[0, 1\]. "
    with pytest.raises(ValueError, match=f"{rule}Received: drop_path_rate={rate}"):
        EncoderBlock(num_heads=2, drop_path_rate=rate)


def test_refuses_a_width_that_heads_do_not_divide():
    rule = "`embed_dim` must be a multiple of `num_heads`. "
    with pytest.raises(ValueError, match=f"{rule}Received: embed_dim=8, num_heads=3"):
        EncoderBlock(num_heads=3).build((None, 5, 8))


@pytest.mark.parametrize("rate", [0.0, 1.5])
def test_refuses_a_keep_rate_that_keeps_nothing_or_too_much(rate):
    rule = rf"`keep_rate` must be in \(0, 1\]. Received: keep_rate={rate}"
    with pytest.raises(ValueError, match=rule):
        EncoderBlock(num_heads=2, keep_rate=rate)
    with pytest.raises(ValueError, match=rule):
        EncoderBlock(num_heads=2, keep_rate=0.5)(random_tokens(), keep_rate=rate)
