import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_deit.layers.soft_split import SoftSplit, split_grid, split_padding
from tests.contracts import hold_layer_to_contract

SPLITS = [(7, 4), (3, 2), (3, 1), (2, 1), (4, 4), (5, 2), (4, 3)]


def random_grid(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def patches_by_tensorflow(grid, kernel_size, stride):
    """Zeros on all four sides, and channels before places within each patch."""
    sides = (split_padding(kernel_size, stride),) * 2
    patches = tf.image.extract_patches(
        np.pad(grid, ((0, 0), sides, sides, (0, 0))),
        sizes=(1, kernel_size, kernel_size, 1),
        strides=(1, stride, stride, 1),
        rates=(1, 1, 1, 1),
        padding="VALID",
    ).numpy()
    batch, rows, columns, _ = patches.shape
    channels = grid.shape[-1]
    patches = patches.reshape(batch, rows * columns, kernel_size**2, channels)
    return patches.swapaxes(2, 3).reshape(batch, rows * columns, -1)


def test_one_zero_on_each_side_by_hand():
    # 0 0 0 0
    # 0 1 2 0    padding ceil((2 - 1) / 2) = 1: nine patches of 2 x 2, row by row
    # 0 3 4 0
    # 0 0 0 0
    output = SoftSplit(kernel_size=2, stride=1)(np.array([[[[1.0], [2]], [[3], [4]]]]))
    expected = [
        [[0, 0, 0, 1], [0, 0, 1, 2], [0, 0, 2, 0]],
        [[0, 1, 0, 3], [1, 2, 3, 4], [2, 0, 4, 0]],
        [[0, 3, 0, 0], [3, 4, 0, 0], [4, 0, 0, 0]],
    ]
    np.testing.assert_array_equal(output, np.reshape(expected, (1, 9, 4)))


def test_a_token_holds_channel_after_channel_by_hand():
    grid = np.array([[[[1.0, 5.0], [2.0, 6.0]], [[3.0, 7.0], [4.0, 8.0]]]])
    output = SoftSplit(kernel_size=2, stride=2)(grid)
    np.testing.assert_array_equal(output, [[[1, 2, 3, 4, 5, 6, 7, 8]]])


def test_patches_of_side_one_are_the_grid_itself():
    grid = random_grid(2, 3, 4, 5)
    output = SoftSplit(kernel_size=1, stride=1)(grid)
    np.testing.assert_array_equal(output, grid.reshape(2, 12, 5))


def test_without_overlap_the_patches_are_plain():
    grid = random_grid(2, 6, 9, 2)
    output = SoftSplit(kernel_size=3, stride=3)(grid)
    plain = grid.reshape(2, 2, 3, 3, 3, 2).transpose(0, 1, 3, 5, 2, 4)
    np.testing.assert_array_equal(output, plain.reshape(2, 6, 18))


@pytest.mark.parametrize("split", SPLITS, ids=str)
@pytest.mark.parametrize("size", [(8, 8), (8, 16), (16, 8), (24, 12), (7, 11)])
@pytest.mark.parametrize("channels", [1, 3])
def test_equals_tensorflow_element_for_element(split, size, channels):
    grid = random_grid(2, *size, channels)
    layer = SoftSplit(*split)
    expected = patches_by_tensorflow(grid, *split)
    np.testing.assert_array_equal(layer(grid), expected)
    assert layer.compute_output_shape(grid.shape) == expected.shape


@pytest.mark.parametrize("split", [(3, 1), (5, 1), (4, 2)], ids=str)
def test_mirroring_the_grid_mirrors_tokens_and_patches(split):
    grid = random_grid(1, 6, 8, 1)
    rows, columns = split_grid((6, 8), *split)
    side = split[0]

    def patches(x):
        output = SoftSplit(*split)(x).numpy()
        return output.reshape(rows, columns, side, side)

    mirrored = patches(grid[:, ::-1, ::-1])
    np.testing.assert_array_equal(mirrored, patches(grid)[::-1, ::-1, ::-1, ::-1])


def test_pixels_lie_in_as_many_patches_as_overlap_there():
    layer = SoftSplit(kernel_size=3, stride=2)
    grid = tf.constant(random_grid(1, 4, 6, 1))
    with tf.GradientTape() as tape:
        tape.watch(grid)
        total = tf.reduce_sum(layer(grid))
    # Patches begin at -1, 1, 3: pixels 0, 2, 4 lie in one, pixels 1, 3 in two; the
    # last one, 3 or 5, in one, since no patch begins there.
    expected = np.outer([1, 2, 1, 1], [1, 2, 1, 2, 1, 1])
    np.testing.assert_array_equal(tape.gradient(total, grid)[0, ..., 0], expected)


@pytest.mark.parametrize("size", [(224, 224), (384, 192)])
def test_each_official_split_divides_both_sides_by_its_stride(size):
    for kernel_size, stride in ((7, 4), (3, 2), (3, 2)):
        before, size = size, split_grid(size, kernel_size, stride)
        assert size == (before[0] // stride, before[1] // stride)


def test_takes_a_batch_of_unknown_size():
    layer = SoftSplit(kernel_size=3, stride=2)
    signature = [tf.TensorSpec((None, 4, 6, 2), "float32")]
    traced = tf.function(layer, input_signature=signature)
    for batch in (1, 3):
        grid = random_grid(batch, 4, 6, 2)
        np.testing.assert_array_equal(traced(grid), layer(grid))
    assert tuple(layer(keras.Input((4, 6, 2))).shape) == (None, 6, 18)


def test_has_no_weights():
    layer = SoftSplit(kernel_size=7, stride=4)
    layer.build((None, 16, 32, 3))
    assert layer.weights == []


@pytest.mark.parametrize("split", [(7, 4), (3, 2), (3, 1)], ids=str)
def test_holds_the_contract(split):
    hold_layer_to_contract(SoftSplit(*split), random_grid(2, 12, 8, 3))


@pytest.mark.parametrize("stride", [0, 4, -1])
def test_refuses_a_stride_that_leaves_gaps(stride):
    rule = r"`stride` must be in \[1, kernel_size\]. "
    received = f"Received: stride={stride}, kernel_size=3"
    with pytest.raises(ValueError, match=rule + received):
        SoftSplit(kernel_size=3, stride=stride)


@pytest.mark.parametrize("size", [(None, 8), (8, None), (2, 8), (8, 2)])
def test_refuses_a_grid_unknown_or_smaller_than_a_patch(size):
    rule = "The padded grid must have a known size, at least that of a patch. "
    received = rf"Received: grid=\({size[0]}, {size[1]}\), kernel_size=7"
    with pytest.raises(ValueError, match=rule + received):
        SoftSplit(kernel_size=7, stride=4).build((None, *size, 3))


def test_takes_a_grid_of_as_little_as_the_padding_makes_a_patch_of():
    # 3 + 2 * 2 zeros = 7, one patch, as `nn.Unfold` has it.
    assert SoftSplit(7, 4)(np.ones((1, 3, 3, 1))).shape == (1, 1, 49)


def test_refuses_a_grid_of_another_size_than_it_was_built_for():
    layer = SoftSplit(3, 2)
    layer(np.ones((1, 8, 4, 1)))
    with pytest.raises(ValueError, match=r"expected shape=\(None, 8, 4, 1\)"):
        layer(np.ones((1, 4, 8, 1)))
