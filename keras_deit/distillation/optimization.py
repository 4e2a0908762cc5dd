"""One step of an optimizer, whatever is trained."""

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf
from keras import ops

from keras_deit._checks import check

_RULE = "`accumulate_steps` must divide the batch of a replica."


def scaled(optimizer, model: keras.Model) -> keras.optimizers.Optimizer:
    """The optimizer, which scales the loss of a network in float16."""
    optimizer = keras.optimizers.get(optimizer)
    scales = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    layers = model._flatten_layers()
    if not scales and any(layer.compute_dtype == "float16" for layer in layers):
        return keras.optimizers.LossScaleOptimizer(optimizer)
    return optimizer


def apply(optimizer, gradients: Sequence, weights: Sequence) -> None:
    """Makes one step of an optimizer, all replicas alike.

    One that scales the loss leaves a step out where a gradient is not finite. Keras
    asks the first replica alone (keras 3.15), so all are told here.
    """
    replicas = tf.distribute.get_replica_context()
    scales = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    if scales and replicas.num_replicas_in_sync > 1:
        finite = [tf.reduce_all(tf.math.is_finite(gradient)) for gradient in gradients]
        overflows = tf.cast(~tf.reduce_all(tf.stack(finite)), tf.float32)
        overflows = replicas.all_reduce(tf.distribute.ReduceOp.SUM, overflows)
        first, *others = gradients
        infinite = tf.fill(tf.shape(first), tf.constant(float("inf"), first.dtype))
        gradients = [tf.where(overflows > 0, infinite, first), *others]
    optimizer.apply(gradients, weights)


def gradients_of(tape: tf.GradientTape, loss, weights: Sequence) -> list:
    """The gradients of a loss.

    A weight that takes no part in the loss gets a zero, as in the official code.
    """
    return [
        ops.zeros_like(weight) if gradient is None else ops.convert_to_tensor(gradient)
        for weight, gradient in zip(weights, tape.gradient(loss, weights), strict=True)
    ]


def accumulated(step: Callable, data, state: list, weights: Sequence, count: int):
    """Sums the gradients of micro-batches, one after the other.

    Args:
        step: Called with a micro-batch and the state before it, returns the gradients
            and the state after it; it must change no variable of a strategy.
        data: The batch: a structure of tensors whose first axis is cut.
        state: Tensors, before the first micro-batch.
        weights: What the gradients are of.
        count: Number of micro-batches; must divide the batch.

    Returns:
        The sums of the gradients, and the state after the last micro-batch.
    """
    if count == 1:
        return step(data, state)
    parts = keras.tree.map_structure(lambda x: _cut(x, count), data)

    def body(index, gradients, state):
        part = keras.tree.map_structure(
            lambda x: None if x is None else x[index], parts
        )
        further, state = step(part, state)
        sums = [a + b for a, b in zip(gradients, further, strict=True)]
        return index + 1, sums, state

    zeros = [tf.zeros(weight.shape, weight.dtype) for weight in weights]
    _, gradients, state = tf.while_loop(
        lambda index, *_: index < count,
        body,
        (tf.constant(0), zeros, state),
        parallel_iterations=1,  # or the memory of several is needed at a time
    )
    return gradients, state


def _cut(values, count: int):
    """(B, ...) to (count, B / count, ...); None stays."""
    if values is None:
        return None
    batch_size = values.shape[0]
    check(
        batch_size is None or batch_size % count == 0,
        _RULE,
        accumulate_steps=count,
        batch_size=batch_size,
    )
    if batch_size is None:
        values = _checked(values, count)
    rest = tf.shape(values)[1:]
    cut = tf.reshape(values, tf.concat([[count, -1], rest], axis=0))
    size = None if batch_size is None else batch_size // count
    return tf.ensure_shape(cut, (count, size, *values.shape[1:]))


def _checked(values, count: int):
    """Values of a batch whose size is known when it comes."""
    size = tf.shape(values)[0]
    rule = f"{_RULE} Received: accumulate_steps={count}."
    with tf.control_dependencies([tf.debugging.assert_equal(size % count, 0, rule)]):
        return tf.identity(values)
