"""What every soft split is asked: the same grids, and the answer to compare."""

from collections.abc import Callable

import numpy as np

STAGES = {  # of T2T-ViT-14 at 224 pixels: height, width, channels, kernel, stride
    "224x224x3, 7/4/2": (224, 224, 3, 7, 4),
    "56x56x64, 3/2/1": (56, 56, 64, 3, 2),
    "28x28x64, 3/2/1": (28, 28, 64, 3, 2),
}
WAYS = ("forward", "forward and backward")
MOST_DIFFERENCE = 1e-5


def padding_of(kernel: int, stride: int) -> int:
    """Zeros on each side of the grid."""
    return -(-(kernel - stride) // 2)


def task_name(stage: str, way: str) -> str:
    """What the table calls a stage, forward or with its gradient."""
    return f"{stage}, {way}"


def made_up(stage: str, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """A grid (B, H, W, C), and a gradient that comes back (B, N, C * kernel^2)."""
    height, width, channels, kernel, stride = STAGES[stage]
    random = np.random.default_rng(0)
    rows, columns = _places(height, width, kernel, stride)
    shape = (batch_size, rows * columns, channels * kernel**2)
    grid = random.normal(size=(batch_size, height, width, channels))
    return grid.astype(np.float32), random.normal(size=shape).astype(np.float32)


def checked_step(run: Callable, stage: str, way: str, batch_size: int) -> Callable:
    """Makes a step of a soft split that gives the tokens and the gradient that it must.

    Args:
        run: Returns tokens (B, N, C * kernel^2), channel after channel, each of them
            row by row; forward and backward also the gradient (B, H, W, C).
        stage: One of `STAGES`.
        way: One of `WAYS`.
        batch_size: How many grids it splits.

    Returns:
        The step; it returns how many grids it split.

    Raises:
        ValueError: If it gives something else.
    """
    grid, coming_back = made_up(stage, batch_size)
    kernel, stride = STAGES[stage][3:]
    expected = [split(grid, kernel, stride)]
    received = [run()] if way == WAYS[0] else list(run())
    if way != WAYS[0]:
        expected.append(joined(coming_back, grid.shape, kernel, stride))
    for name, ours, theirs in zip(("tokens", "gradient"), expected, received):  # noqa: B905
        theirs = np.asarray(theirs)
        if theirs.shape != ours.shape:
            raise ValueError(f"Its {name} have the shape {theirs.shape}.")
        if not np.abs(theirs - ours).max() <= MOST_DIFFERENCE * np.abs(ours).max():
            raise ValueError(f"Its {name} are not those of a soft split.")

    def step():
        run()
        return batch_size

    return step


def split(grid: np.ndarray, kernel: int, stride: int) -> np.ndarray:
    """The tokens of a grid, by definition."""
    side = padding_of(kernel, stride)
    padded = np.pad(grid, ((0, 0), (side, side), (side, side), (0, 0)))
    rows, columns = _places(*grid.shape[1:3], kernel, stride)
    tokens = [
        padded[:, i : i + stride * rows : stride, j : j + stride * columns : stride]
        for i in range(kernel)
        for j in range(kernel)
    ]
    tokens = np.stack(tokens, axis=-1)  # (B, rows, columns, C, kernel^2)
    return tokens.reshape(len(grid), rows * columns, -1)


def joined(tokens: np.ndarray, shape: tuple, kernel: int, stride: int) -> np.ndarray:
    """The grid whose every place is the sum of all that tokens hold of it."""
    side = padding_of(kernel, stride)
    number, height, width, channels = shape
    rows, columns = _places(height, width, kernel, stride)
    parts = tokens.reshape(number, rows, columns, channels, kernel, kernel)
    padded = np.zeros((number, height + 2 * side, width + 2 * side, channels))
    for i in range(kernel):
        for j in range(kernel):
            padded[
                :, i : i + stride * rows : stride, j : j + stride * columns : stride
            ] += parts[..., i, j]
    return padded[:, side : side + height, side : side + width]


def _places(height: int, width: int, kernel: int, stride: int) -> tuple[int, int]:
    """Rows and columns of tokens."""
    side = padding_of(kernel, stride)
    rows, columns = ((s + 2 * side - kernel) // stride + 1 for s in (height, width))
    return rows, columns
