"""Layer normalization in few passes, forward and backward."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_deit")
class LayerNormalization(keras.layers.LayerNormalization):
    """`keras.layers.LayerNormalization` over the last axis, in fewer passes.

    `y = gamma z + beta`, where `z = (x - mean) / s` and `s = sqrt(variance + epsilon)`.
    Keras' form, `x gamma / s + (beta - mean gamma / s)`, broadcasts twice more. In
    training TensorFlow would derive the gradient from these operations one by one; here
    it is its closed form, with `g` the gradient of y times gamma:

        dx = (g - mean(g) - z mean(g z)) / s

    Statistics and gradient are computed in float32 at least, in any precision.

    Args:
        epsilon: Added to the variance.

    Call arguments:
        inputs: Tokens, shape (..., D).

    Returns:
        Tokens of the same shape.

    Example:
    >>> layer = LayerNormalization(epsilon=0.0)
    >>> ops.convert_to_numpy(layer(ops.convert_to_tensor([[1.0, 3.0]]))).tolist()
    [[-1.0, 1.0]]

    Reference:
        Ba et al. (arXiv:1607.06450). The other backends have a gradient of their own,
        or a compiler that fuses it: there it is Keras' layer.
    """

    def __init__(self, epsilon=1e-6, *, name=None, dtype=None, trainable=True):
        super().__init__(epsilon=epsilon, name=name, dtype=dtype, trainable=trainable)

    def call(self, inputs, training=None):
        if keras.backend.backend() != "tensorflow":
            return super().call(inputs)
        dtype = keras.backend.result_type(inputs.dtype, "float32")
        arguments = [ops.cast(x, dtype) for x in (inputs, self.gamma, self.beta)]

        def normalize(*arguments):
            return _normalized(*arguments, self.epsilon)

        if training:
            output = ops.custom_gradient(normalize)(*arguments)
        else:
            output, _ = normalize(*arguments)
        return ops.cast(output, self.compute_dtype)

    def get_config(self):
        return {**keras.Layer.get_config(self), "epsilon": self.epsilon}


def _normalized(x, gamma, beta, epsilon: float):
    """The output, and the function that makes the gradients of its gradient."""
    x = x - ops.mean(x, axis=-1, keepdims=True)
    variance = ops.mean(ops.square(x), axis=-1, keepdims=True)
    inverse = ops.rsqrt(variance + epsilon)
    z = x * inverse

    def gradients(upstream):
        rows = tuple(range(len(z.shape) - 1))
        g, product = upstream * gamma, upstream * z
        along_z = z * ops.mean(product * gamma, axis=-1, keepdims=True)
        dx = (g - ops.mean(g, axis=-1, keepdims=True) - along_z) * inverse
        return dx, ops.sum(product, axis=rows), ops.sum(upstream, axis=rows)

    return z * gamma + beta, gradients
