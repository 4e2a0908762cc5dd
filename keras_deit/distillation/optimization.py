"""One step of an optimizer, whatever is trained."""

import keras
from keras import ops


def scaled(optimizer, model: keras.Model) -> keras.optimizers.Optimizer:
    """The optimizer, which scales the loss of a network in float16."""
    optimizer = keras.optimizers.get(optimizer)
    scales = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    layers = model._flatten_layers()
    if not scales and any(layer.compute_dtype == "float16" for layer in layers):
        return keras.optimizers.LossScaleOptimizer(optimizer)
    return optimizer


def apply(optimizer, tape, loss, weights) -> None:
    """Makes one step of an optimizer.

    A weight that takes no part in the loss gets a zero, as in the official code.
    """
    gradients = [
        ops.zeros_like(weight) if gradient is None else gradient
        for weight, gradient in zip(weights, tape.gradient(loss, weights), strict=True)
    ]
    optimizer.apply_gradients(zip(gradients, weights, strict=True))
