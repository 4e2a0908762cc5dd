import inspect
import json

import keras
import numpy as np
from keras import tree


def hold_layer_to_contract(layer, *inputs, **call_kwargs):
    """Declares its true outputs, has an equal twin, and honours the dtype policies."""
    output = layer(*inputs, **call_kwargs)
    assert shapes(layer(*symbols(inputs), **call_kwargs)) == shapes(output, batch=None)
    if not call_kwargs:
        declared = layer.compute_output_shape(*(x.shape for x in inputs))
        assert declared == shapes(output)

    own_arguments = set(inspect.signature(type(layer).__init__).parameters)
    assert own_arguments - {"self", "kwargs"} <= set(layer.get_config())
    twin = type(layer).from_config(layer.get_config())
    twin(*symbols(inputs), **call_kwargs)
    twin.set_weights(layer.get_weights())
    tree.map_structure(
        np.testing.assert_array_equal, twin(*inputs, **call_kwargs), output
    )

    written = json.dumps(keras.saving.serialize_keras_object(layer))
    read = keras.saving.deserialize_keras_object(json.loads(written))
    assert read.get_config() == layer.get_config()

    for policy in ("mixed_bfloat16", "bfloat16"):
        hold_layer_to_dtype_policy(layer, policy, inputs, call_kwargs)


def hold_layer_to_dtype_policy(layer, policy, inputs, call_kwargs):
    """Declares its true dtypes; the weights are as the policy says, the output too."""
    layer = type(layer).from_config({**layer.get_config(), "dtype": policy})
    declared = layer(*symbols(inputs), **call_kwargs)
    output = layer(*inputs, **call_kwargs)
    assert dtypes(declared) == dtypes(output)
    assert dtypes(output)[0] == "bfloat16"
    weight_dtype = "float32" if policy == "mixed_bfloat16" else "bfloat16"
    assert {weight.dtype for weight in layer.weights} <= {weight_dtype}
    for x in tree.flatten(output):
        assert np.all(np.isfinite(np.asarray(x, "float32")))


def fill(layer, *values):
    """Gives a built layer its weights, in their order."""
    layer.set_weights([np.asarray(value) for value in values])


def symbols(inputs):
    """The inputs as symbols, with a batch of unknown size."""
    return [keras.KerasTensor((None, *x.shape[1:])) for x in inputs]


def shapes(output, **batch):
    """The shapes of one output or several; `batch=None` forgets the batch size."""

    def shape(x):
        return (*batch.values(), *x.shape[len(batch) :])

    return tuple(map(shape, output)) if isinstance(output, tuple) else shape(output)


def dtypes(output):
    return [keras.backend.standardize_dtype(x.dtype) for x in tree.flatten(output)]
