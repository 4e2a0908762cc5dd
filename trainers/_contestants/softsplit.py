"""Ways to split softly in TensorFlow; `worker.py` says how they are asked."""

import os
from functools import partial
from itertools import product

PACKAGES = ("tensorflow", "keras", "numpy")
PATH = ()


def tasks(how: str, batch_size: int, num_threads: int) -> dict:
    """The tasks: each stage, forward, and forward and backward.

    Args:
        how: One of `SPLITS`.
        batch_size: How many grids are split at once.
        num_threads: How many threads work.
    """
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # before TensorFlow looks for them
    import tensorflow as tf

    import keras_deit.layers.soft_split  # noqa: F401, not in the fork
    from trainers._contestants.soft_splits import STAGES, WAYS, task_name

    tf.config.threading.set_intra_op_parallelism_threads(num_threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    return {
        task_name(stage, way): partial(_step, how, stage, way, batch_size)
        for stage, way in product(STAGES, WAYS)
    }


def _step(how: str, stage: str, way: str, batch_size: int):
    import tensorflow as tf

    from trainers._contestants.soft_splits import STAGES, WAYS, checked_step, made_up

    split = SPLITS[how](*STAGES[stage][2:])
    grid, coming_back = map(tf.constant, made_up(stage, batch_size))

    @tf.function
    def forward(grid):
        return split(grid)

    @tf.function
    def both(grid, coming_back):
        with tf.GradientTape() as tape:
            tape.watch(grid)
            tokens = split(grid)
        # The tokens, too: a gradient alone would not need them.
        return tokens, tape.gradient(tokens, grid, output_gradients=coming_back)

    is_forward = way == WAYS[0]
    run = partial(forward, grid) if is_forward else partial(both, grid, coming_back)
    return checked_step(run, stage, way, batch_size)


def _ours(channels: int, kernel: int, stride: int):
    from keras_deit.layers.soft_split import SoftSplit

    return SoftSplit(kernel, stride)


def _tf_patches(channels: int, kernel: int, stride: int):
    import tensorflow as tf

    def split(grid):
        sizes, strides = ((1, side, side, 1) for side in (kernel, stride))
        patches = tf.image.extract_patches(
            _padded(grid, kernel, stride), sizes, strides, (1, 1, 1, 1), "VALID"
        )
        return _channel_after_channel(patches, channels, kernel)

    return split


def _keras_patches(channels: int, kernel: int, stride: int):
    from keras import ops

    def split(grid):
        grid = _padded(grid, kernel, stride)
        patches = ops.image.extract_patches(grid, kernel, stride, padding="valid")
        return _channel_after_channel(patches, channels, kernel)

    return split


def _slices(channels: int, kernel: int, stride: int):
    import tensorflow as tf

    def split(grid):
        grid = _padded(grid, kernel, stride)
        rows, columns = ((s - kernel) // stride + 1 for s in grid.shape[1:3])
        slices = [
            grid[:, i : i + stride * rows : stride, j : j + stride * columns : stride]
            for i in range(kernel)
            for j in range(kernel)
        ]
        return _channel_after_channel(tf.concat(slices, -1), channels, kernel)

    return split


def _depthwise(channels: int, kernel: int, stride: int):
    import numpy as np
    import tensorflow as tf

    # Channel c goes to the channels c * kernel^2 and after: each has one place of it.
    identity = np.eye(kernel**2, dtype=np.float32).reshape(kernel, kernel, 1, -1)
    identity = tf.constant(np.tile(identity, (1, 1, channels, 1)))

    def split(grid):
        patches = tf.nn.depthwise_conv2d(
            _padded(grid, kernel, stride), identity, (1, stride, stride, 1), "VALID"
        )
        return tf.reshape(patches, (len(patches), -1, channels * kernel**2))

    return split


def _padded(grid, kernel: int, stride: int):
    import tensorflow as tf

    from trainers._contestants.soft_splits import padding_of

    side = padding_of(kernel, stride)
    return tf.pad(grid, ((0, 0), (side, side), (side, side), (0, 0)))


def _channel_after_channel(patches, channels: int, kernel: int):
    """Tokens in our order, of patches whose places hold all their channels."""
    import tensorflow as tf

    number, rows, columns, _ = patches.shape
    x = tf.reshape(patches, (number, rows * columns, kernel**2, channels))
    x = tf.transpose(x, (0, 1, 3, 2))
    return tf.reshape(x, (number, rows * columns, channels * kernel**2))


SPLITS = {
    "gather (ours)": _ours,
    "tf.image.extract_patches": _tf_patches,
    "keras.ops.image.extract_patches": _keras_patches,
    "strided slices": _slices,
    "depthwise convolution": _depthwise,
}
