"""A model for inference as one function: its weights are part of the graph."""

from collections.abc import Callable

import keras
import tensorflow as tf

from keras_deit._checks import check, check_choice
from keras_deit.models.inference import (
    bfloat16_model,
    float32_model,
    inference_model,
    input_size,
    model_output,
)

_CONVERTED = {"float32": float32_model, "bfloat16": bfloat16_model}
PRECISIONS = tuple(_CONVERTED)


def compiled(
    model: keras.Model, precision: str = "float32", head: str = "fused"
) -> Callable:
    """Compiles a model to a function of pixels, the fastest on a CPU.

    It has a copy of the weights: training the model afterwards changes nothing of it.

    Args:
        model: A one-head or a distilled model of known input size, whatever its dtype
            policy.
        precision: "float32", or "bfloat16": mixed, with the heads in float32; faster
            where the processor multiplies in bfloat16.
        head: Which head answers, as in `inference_model`.

    Returns:
        A function. It takes pixels in [0, 255], uint8 or float32: a batch of any size,
        (B, H, W, 3), or one image, (H, W, 3). It returns logits, float32: (B, Y), or
        (Y,) for one image; and raises a ValueError for what is no such pixels.

    Raises:
        ValueError: If an argument is refused.

    Example:
    >>> model = keras.Sequential(
    ...     [keras.Input((2, 2, 3)), keras.layers.GlobalMaxPooling2D()]
    ... )
    >>> compiled(model)(tf.constant(7.0, shape=(2, 2, 3))).numpy().tolist()
    [7.0, 7.0, 7.0]
    """
    size = input_size(model)
    function = frozen(inference_model(model, head), precision)

    def answer(pixels):
        pixels = tf.convert_to_tensor(pixels)
        check(
            pixels.dtype in (tf.uint8, tf.float32),
            "`pixels` must be uint8 or float32, in [0, 255].",
            dtype=pixels.dtype.name,
        )
        shape = () if pixels.shape.rank is None else tuple(pixels.shape)
        check(
            len(shape) in (3, 4) and shape[-3:] == (*size, 3),
            f"`pixels` must be one image or a batch of the model's size, {size}.",
            shape=shape,
        )
        pixels = tf.cast(pixels, tf.float32)
        return function(pixels) if len(shape) == 4 else function(pixels[None])[0]

    return answer


def frozen(model: keras.Model, precision: str = "float32"):
    """Freezes a model to a function of pixels, with a copy of its weights.

    In bfloat16 the weights are constants of the graph: cast once and not at each call,
    and brought in the order that matrix products want by the first. In float32 that
    gains nothing and takes seconds, so the function only holds the copies. What a mixed
    policy leaves in float32 (heads, softmax, normalization) stays so.

    Args:
        model: A model that knows its input, whatever its dtype policy.
        precision: One of `PRECISIONS`, as in `compiled`.

    Returns:
        A concrete function: pixels, float32 (B, H, W, 3) in [0, 255] in; out what the
        model returns, float32: logits (B, Y), or a dict of them.

    Raises:
        ValueError: If there is no such precision, or the model does not know its input.
    """
    check_choice("precision", precision, PRECISIONS)
    model_output(model)  # it must know its input
    model = _CONVERTED[precision](model)
    copies = [(weight, tf.identity(weight.value)) for weight in model.variables]

    def answer(pixels):
        with keras.StatelessScope(state_mapping=copies):
            return model(pixels, training=False)

    spec = tf.TensorSpec((None, *model.inputs[0].shape[1:]), tf.float32, "pixels")
    function = tf.function(answer, autograph=False).get_concrete_function(spec)
    return function if precision == "float32" else _folded(function, spec)


def _folded(function, spec: tf.TensorSpec):
    """Makes constants of the tensors that a function holds, and of casts of them."""
    held = {inner.op.name: outer for outer, inner in function.graph.captures}
    graph, constants = function.graph.as_graph_def(), {}
    for node in graph.node:
        if node.op == "Cast" and node.input[0] in held:
            dtype = tf.as_dtype(node.attr["DstT"].type)
            constants[node.name] = tf.cast(held[node.input[0]], dtype)
    pixels_name = function.inputs[0].op.name
    replaced = {*held, *constants, pixels_name}
    kept = [node for node in graph.node if node.name not in replaced]
    for node in kept:  # nothing changes a state, so that no order has to be kept
        node.input[:] = [name for name in node.input if not name.startswith("^")]
    used = {name for node in kept for name in node.input}
    constants |= {name: value for name, value in held.items() if name in used}
    del graph.node[:]
    graph.node.extend(kept)
    arrays = {name: value.numpy() for name, value in constants.items()}
    outputs = tf.nest.map_structure(lambda x: x.name, function.structured_outputs)

    def answer(pixels):
        inputs = {name: tf.constant(array) for name, array in arrays.items()}
        inputs[pixels_name] = pixels
        logits = tf.graph_util.import_graph_def(
            graph,
            input_map=inputs,
            return_elements=tf.nest.flatten(outputs),
            name="",
        )
        return tf.nest.pack_sequence_as(outputs, logits)

    return tf.function(answer, autograph=False).get_concrete_function(spec)
