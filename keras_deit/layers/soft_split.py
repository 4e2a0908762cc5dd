"""Overlapping patches of an image or of a grid of tokens, each flattened to a token."""

import keras
import numpy as np
from keras import ops

from keras_deit._checks import check


def split_padding(kernel_size: int, stride: int) -> int:
    """Zeros on each side, so that patches overlap at the borders as well.

    Example:
    >>> [split_padding(7, 4), split_padding(3, 2), split_padding(3, 1)]
    [2, 1, 1]
    """
    return -(-(kernel_size - stride) // 2)


def split_grid(grid: tuple[int, int], kernel_size: int, stride: int) -> tuple[int, int]:
    """Rows and columns of the patches of a grid of pixels or tokens.

    Example:
    >>> split_grid((224, 112), kernel_size=7, stride=4)
    (56, 28)
    """
    padding = split_padding(kernel_size, stride)
    rows, columns = ((s + 2 * padding - kernel_size) // stride + 1 for s in grid)
    return rows, columns


@keras.saving.register_keras_serializable(package="keras_deit")
class SoftSplit(keras.layers.Layer):
    """Cuts a grid into overlapping square patches and flattens each one to a token.

    The grid is padded with `ceil((kernel_size - stride) / 2)` zeros on all four sides.
    Tokens follow row by row; a token holds its patch channel after channel, each of
    them row by row.

    Args:
        kernel_size: Side of a patch.
        stride: Step from patch to patch; at most `kernel_size`.

    Call arguments:
        grid: Pixels, or tokens in their places, shape (B, H, W, C).

    Returns:
        Tokens, shape (B, rows * columns, C * kernel_size**2), see `split_grid`.

    Raises:
        ValueError: If `stride` is not in [1, kernel_size], or the height and width of
            the padded grid are not known, or smaller than a patch, or other ones than
            those that the layer was built for.

    Example:
    >>> tuple(SoftSplit(kernel_size=7, stride=4)(ops.ones((1, 32, 16, 3))).shape)
    (1, 32, 147)

    Reference:
        Yuan et al., T2T-ViT (arXiv:2101.11986), section 3.1, equation 3; official code
        `t2t_vit.py`, `T2T_module`, where it is `nn.Unfold`. Here it is a gather of
        indices that are computed once: the fastest of the exact ways that we measured,
        and one that TFLite has (decision D14).
    """

    def __init__(self, kernel_size, stride, **kwargs):
        super().__init__(**kwargs)
        check(
            1 <= stride <= kernel_size,
            "`stride` must be in [1, kernel_size].",
            stride=stride,
            kernel_size=kernel_size,
        )
        self.kernel_size = kernel_size
        self.stride = stride

    def build(self, input_shape):
        _, height, width, _ = input_shape
        self.padding = split_padding(self.kernel_size, self.stride)
        check(
            bool(height and width)
            and min(height, width) + 2 * self.padding >= self.kernel_size,
            "The padded grid must have a known size, at least that of a patch.",
            grid=(height, width),
            kernel_size=self.kernel_size,
        )
        self.input_spec = keras.layers.InputSpec(shape=(None, *input_shape[1:]))
        # Place of each element of each patch in the padded grid, row by row.
        rows, columns = (
            np.arange(size)[:, None] * self.stride + np.arange(self.kernel_size)
            for size in split_grid((height, width), self.kernel_size, self.stride)
        )
        padded_width = width + 2 * self.padding
        places = rows[:, None, :, None] * padded_width + columns[None, :, None, :]
        num_tokens = len(rows) * len(columns)
        self.places = places.reshape(num_tokens, self.kernel_size**2).astype("int32")

    def call(self, grid):
        channels = grid.shape[-1]
        sides = (self.padding, self.padding)
        x = ops.pad(grid, ((0, 0), sides, sides, (0, 0)))
        x = ops.reshape(x, (-1, x.shape[1] * x.shape[2], channels))
        x = ops.take(x, self.places, axis=1)  # (B, tokens, kernel_size^2, C)
        x = ops.transpose(x, (0, 1, 3, 2))
        return ops.reshape(x, (-1, len(self.places), channels * self.kernel_size**2))

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape
        rows, columns = split_grid((height, width), self.kernel_size, self.stride)
        return (batch, rows * columns, channels * self.kernel_size**2)

    def get_config(self):
        return {
            **super().get_config(),
            "kernel_size": self.kernel_size,
            "stride": self.stride,
        }
