"""GELU whose gradient is written by hand."""

import math

import keras
from keras import ops


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
