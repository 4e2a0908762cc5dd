import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_deit
from keras_deit.models.factory import build_model
from keras_deit.models.inference import bfloat16_model, inference_model
from keras_deit.training.compiled import compiled, frozen

LIMITS = {"float32": 1e-5, "bfloat16": 0.1}


def color_model():
    """Logits of two classes: the red pixel plus 1, and twice the green one."""
    image = keras.Input((1, 1, 3))
    dense = keras.layers.Dense(2)
    model = keras.Model(image, dense(keras.layers.Flatten()(image)))
    dense.set_weights([np.array([[1, 0], [0, 2], [0, 0]]), np.array([1, 0])])
    return model


def two_heads(policy="float32"):
    """Three thirds of the color's sum, each a hundredth of the class head's logits."""
    image = keras.Input((1, 1, 3))
    constant = keras.initializers.Constant
    x = keras.layers.Flatten()(image)
    x = keras.layers.Dense(3, kernel_initializer=constant(1 / 3), dtype=policy)(x)
    return keras.Model(
        image,
        {
            "class": keras.layers.Dense(2, kernel_initializer=constant(0.01))(x),
            "distillation": keras.layers.Dense(2, kernel_initializer=constant(-0.02))(
                x
            ),
        },
    )


def transformer(name, **overrides):
    """A small model in which no weight is 0 or 1."""
    model = build_model(name, 5, **overrides)
    random = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(weight + 0.1 * random.normal(size=weight.shape))
    return model


@pytest.fixture(scope="module")
def model():
    return transformer(
        "deit_micro_distilled_patch4_32", depth=1, embed_dim=16, num_heads=2
    )


@pytest.fixture(scope="module", params=LIMITS)
def precision(request):
    return request.param


@pytest.fixture(scope="module")
def function(model, precision):
    return compiled(model, precision)


@pytest.fixture(scope="module")
def half(model):
    return frozen(model, "bfloat16")


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(1).integers(0, 256, (3, 32, 32, 3), np.uint8)


def constants_of(function):
    nodes = function.graph.as_graph_def().node
    return [tf.make_ndarray(n.attr["value"].tensor) for n in nodes if n.op == "Const"]


@pytest.mark.parametrize("name", LIMITS)
def test_the_logits_are_worked_out_by_hand(name):
    function = compiled(color_model(), name)
    image = np.array([[[2, 3, 9]]], np.uint8)
    assert function(image).numpy().tolist() == [3, 6]
    batch = np.stack([image, 2 * image]).astype(np.float32)
    assert function(batch).numpy().tolist() == [[3, 6], [5, 12]]


def test_answers_as_the_model(function, model, pixels, precision):
    expected = inference_model(model)(pixels, training=False)
    received = function(pixels)
    assert received.dtype == tf.float32
    np.testing.assert_allclose(received, expected, atol=LIMITS[precision])


def test_half_precision_is_that_of_the_mixed_model(half, model, pixels):
    floats = tf.constant(pixels, tf.float32)
    received = half(floats)
    expected = bfloat16_model(model)(floats, training=False)
    exact = model(floats, training=False)
    assert set(received) == {"class", "distillation"}
    for head, logits in received.items():
        np.testing.assert_allclose(logits, expected[head], atol=0.02)
        assert np.abs(logits - exact[head]).max() > 1e-4


def test_one_image_is_a_batch_of_one(function, pixels):
    one = function(pixels[0])
    assert one.shape == (5,)
    np.testing.assert_array_equal(one, function(pixels[:1])[0])
    assert function(pixels[:0]).shape == (0, 5)


def test_bytes_are_floats_and_arrays_are_tensors(function, pixels):
    expected = function(pixels)
    for same in (pixels.astype(np.float32), tf.constant(pixels)):
        np.testing.assert_array_equal(function(same), expected)


def test_it_can_be_part_of_another_function(function, pixels):
    classes = tf.function(lambda x: tf.argmax(function(x), axis=-1))(pixels)
    np.testing.assert_array_equal(classes, np.argmax(function(pixels), axis=-1))


def test_each_head_can_answer():
    # The sum of (3, 6, 9) is 18; two logits alike have softmaxes of a half.
    pixel = np.array([[[3, 6, 9]]], np.uint8)
    expected = {
        "class": 0.18,
        "distillation": -0.36,
        "fused": -0.09,
        "fused_softmax": -np.log(2),
    }
    for head, logit in expected.items():
        received = compiled(two_heads(), head=head)(pixel)
        np.testing.assert_allclose(received, [logit] * 2, rtol=1e-5)


