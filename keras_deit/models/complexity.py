"""How large a model is, and how much arithmetic an image costs."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import keras
from keras import ops

from keras_deit._checks import check
from keras_deit.layers.attention import MultiHeadSelfAttention
from keras_deit.layers.conv_norm import GroupedConv2D
from keras_deit.layers.token_performer import TokenPerformer
from keras_deit.layers.token_transformer import TokenTransformer

CONVOLUTIONS = (
    GroupedConv2D,
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
)


def count_parameters(model: keras.Model) -> int:
    """Counts the parameters of a model, as the papers do.

    All weights, frozen ones too, except the running statistics of batch normalization.

    Args:
        model: A built model.

    Returns:
        The number of parameters.

    Example:
    >>> dense = keras.layers.Dense(3)
    >>> count_parameters(keras.Sequential([keras.Input((2,)), dense]))
    9
    """
    statistics = set()
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            statistics |= {id(layer.moving_mean), id(layer.moving_variance)}
    return sum(math.prod(w.shape) for w in model.weights if id(w) not in statistics)


def count_macs(model: keras.Model) -> int:
    """Counts the multiply-adds that one image costs.

    The model is run on one black image. Every convolution, every dense layer and every
    product of an attention that takes part is counted, with the shapes it met, so that
    a reorganization of tokens is seen; nothing else is (no normalization, no
    activation, no bias).

    Args:
        model: A built model with one input of known size.

    Returns:
        The number of multiply-adds at batch size 1.

    Raises:
        ValueError: If a layer has a kernel of a kind that is not counted here, such as
            `EinsumDense` or a transposed convolution.

    Example:
    >>> dense = keras.layers.Dense(3)
    >>> count_macs(keras.Sequential([keras.Input((2,)), dense]))
    6
    """
    total = 0

    def observe(layer, output):
        nonlocal total
        total += _macs_of_call(layer, output)

    with _observed_calls(observe):
        model(ops.zeros((1, *model.inputs[0].shape[1:])), training=False)
    return total


def _macs_of_call(layer: keras.layers.Layer, output) -> int:
    """Multiply-adds of one call of one layer, without those of the layers in it."""
    if isinstance(layer, keras.layers.Dense):
        return math.prod(output.shape) * layer.kernel.shape[0]
    if isinstance(layer, keras.layers.SeparableConv2D):
        kernels = (layer.depthwise_kernel, layer.pointwise_kernel)
        return math.prod(output.shape[:-1]) * sum(math.prod(k.shape) for k in kernels)
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        return math.prod(output.shape) * math.prod(layer.kernel.shape[:2])
    if isinstance(layer, CONVOLUTIONS):
        return math.prod(output.shape) * math.prod(layer.kernel.shape[:-1])
    if isinstance(layer, MultiHeadSelfAttention | TokenTransformer):
        tokens = output[0] if isinstance(output, tuple) else output
        return 2 * math.prod(tokens.shape) * tokens.shape[1]  # q k^T, and times v
    if isinstance(layer, TokenPerformer):  # W q, W k, k^T v, and q times that
        return 4 * math.prod(output.shape) * layer.num_random_features
    check(
        not (hasattr(layer, "kernel") or hasattr(layer, "depthwise_kernel")),
        "`count_macs` counts dense layers and plain, depthwise and separable "
        "convolutions only.",
        layer=layer.name,
        kind=type(layer).__name__,
    )
    return 0


@contextmanager
def _observed_calls(observe: Callable) -> Iterator[None]:
    """Tells `observe(layer, output)` of every call of a layer; not for two threads."""
    original = keras.layers.Layer.__call__

    def call(layer, *args, **kwargs):
        output = original(layer, *args, **kwargs)
        observe(layer, output)
        return output

    keras.layers.Layer.__call__ = call
    try:
        yield
    finally:
        keras.layers.Layer.__call__ = original
