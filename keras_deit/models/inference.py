"""From a model with one or two heads to one tensor of logits."""

import math

import keras
from keras import ops

from keras_deit._checks import check, check_choice

HEADS = ("fused", "fused_softmax", "class", "distillation")


def model_output(model: keras.Model):
    """Reads what a model returns, symbolically: a tensor, or a dict of tensors.

    Raises:
        ValueError: If the model does not know its input yet.
    """
    check(
        bool(getattr(model, "inputs", None)),
        "The model must know its input: build it with `keras.Input`.",
        model=model.name,
    )
    is_sequential = isinstance(model, keras.Sequential)
    return model.outputs[0] if is_sequential else model.output


def input_size(model: keras.Model) -> tuple[int, int]:
    """Reads the height and width of a model's input, in pixels.

    Raises:
        ValueError: If the model does not take RGB images of one known size.
    """
    model_output(model)  # it must know its input
    shape = tuple(model.inputs[0].shape)
    check(
        len(model.inputs) == 1 and len(shape) == 4 and None not in shape[1:3],
        "The model must take RGB images of one size, (B, height, width, 3).",
        model=model.name,
        input_shape=shape,
    )
    return shape[1:3]


def num_classes(model: keras.Model) -> int:
    """Reads Y, the number of classes of a one-head or a distilled model."""
    return head_logits(model_output(model), "class").shape[-1]


def head_logits(outputs, head: str):
    """Reads one tensor of logits from what a model returned.

    Args:
        outputs: Logits (B, Y) of a one-head model, or the dict of a distilled one.
        head: One of `HEADS`.

    Returns:
        Logits (B, Y). "fused" is the mean of the logits of both heads;
        "fused_softmax" the logarithm of the mean of their softmaxes.

    Raises:
        ValueError: If there is no such head.
    """
    check_choice("head", head, HEADS)
    if not isinstance(outputs, dict):
        check(head != "distillation", "The model has one head, 'class'.", head=head)
        return outputs
    if head in outputs:
        return outputs[head]
    a, b = outputs["class"], outputs["distillation"]
    if head == "fused":
        return (a + b) / 2
    stacked = ops.stack([ops.log_softmax(a), ops.log_softmax(b)])  # (2, B, Y)
    return ops.logsumexp(stacked, axis=0) - math.log(2)


def float32_model(model: keras.Model) -> keras.Model:
    """Builds the same model in float32, with a copy of the weights.

    A model that computes in float32 already is returned as it is. Half precision is for
    training: an exported artifact computes in float32, unless something else is asked.
    """
    if all(layer.compute_dtype == "float32" for layer in model._flatten_layers()):
        return model
    return _with_dtypes(model, lambda layer: "float32")


def bfloat16_model(model: keras.Model) -> keras.Model:
    """Builds the same model in mixed_bfloat16, with a copy of the weights."""
    return mixed_model(model, "mixed_bfloat16")


def mixed_model(model: keras.Model, policy: str) -> keras.Model:
    """Builds the same model in a mixed dtype policy, with a copy of the weights.

    The heads stay in float32, as in training: the last layers with weights on the way
    to each output, and what follows them.
    """
    heads = _heads(model)
    return _with_dtypes(model, lambda layer: "float32" if layer in heads else policy)


def _heads(model: keras.Model) -> set:
    """The last operations of a model, back to the first with weights on each way."""
    heads, ends = set(), list(model.outputs)
    while ends:
        operation, node, _ = ends.pop()._keras_history
        heads.add(operation)
        if not getattr(operation, "weights", ()):
            ends.extend(operation._inbound_nodes[node].input_tensors)
    return heads


def _with_dtypes(model: keras.Model, dtype_of) -> keras.Model:
    """The same model with other dtype policies, and a copy of the weights."""

    def rebuilt(operation):
        config = operation.get_config()
        if isinstance(operation, keras.Layer):
            config["dtype"] = dtype_of(operation)
        return type(operation).from_config(config)

    twin = keras.models.clone_model(model, clone_function=rebuilt, recursive=True)
    twin.set_weights(model.get_weights())
    wanted = {
        keras.DTypePolicy(dtype_of(layer)).compute_dtype for layer in model.layers
    }
    for layer in twin._flatten_layers():
        check(
            not layer.weights or layer.compute_dtype in wanted,
            "The model has a layer whose dtype policy cannot be changed.",
            layer=layer.path,
            dtype=layer.compute_dtype,
        )
    return twin


def inference_model(model: keras.Model, head: str = "fused") -> keras.Model:
    """Builds a model with one output that shares the weights of `model`.

    Args:
        model: A one-head or a distilled model.
        head: "fused", the mean of the logits of both heads (the official code);
            "fused_softmax", the logarithm of the mean of their softmaxes (the paper's
            text; the two can disagree on the best class); "class"; or "distillation".
            A model with one head has "fused" and "class", which are the same.

    Returns:
        A functional `keras.Model`: pixels (B, H, W, 3) in, logits (B, Y) out.

    Raises:
        ValueError: If there is no such head.

    Reference:
        Touvron et al., DeiT (arXiv:2012.12877), section 4, "Classification with our
        approach: joint classifiers"; official code `models.py`,
        `DistilledVisionTransformer.forward`.
    """
    logits = head_logits(model_output(model), head)
    return keras.Model(model.inputs[0], logits, name=f"{model.name}_{head}")
