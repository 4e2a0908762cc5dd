import numpy as np
import pytest

from keras_deit.layers.regnet_block import RegNetBlock
from tests.contracts import fill, hold_layer_to_contract


def features(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def awake(block, x):
    """The block with a third convolution whose scale is not zero any more."""
    block.build(x.shape)
    block.conv3.norm.gamma.assign(np.linspace(0.5, 1.5, block.width))
    return block


def test_one_pixel_by_hand():
    block = RegNetBlock(1, strides=1, group_width=1, squeeze_ratio=1.0)
    block.build((None, 1, 1, 1))
    for conv in (block.conv1, block.conv2, block.conv3):
        conv.conv.kernel.assign(np.full(conv.conv.kernel.shape, 2.0))
        conv.norm.gamma.assign([(1 + 1e-5) ** 0.5])  # undoes epsilon
    fill(block.squeeze_excite, [[0.0]], [0.0], [[0.0]], [0.0])  # gate 0.5
    # f(3) = 3 * 2 * 2 / 2 * 2 = 12 (of the 3 x 3 kernel only the center sees it).
    # relu(3 + 12) = 15; f(-3) = 0 by the first ReLU, relu(-3 + 0) = 0.
    output = block(np.array([[[[3.0]]], [[[-3.0]]]]))
    np.testing.assert_allclose(output[:, 0, 0, 0], [15.0, 0.0], rtol=1e-6)


def test_starts_as_the_shortcut():
    x = features(2, 4, 4, 8)
    block = RegNetBlock(8, strides=1, group_width=4)
    np.testing.assert_array_equal(block(x), np.maximum(x, 0))
    block = RegNetBlock(8, strides=2, group_width=4)
    output = block(x)
    np.testing.assert_array_equal(output, np.maximum(block.shortcut(x), 0))


@pytest.mark.parametrize(("channels", "strides"), [(8, 1), (8, 2), (4, 1)])
def test_equals_the_composition_of_its_parts(channels, strides):
    x = features(2, 5, 6, channels)
    block = awake(RegNetBlock(8, strides, group_width=4), x)
    f = block.conv3(block.squeeze_excite(block.conv2(block.conv1(x))))
    shortcut = x if block.shortcut is None else block.shortcut(x)
    expected = np.maximum(np.asarray(shortcut) + np.asarray(f), 0)
    np.testing.assert_allclose(block(x), expected, rtol=1e-5, atol=1e-6)
    assert np.any(f)


@pytest.mark.parametrize(
    ("channels", "strides", "projected"),
    [(8, 1, False), (8, 2, True), (4, 1, True), (4, 2, True)],
)
def test_projects_the_shortcut_where_width_or_stride_changes(
    channels, strides, projected
):
    block = RegNetBlock(8, strides, group_width=4)
    block.build((None, 4, 4, channels))
    assert (block.shortcut is not None) == projected


def test_squeeze_width_follows_the_channels_that_enter_the_block():
    block = RegNetBlock(64, strides=2, group_width=16)
    block.build((None, 8, 8, 32))
    assert block.squeeze_excite.squeeze_dim == 8  # 32 / 4, not 64 / 4


def test_each_convolution_has_its_kernel_stride_groups_and_relu():
    block = RegNetBlock(24, strides=2, group_width=8)
    block.build((None, 8, 8, 16))
    convolutions = [block.conv1, block.conv2, block.conv3, block.shortcut]
    assert [
        (c.kernel_size, c.strides, c.groups, c.use_relu, c.zero_scale)
        for c in convolutions
    ] == [
        (1, 1, 1, True, False),
        (3, 2, 3, True, False),
        (1, 1, 1, False, True),
        (1, 2, 1, False, False),
    ]


def test_training_reaches_every_normalization():
    x = features(2, 4, 4, 4)
    block = awake(RegNetBlock(8, strides=2, group_width=4), x)
    convolutions = [block.conv1, block.conv2, block.conv3, block.shortcut]
    block(x, training=False)
    assert not any(np.any(c.norm.moving_mean) for c in convolutions)
    block(x, training=True)
    assert all(np.any(c.norm.moving_mean) for c in convolutions)


@pytest.mark.parametrize(("channels", "strides"), [(8, 1), (4, 2)])
def test_holds_the_contract(channels, strides):
    block = RegNetBlock(8, strides, group_width=4, squeeze_ratio=0.5)
    hold_layer_to_contract(block, features(2, 5, 6, channels))


def test_refuses_a_width_that_is_no_multiple_of_the_group_width():
    rule = "`width` must be a multiple of `group_width`. "
    with pytest.raises(ValueError, match=f"{rule}Received: width=12, group_width=8"):
        RegNetBlock(12, strides=1, group_width=8)
