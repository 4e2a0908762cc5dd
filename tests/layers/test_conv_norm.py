import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_deit.layers.conv_norm import ConvNorm, GroupedConv2D, strided_shape
from tests.contracts import fill, hold_layer_to_contract


def features(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def block_diagonal(kernel, groups):
    """The kernel of a dense convolution that does what the grouped one does."""
    side, _, group_channels, filters = kernel.shape
    dense = np.zeros((side, side, group_channels * groups, filters), "float32")
    group_filters = filters // groups
    for group in range(groups):
        rows = slice(group * group_channels, (group + 1) * group_channels)
        columns = slice(group * group_filters, (group + 1) * group_filters)
        dense[:, :, rows, columns] = kernel[..., columns]
    return dense


def pixelwise_conv_norm(**arguments):
    """A 1 x 1 convolution of one channel that changes nothing, then the rest."""
    layer = ConvNorm(1, 1, **arguments)
    layer.build((None, 1, 2, 1))
    layer.conv.kernel.assign([[[[1.0]]]])
    return layer


def test_pads_both_sides_alike_at_stride_two_by_hand():
    layer = GroupedConv2D(1, 3, strides=2)
    layer.build((None, 4, 4, 1))
    layer.kernel.assign(np.ones((3, 3, 1, 1)))
    # Windows start at -1 and 1, so the first sees one row and column of zeros:
    # 2 x 2, 2 x 3, 3 x 2, 3 x 3 ones. "same" would start at 0 and 2: [[9, 6], [6, 4]].
    output = layer(np.ones((1, 4, 4, 1)))
    np.testing.assert_array_equal(output[0, ..., 0], [[4, 6], [6, 9]])


def test_groups_do_not_mix_by_hand():
    layer = GroupedConv2D(4, 1, groups=2)
    layer.build((None, 1, 1, 2))
    layer.kernel.assign([[[[1.0, 2.0, 3.0, 4.0]]]])
    # Channel 10 feeds filters 1 and 2, channel 100 feeds filters 3 and 4.
    output = layer(np.array([[[[10.0, 100.0]]]]))
    np.testing.assert_array_equal(output[0, 0, 0], [10, 20, 300, 400])


@pytest.mark.parametrize("side", [5, 6])
@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize(("kernel_size", "groups"), [(1, 1), (3, 1), (3, 2), (5, 4)])
def test_equals_a_dense_convolution(kernel_size, groups, strides, side):
    layer = GroupedConv2D(12, kernel_size, strides, groups)
    x = features(2, side, 7, 8)
    output = layer(x)
    pad = kernel_size // 2
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    dense = keras.layers.Conv2D(12, kernel_size, strides, use_bias=False)
    dense.build(padded.shape)
    fill(dense, block_diagonal(layer.kernel.numpy(), groups))
    np.testing.assert_allclose(output, dense(padded), rtol=1e-4, atol=1e-5)


def test_gradient_reaches_every_group_and_the_input():
    layer = GroupedConv2D(4, 3, groups=2)
    x = tf.constant(features(1, 4, 4, 4))
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(layer(x) ** 2)
    for gradient in tape.gradient(loss, [layer.kernel.value, x]):
        assert np.all(np.any(np.abs(gradient) > 0, axis=(0, 1, 2)))


def test_starts_normal_with_the_fan_out_of_a_group():
    keras.utils.set_random_seed(0)
    layer = GroupedConv2D(64, 3, groups=4)
    layer.build((None, 8, 8, 128))
    kernel = layer.kernel.numpy()
    std = (2 / (3 * 3 * 64 / 4)) ** 0.5
    np.testing.assert_allclose(kernel.std(), std, rtol=0.05)
    assert np.abs(kernel).max() > 2.5 * std
    assert kernel.shape == (3, 3, 32, 64)


@pytest.mark.parametrize(
    ("strides", "expected"),
    [(1, (None, 5, 8, 3)), (2, (None, 3, 4, 3)), (4, (None, 2, 2, 3))],
)
def test_sides_are_divided_and_rounded_up(strides, expected):
    assert strided_shape((None, 5, 8, 9), strides, 3) == expected


def test_sides_may_be_unknown():
    assert strided_shape((None, None, None, 9), 2, 3) == (None, None, None, 3)


def test_running_statistics_keep_nine_tenths_by_hand():
    layer = pixelwise_conv_norm()
    layer(np.full((4, 1, 2, 1), 10.0), training=True)
    # Mean 0.9 * 0 + 0.1 * 10, variance 0.9 * 1 + 0.1 * 0.
    np.testing.assert_allclose(layer.norm.moving_mean, [1.0], rtol=1e-6)
    np.testing.assert_allclose(layer.norm.moving_variance, [0.9], rtol=1e-6)


def test_normalizes_with_its_epsilon_by_hand():
    layer = pixelwise_conv_norm(use_relu=False)
    layer.norm.moving_mean.assign([1.0])
    layer.norm.moving_variance.assign([3e-5])
    # (2 - 1) / sqrt(3e-5 + 1e-5) = 158.11, and its negative for 0.
    output = layer(np.array([[[[2.0], [0.0]]]]))
    np.testing.assert_allclose(output[0, 0, :, 0], [158.1139, -158.1139], rtol=1e-5)


def test_relu_cuts_the_negative_where_asked():
    x = np.array([[[[2.0], [-2.0]]]])
    root = (1 + 1e-5) ** 0.5
    output = pixelwise_conv_norm(use_relu=True)(x)
    np.testing.assert_allclose(output[0, 0, :, 0], [2 / root, 0], rtol=1e-6)
    output = pixelwise_conv_norm(use_relu=False)(x)
    np.testing.assert_allclose(output[0, 0, :, 0], [2 / root, -2 / root], rtol=1e-6)


def test_starts_as_nothing_with_a_zero_scale():
    x = features(2, 4, 4, 4)
    assert np.any(ConvNorm(8, 3)(x))
    np.testing.assert_array_equal(ConvNorm(8, 3, zero_scale=True)(x), 0.0)


def test_has_no_bias_before_the_normalization():
    layer = ConvNorm(8, 3, strides=2, groups=2)
    layer.build((None, 4, 4, 4))
    assert [w.path.split("/")[-2:] for w in layer.trainable_weights] == [
        ["conv", "kernel"],
        ["norm", "gamma"],
        ["norm", "beta"],
    ]
    assert (layer.conv.strides, layer.conv.groups) == (2, 2)


def test_grouped_convolution_holds_the_contract():
    layer = GroupedConv2D(6, 3, strides=2, groups=2)
    hold_layer_to_contract(layer, features(2, 5, 6, 4))


@pytest.mark.parametrize("arguments", [{}, {"use_relu": False, "zero_scale": True}])
def test_conv_norm_holds_the_contract(arguments):
    layer = ConvNorm(6, 3, strides=2, groups=2, **arguments)
    hold_layer_to_contract(layer, features(2, 5, 6, 4))


def test_refuses_an_even_kernel():
    rule = "`kernel_size` must be odd, so that padding is symmetric. "
    with pytest.raises(ValueError, match=f"{rule}Received: kernel_size=2"):
        GroupedConv2D(4, 2)


@pytest.mark.parametrize(("channels", "filters"), [(4, 6), (6, 4)])
def test_refuses_groups_that_do_not_divide_the_channels(channels, filters):
    rule = "`groups` must divide the input channels and `filters`. "
    received = f"Received: groups=3, channels={channels}, filters={filters}"
    with pytest.raises(ValueError, match=rule + received):
        GroupedConv2D(filters, 3, groups=3).build((None, 8, 8, channels))