def test_training_afterwards_changes_nothing():
    image = keras.Input((1, 1, 3))
    norm = keras.layers.BatchNormalization()
    model = keras.Model(image, keras.layers.Flatten()(norm(image)))
    pixel = np.full((4, 1, 1, 3), 8, np.uint8)
    functions = [compiled(model, name) for name in LIMITS]
    before = [function(pixel).numpy() for function in functions]
    np.testing.assert_allclose(before[0], 8, rtol=0.001)  # mean 0, variance 1
    model.compile(keras.optimizers.SGD(0.1), "mse")
    model.fit(pixel.astype(np.float32), np.ones((4, 3)), verbose=0)
    for weight in model.weights:
        weight.assign_add(tf.ones(weight.shape))  # in place, where nobody else reads it
    for function, expected in zip(functions, before, strict=True):
        assert np.abs(model(pixel, training=False) - expected).max() > 0.1
        np.testing.assert_array_equal(function(pixel), expected)


def test_the_policy_of_the_model_does_not_matter():
    # A third is 0.333984375 in bfloat16, and 500 of it are 167; the head is exact.
    pixel = np.array([[[200, 200, 100]]], np.uint8)
    for policy in ("float32", "mixed_bfloat16"):
        exact = compiled(two_heads(policy), head="class")(pixel)
        np.testing.assert_allclose(exact, [5] * 2, rtol=1e-6)
        half = compiled(two_heads(policy), "bfloat16", "class")(pixel)
        np.testing.assert_allclose(half, [5.01] * 2, rtol=1e-6)


def test_a_frozen_model_keeps_its_outputs(pixels):
    model = two_heads()
    floats = tf.constant(pixels[:, :1, :1], tf.float32)
    received = frozen(model)(floats)
    assert set(received) == {"class", "distillation"}
    for head, logits in model(floats, training=False).items():
        np.testing.assert_allclose(received[head], logits, rtol=1e-6)


def test_half_precision_has_weights_as_constants_and_nothing_else(half, model):
    assert not half.captured_inputs
    constants = constants_of(half)
    kernels = {tuple(w.shape) for w in model.weights if len(w.shape) == 2}
    kernels -= {(16, 5)}  # the heads', in float32
    large = [value for value in constants if value.size > 200]
    assert {str(value.dtype) for value in large} == {"bfloat16"}
    assert kernels <= {value.shape for value in large}
    assert (16, 5) in {v.shape for v in constants if v.dtype == np.float32}
    assert sum(v.size for v in constants) < 1.1 * model.count_params()
    operators = [node.op for node in half.graph.as_graph_def().node]
    assert operators.count("Placeholder") == 1  # the pixels


def test_single_precision_holds_the_weights_once(model):
    function = frozen(model)
    assert max(value.size for value in constants_of(function)) < 200
    held = sum(tf.size(x).numpy() for x in function.captured_inputs)
    assert held == model.count_params()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "overrides"),
    [
        ("t2t_vit_micro_32", {"depth": 1}),
        ("deit_micro_patch4_32", {"depth": 2, "keep_rate": 0.5, "reorganize_at": (1,)}),
        ("regnety_micro_32", {}),
    ],
)
def test_every_family_answers_as_its_model(variant, overrides, pixels):
    model = transformer(variant, **overrides)
    for precision, twin in (("float32", model), ("bfloat16", bfloat16_model(model))):
        expected = twin(pixels, training=False)
        received = compiled(model, precision)(pixels)
        limit = {"float32": 1e-5, "bfloat16": 0.05}[precision]
        np.testing.assert_allclose(received, expected, atol=limit)


def test_is_a_name_of_the_library():
    assert keras_deit.compiled is compiled


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"precision": "float16"},
            r"`precision` must be one of \['bfloat16', 'float32'",
        ),
        ({"head": "distillation"}, r"The model has one head, 'class'\. Received: head"),
        ({"head": "clas"}, r"`head` must be one of .* Did you mean 'class'\?"),
    ],
)
def test_a_bad_argument_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        compiled(color_model(), **arguments)


def test_a_model_without_a_known_input_is_refused():
    unbuilt = keras.Sequential([keras.layers.Flatten()])
    for function in (compiled, frozen):
        with pytest.raises(ValueError, match="The model must know its input"):
            function(unbuilt)


@pytest.mark.parametrize(
    "shape", [(32, 32), (3, 32, 32), (32, 32, 4), (1, 32, 31, 3), (1, 1, 32, 32, 3)]
)
def test_pixels_of_another_shape_are_refused(shape):
    image = keras.Input((32, 32, 3))
    function = compiled(keras.Model(image, keras.layers.GlobalMaxPooling2D()(image)))
    rule = r"one image or a batch of the model's size, \(32, 32\)\. Received: shape="
    with pytest.raises(ValueError, match=rule):
        function(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("dtype", [np.float64, np.int64, bool])
def test_pixels_of_another_kind_are_refused(dtype):
    rule = r"`pixels` must be uint8 or float32, in \[0, 255\]\. Received: dtype="
    with pytest.raises(ValueError, match=rule):
        compiled(color_model())(np.zeros((1, 1, 3), dtype))
