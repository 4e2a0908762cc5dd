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


def block_with_constant_branches(**arguments):
    """Attention adds 1 to every number, the MLP adds 10, whatever the tokens."""
    block = EncoderBlock(num_heads=1, **arguments)
    block.build((None, 3, 2))
    block.attention.projection.kernel.assign(np.zeros((2, 2)))
    block.attention.projection.bias.assign([1.0, 1.0])
    block.mlp.fc2.kernel.assign(np.zeros((8, 2)))
    block.mlp.fc2.bias.assign([10.0, 10.0])
    return block


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
    rng = np.random.default_rng(0)
    block = EncoderBlock(num_heads=2, mlp_ratio=1.5)
    block.build((None, 5, 8))
    fill(block, *(rng.normal(size=w.shape) for w in block.weights))
    # At scale 1e-3 the variance is as small as epsilon, which then counts.
    tokens = (scale * rng.normal(size=(2, 5, 8))).astype("float32")
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
    tokens = np.random.default_rng(0).normal(size=(2, 5, 8)).astype("float32")
    hold_layer_to_contract(block, tokens)


@pytest.mark.parametrize("rate", [-0.1, 1.5])
def test_refuses_a_drop_path_rate_that_is_no_share(rate):
    rule = r"`drop_path_rate` must be in \[0, 1\]. "
    with pytest.raises(ValueError, match=f"{rule}Received: drop_path_rate={rate}"):
        EncoderBlock(num_heads=2, drop_path_rate=rate)


def test_refuses_a_width_that_heads_do_not_divide():
    rule = "`embed_dim` must be a multiple of `num_heads`. "
    with pytest.raises(ValueError, match=f"{rule}Received: embed_dim=8, num_heads=3"):
        EncoderBlock(num_heads=3).build((None, 5, 8))
