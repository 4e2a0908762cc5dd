import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_deit.layers import LayerNormalization


@pytest.fixture
def random():
    return np.random.default_rng(0)


def a_layer(dim, random, **arguments):
    layer = LayerNormalization(**arguments)
    layer.build((None, dim))
    layer.set_weights([random.normal(1, 0.5, dim), random.normal(size=dim)])
    return layer


def test_two_numbers_are_normalized_by_hand():
    # Mean 3, standard deviation 2: -1 and 1; then times gamma, plus beta.
    layer = LayerNormalization(epsilon=0.0)
    layer.build((None, 2))
    layer.set_weights([np.array([10.0, 20.0]), np.array([1.0, 2.0])])
    for training in (False, True):
        y = layer(tf.constant([[1.0, 5.0]]), training=training)
        np.testing.assert_allclose(y, [[-9.0, 22.0]], rtol=1e-6)


def test_the_gradient_by_hand():
    # z = (-1, 0, 1) / sqrt(2 / 3), s = sqrt(2 / 3), g = (1, 0, 0):
    # mean(g) = 1 / 3, mean(g z) z = (1, 0, -1) / 2.
    layer = LayerNormalization(epsilon=0.0)
    x = tf.constant([[1.0, 2.0, 3.0]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True)
    dx = tape.gradient(y, x, tf.constant([[1.0, 0.0, 0.0]]))
    np.testing.assert_allclose(
        dx, np.array([[1, -2, 1]]) / 6 / np.sqrt(2 / 3), rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize("shape", [(7, 12), (2, 5, 12)])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", 2e-6), ("mixed_bfloat16", 2e-2)]
)
def test_value_and_gradients_are_those_of_keras(shape, dtype, tolerance, random):
    ours = a_layer(shape[-1], random, epsilon=1e-3, dtype=dtype)
    theirs = keras.layers.LayerNormalization(epsilon=1e-3, dtype=dtype)
    theirs.build(shape)
    theirs.set_weights(ours.get_weights())
    x = tf.cast(random.normal(3.0, 2.0, shape), ours.compute_dtype)
    upstream = tf.cast(random.normal(size=shape), ours.compute_dtype)
    results = []
    for layer in (ours, theirs):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        weights = [weight.value for weight in layer.trainable_weights]
        results.append([y, *tape.gradient(y, [x, *weights], upstream)])
    for mine, expected in zip(*results, strict=True):
        assert mine.dtype == expected.dtype
        assert mine.shape == expected.shape
        expected = tf.cast(expected, "float32").numpy()
        limit = tolerance * max(1.0, np.abs(expected).max())
        np.testing.assert_allclose(tf.cast(mine, "float32"), expected, atol=limit)


def test_large_numbers_keep_their_differences(random):
    x = 1e4 + random.normal(size=(3, 64)).astype("float32")
    y = LayerNormalization(epsilon=0.0)(x, training=True)
    exact = x.astype("float64")
    exact = (exact - exact.mean(-1, keepdims=True)) / exact.std(-1, keepdims=True)
    np.testing.assert_allclose(y, exact, atol=2e-3)


def test_its_gradient_has_fewer_operations_than_keras_own():
    def operations(layer):
        @tf.function(autograph=False)
        def gradient(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = layer(x, training=True)
            return tape.gradient(y, x)

        layer.build((None, 8))
        shape = tf.TensorSpec((4, 8), "float32")
        return len(gradient.get_concrete_function(shape).graph.get_operations())

    theirs = operations(keras.layers.LayerNormalization())
    assert operations(LayerNormalization()) < theirs


def test_it_is_saved_with_its_epsilon():
    layer = LayerNormalization(epsilon=0.5, name="norm", dtype="mixed_float16")
    twin = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(layer)
    )
    assert type(twin) is LayerNormalization
    assert (twin.epsilon, twin.name, twin.compute_dtype) == (0.5, "norm", "float16")


def test_training_and_use_have_the_same_numbers(random):
    layer = a_layer(12, random)
    x = random.normal(size=(4, 12)).astype("float32")
    used, trained = (layer(x, training=training) for training in (False, True))
    np.testing.assert_array_equal(used, trained)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_computes_in_float32(dtype, training):
    layer = LayerNormalization(dtype=f"mixed_{dtype}")
    layer.build((4, 8))

    @tf.function(autograph=False)
    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=training)
        return y, tape.gradient(y, x)

    function = gradient.get_concrete_function(tf.TensorSpec((4, 8), dtype))
    kinds = {
        (op.type, op.inputs[0].dtype)
        for op in function.graph.get_operations()
        if op.type in ("Mean", "Square", "Rsqrt")
    }
    assert kinds == {(name, tf.float32) for name in ("Mean", "Square", "Rsqrt")}
    assert {output.dtype.name for output in function.outputs} == {dtype}


def test_options_that_it_has_not_are_refused():
    with pytest.raises(TypeError, match="axis"):
        LayerNormalization(axis=1)
