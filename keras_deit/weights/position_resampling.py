"""Learned positions for another grid of patches."""

import keras
import numpy as np

from keras_deit.layers.patch_embedding import PatchEmbedding
from keras_deit.layers.tokens_to_token import TokensToToken

CUBIC_A = -0.75  # PyTorch's kernel; PIL and TensorFlow have -0.5


def token_grid(model: keras.Model) -> tuple[int, int] | None:
    """Reads the rows and columns of a model's patch tokens; None if it has none."""
    for layer in model.layers:
        if isinstance(layer, PatchEmbedding | TokensToToken):
            return layer.grid
    return None


def _cubic(distance):
    """Keys' cubic convolution kernel, for distances below 2."""
    d, a = np.abs(distance), CUBIC_A
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * (d**3 - 5 * d**2 + 8 * d - 4)
    return np.where(d <= 1, near, far)


def bicubic_matrix(old_size: int, new_size: int) -> np.ndarray:
    """Computes the weights that resample a row of numbers to another length.

    Each new number is a weighted sum of four old ones around its place
    `(i + 0.5) * old_size / new_size - 0.5`; beyond the border the last number counts.

    Args:
        old_size: Numbers there are.
        new_size: Numbers there will be.

    Returns:
        Weights, float64, shape (new_size, old_size); each row sums to 1.

    Example:
    >>> bicubic_matrix(2, 2).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    place = (np.arange(new_size) + 0.5) * old_size / new_size - 0.5
    first = np.floor(place).astype(int) - 1
    matrix = np.zeros((new_size, old_size))
    for tap in range(4):
        index = first + tap
        weights = _cubic(place - index)
        column = np.clip(index, 0, old_size - 1)
        np.add.at(matrix, (np.arange(new_size), column), weights)
    return matrix


def resample_positions(
    embedding: np.ndarray, old_grid: tuple[int, int], new_grid: tuple[int, int]
) -> np.ndarray:
    """Resamples the position embedding of a grid of patches to another grid.

    The rows of the prefix tokens come first and stay as they are.

    Args:
        embedding: Positions, shape (1, P + rows * columns, D).
        old_grid: Rows and columns of the patches there are.
        new_grid: Rows and columns of the patches there will be.

    Returns:
        Positions, float32, shape (1, P + new rows * new columns, D).

    Reference:
        Touvron et al., DeiT (arXiv:2012.12877), section 3, "Fine-tuning at higher
        resolution"; official code `main.py`: bicubic, `align_corners=False`, no
        antialiasing. That code takes square grids only.
    """
    num_patches = old_grid[0] * old_grid[1]
    prefix, patches = np.split(embedding, [embedding.shape[1] - num_patches], axis=1)
    grid = patches.astype("float64").reshape(*old_grid, -1)
    for axis in (0, 1):
        matrix = bicubic_matrix(old_grid[axis], new_grid[axis])
        grid = np.moveaxis(np.tensordot(matrix, grid, axes=(1, axis)), 0, axis)
    resampled = grid.reshape(1, new_grid[0] * new_grid[1], -1)
    return np.concatenate([prefix, resampled], axis=1).astype("float32")
