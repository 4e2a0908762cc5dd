import math

import numpy as np
import pytest
import tensorflow as tf

from keras_deit.layers.gelu import gelu, written_with_erf


@pytest.fixture
def random():
    return np.random.default_rng(0)


def phi(x):
    return np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in x.ravel()]).reshape(
        x.shape
    )


@pytest.mark.parametrize("training", [False, True, None])
def test_values_by_hand(training):
    # Phi(0) = 1 / 2, Phi(1) = 0.8413447, Phi(-1) = 0.1586553
    y = gelu(tf.constant([0.0, 1.0, -1.0, 100.0, -100.0]), training)
    np.testing.assert_allclose(y, [0, 0.8413447, -0.1586553, 100, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", 1e-6), ("bfloat16", 8e-3), ("float16", 1e-3)]
)
def test_value_and_gradient_are_exact(dtype, tolerance, random):
    x = tf.cast(random.normal(0, 2, (5, 7)), dtype)
    upstream = tf.cast(random.normal(size=(5, 7)), dtype)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = gelu(x, training=True)
    dx = tape.gradient(y, x, upstream)
    assert y.dtype == dx.dtype == x.dtype
    exact, factor = (tf.cast(t, "float64").numpy() for t in (x, upstream))
    density = np.exp(-(exact**2) / 2) / math.sqrt(2 * math.pi)
    value, slope = exact * phi(exact), phi(exact) + exact * density
    np.testing.assert_allclose(tf.cast(y, "float64"), value, rtol=tolerance, atol=1e-6)
    np.testing.assert_allclose(
        tf.cast(dx, "float64"), factor * slope, rtol=tolerance, atol=2 * tolerance
    )


def test_half_precision_computes_in_float32():
    @tf.function(autograph=False)
    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = gelu(x, training=True)
        return tape.gradient(y, x)

    graph = gradient.get_concrete_function(tf.TensorSpec((3,), "bfloat16")).graph
    kinds = {op.type: op.inputs[0].dtype for op in graph.get_operations() if op.inputs}
    assert kinds["Erf"] == kinds["Exp"] == tf.float32


def test_two_forms_have_one_value():
    def kinds():
        function = tf.function(lambda x: gelu(x), autograph=False)
        graph = function.get_concrete_function(tf.TensorSpec((3,), "float32")).graph
        return {op.type for op in graph.get_operations()}

    x = tf.linspace(-10.0, 10.0, 2001)
    plain = gelu(x)
    assert {"Erf", "Erfc"} & kinds() == {"Erfc"}
    with written_with_erf():
        np.testing.assert_allclose(gelu(x), plain, atol=1e-6)
        assert {"Erf", "Erfc"} & kinds() == {"Erf"}
    assert {"Erf", "Erfc"} & kinds() == {"Erfc"}
