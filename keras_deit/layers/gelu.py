"""GELU whose gradient is written by hand."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import keras
from keras import ops

_WITH_ERF = ContextVar("with_erf", default=False)


@contextmanager
def written_with_erf() -> Iterator[None]:
    """Within it, GELU outside of training is traced as `x (1 + erf(x / sqrt(2))) / 2`.

    Keras on TensorFlow has `x erfc(-x / sqrt(2)) / 2`, which TensorFlow and TFLite
    fuse with the product before it; OpenVINO fuses the other form only. They differ by
    rounding, less than 1e-6 for inputs within 10.
    """
    token = _WITH_ERF.set(True)
    try:
        yield
    finally:
        _WITH_ERF.reset(token)


def gelu(x, training: bool | None = None):
    """The exact GELU, `x Phi(x)`, with Phi of the normal distribution.

    In training TensorFlow would derive the gradient from the forward's operations one
    by one, each a pass over the widest tensor of a block; here it is its closed form,
    `Phi(x) + x phi(x)`, in float32 at least, in any precision.

    Args:
        x: A tensor of any shape.
        training: Whether the gradient will be asked for.

    Returns:
        A tensor of the same shape and dtype.

    Example:
    >>> round(float(gelu(ops.ones(()))), 7)
    0.8413447

    Reference:
        Hendrycks and Gimpel (arXiv:1606.08415), section 2. The other backends have a
        gradient of their own, or a compiler that fuses it; outside of training the
        graph optimizer knows Keras' form and fuses it with the product before.
    """
    if not training and _WITH_ERF.get():
        return x * (1 + ops.erf(x / math.sqrt(2))) * 0.5
    if not training or keras.backend.backend() != "tensorflow":
        return ops.gelu(x, approximate=False)
    dtype = keras.backend.result_type(x.dtype, "float32")
    exact = ops.custom_gradient(_gelu_and_gradient)
    return ops.cast(exact(ops.cast(x, dtype)), x.dtype)


def _gelu_and_gradient(x):
    below = 0.5 * (1 + ops.erf(x * math.sqrt(0.5)))  # Phi

    def gradient(upstream):
        density = math.sqrt(0.5 / math.pi) * ops.exp(-0.5 * ops.square(x))  # phi
        return upstream * (below + x * density)

    return x * below, gradient
