"""What a model costs a device: arithmetic, weights, and what its gradient keeps."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

import keras
import tensorflow as tf

from keras_deit.models.complexity import count_macs
from keras_deit.models.inference import input_size
from keras_deit.models.reorganization import encoder_blocks

# What returns the memory of its input under another shape or name.
_VIEWS = ("Reshape", "Identity", "Squeeze", "ExpandDims", "StopGradient")


@dataclass(frozen=True)
class ModelCosts:
    """What a model costs.

    Attributes:
        macs: Multiply-adds of an image, forward.
        block_macs: Those of them that are in encoder blocks.
        bytes: Of all weights.
        trainable_bytes: Of the weights that are trained.
        num_tensors: Number of all weights.
        num_trainable: Number of those that are trained.
    """

    macs: int
    block_macs: int
    bytes: int
    trainable_bytes: int
    num_tensors: int
    num_trainable: int


@dataclass(frozen=True)
class Activations:
    """Bytes of an image on their way through a model.

    Attributes:
        kept: Computed forward and used by the gradient, all at once; 0 without one.
        kept_between_blocks: The same where encoder blocks are computed again: what is
            outside of them, the input of each, and one block at a time.
        largest: The largest tensor.
    """

    kept: int
    kept_between_blocks: int
    largest: int


def model_costs(model: keras.Model) -> ModelCosts:
    """Measures the arithmetic and the weights of a model.

    Args:
        model: A built functional model with one input of known size.

    Returns:
        What it costs.

    Raises:
        ValueError: If it has layers that `count_macs` does not know.
    """
    blocks = encoder_blocks(model)
    block_macs = 0
    if blocks:
        between = keras.Model(blocks[0].input, blocks[-1].output)
        block_macs = count_macs(between)
    return ModelCosts(
        count_macs(model),
        block_macs,
        _bytes(model.variables),
        _bytes(model.trainable_variables),
        len(model.variables),
        len(model.trainable_variables),
    )


def _bytes(variables) -> int:
    return sum(math.prod(v.shape) * tf.as_dtype(v.dtype).size for v in variables)


def activations(model: keras.Model, training: bool = True) -> Activations:
    """Adds up what the gradient of a model needs of its forward pass.

    The step is traced, not run: each tensor that depends on the image (or on chance, as
    the mask of a dropout) and that an operation of the gradient reads is counted, once.
    So is what a compiler would compute again or never write down: XLA needs less.

    Args:
        model: A functional model with one input of known size, without gradient
            checkpointing of its own.
        training: Whether there is a gradient.

    Returns:
        Bytes of one image.
    """
    step, forward = _traced(model, training)
    tensors = list(_of_the_image(forward))
    largest = max(map(_size, tensors))
    if not training:
        return Activations(0, 0, largest)
    names = {operation.name for operation in step.graph.get_operations()}
    names -= {operation.name for operation in forward}
    kept = {}
    for tensor in tensors:
        if any(user.name in names for user in tensor.consumers()):
            root = _root(tensor)
            kept[root.name] = _size(root)
    blocks = {block.name: 0 for block in encoder_blocks(model)}
    for name, size in kept.items():
        block = _block_of(name, blocks)
        if block is not None:
            blocks[block] += size
    inputs = sum(_size(block.input) for block in encoder_blocks(model))
    outside = sum(kept.values()) - sum(blocks.values())
    between = outside + inputs + max(blocks.values(), default=0)
    return Activations(sum(kept.values()), between, largest)


def _traced(model: keras.Model, training: bool) -> tuple:
    """The step of one image, traced, and the operations of its forward pass."""
    forward = []

    @tf.function(autograph=False)
    def step(pixels):
        with tf.GradientTape() as tape:
            outputs = tf.nest.flatten(model(pixels, training=training))
            total = sum(tf.reduce_sum(output) for output in outputs)
        forward.extend(tf.compat.v1.get_default_graph().get_operations())
        if not training:
            return outputs
        weights = [variable.value for variable in model.trainable_variables]
        return [g for g in tape.gradient(total, weights) if g is not None]

    spec = tf.TensorSpec((1, *input_size(model), 3), tf.uint8)
    return step.get_concrete_function(spec), forward


def _of_the_image(operations: list) -> Iterator[tf.Tensor]:
    """The tensors that depend on the image or on chance, in their order."""
    depends = set()
    for operation in operations:
        is_image = operation.type == "Placeholder" and (
            operation.outputs[0].dtype == tf.uint8
        )
        is_chance = "Random" in operation.type
        if is_image or is_chance or any(i.ref() in depends for i in operation.inputs):
            depends.update(output.ref() for output in operation.outputs)
            yield from operation.outputs


def _root(tensor: tf.Tensor) -> tf.Tensor:
    """The tensor whose memory it is."""
    while tensor.op.type in _VIEWS:
        tensor = tensor.op.inputs[0]
    return tensor


def _size(tensor) -> int:
    """Bytes of one image in a tensor."""
    return math.prod(n or 1 for n in tensor.shape) * tf.as_dtype(tensor.dtype).size


def _block_of(name: str, blocks) -> str | None:
    """The block in whose scope a tensor is; TensorFlow counts repeated names."""
    scopes = (re.sub(r"_\d+$", "", scope) for scope in name.split("/"))
    return next((scope for scope in scopes if scope in blocks), None)
