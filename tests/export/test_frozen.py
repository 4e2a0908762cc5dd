import numpy as np
import pytest
import tensorflow as tf

from keras_deit.export.frozen import frozen
from keras_deit.models.inference import bfloat16_model


@pytest.fixture(scope="module")
def half(small_model):
    return bfloat16_model(small_model)


@pytest.fixture(scope="module")
def function(half):
    return frozen(half)


def test_answers_as_the_model_that_casts_at_each_call(function, half):
    pixels = np.random.default_rng(0).uniform(0, 255, (3, 32, 32, 3)).astype(np.float32)
    received = function(tf.constant(pixels))
    assert received.dtype == tf.float32
    np.testing.assert_allclose(received, half(pixels, training=False), atol=0.05)
    for count in (0, 1):
        assert function(tf.constant(pixels[:count])).shape == (count, 3)


def test_weights_are_constants_in_half_precision_and_nothing_else(function, half):
    assert not function.captured_inputs
    constants = [
        tf.make_ndarray(node.attr["value"].tensor)
        for node in function.graph.as_graph_def().node
        if node.op == "Const"
    ]
    large = [value for value in constants if value.size > 200]
    assert {str(value.dtype) for value in large} == {"bfloat16"}
    kernels = {tuple(w.shape) for w in half.weights if len(w.shape) == 2}
    kernels -= {(16, 3)}  # the head's, in float32
    assert kernels <= {value.shape for value in large}
    assert (16, 3) in {v.shape for v in constants if v.dtype == np.float32}
