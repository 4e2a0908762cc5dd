"""What every engine is asked: the same pixels, and the model's answer to compare."""

from collections.abc import Callable

import numpy as np

MOST_DIFFERENCE = 0.3  # of an answer to the model's, both about their mean


def pixels_of(case: dict) -> np.ndarray:
    """The images of a case, uint8 (B, H, W, 3)."""
    return np.load(case["pixels"])[: case["batch_size"]]


def checked_step(run: Callable, inputs, case: dict) -> Callable:
    """Makes a step of an engine that answers as the model does.

    Args:
        run: Takes `inputs` and returns logits (B, Y), as anything NumPy reads.
        inputs: The pixels of the case, in the form that the engine takes.
        case: The case.

    Returns:
        The step; it returns how many images it ran.

    Raises:
        ValueError: If the answers are others than the model's.
    """
    number = case["batch_size"]
    expected = np.load(case["expected"])[:number]
    received = np.asarray(run(inputs), np.float64)[: len(expected)]
    deviation = expected - expected.mean(-1, keepdims=True)
    difference = np.sqrt(np.mean((received - expected) ** 2) / np.mean(deviation**2))
    if not difference <= MOST_DIFFERENCE:
        raise ValueError(f"Its answers are not the model's: {difference:.0%} off.")

    def step():
        run(inputs)
        return number

    return step
