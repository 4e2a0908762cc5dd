import keras
import numpy as np
import pytest

from keras_deit.models.factory import build_model
from keras_deit.models.inference import (
    HEADS,
    bfloat16_model,
    float32_model,
    head_logits,
    inference_model,
    input_size,
)

# The best class of the mean of the logits is 2, of the mean of the softmaxes 1.
A, B = [[4.0, 0.0, 3.9]], [[0.0, 5.0, 3.0]]


@pytest.fixture
def student():
    return build_model("deit_micro_distilled_patch4_32", num_classes=3, depth=1)


def some_images():
    rng = np.random.default_rng(0)
    return rng.uniform(0, 255, (2, 32, 32, 3)).astype("float32")


def softmax(x):
    return np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True)


def logits_of(head):
    return head_logits({"class": np.array(A), "distillation": np.array(B)}, head)


def test_fused_is_the_mean_of_the_logits_by_hand():
    np.testing.assert_allclose(logits_of("fused"), [[2.0, 2.5, 3.45]])


def test_fused_softmax_is_the_logarithm_of_the_mean_of_the_softmaxes():
    expected = np.log((softmax(np.array(A)) + softmax(np.array(B))) / 2)
    np.testing.assert_allclose(logits_of("fused_softmax"), expected, rtol=1e-5)


def test_the_two_fusions_can_disagree():
    assert np.argmax(logits_of("fused")) == 2
    assert np.argmax(logits_of("fused_softmax")) == 1


def test_fused_softmax_stands_large_logits():
    outputs = {"class": np.array([[1e4, 0.0]]), "distillation": np.array([[0.0, 1e4]])}
    got = head_logits(outputs, "fused_softmax")
    np.testing.assert_allclose(got, np.log([[0.5, 0.5]]), rtol=1e-5)


def test_a_single_head_is_read_as_it_is():
    np.testing.assert_array_equal(logits_of("class"), A)
    np.testing.assert_array_equal(logits_of("distillation"), B)


@pytest.mark.parametrize("head", HEADS)
def test_a_model_has_the_output_of_the_head(head, student):
    model = inference_model(student, head)
    assert model.name == f"deit_micro_distilled_patch4_32_{head}"
    expected = head_logits(student(some_images()), head)
    np.testing.assert_allclose(model(some_images()), expected, rtol=1e-5, atol=1e-6)


def test_fuses_the_logits_by_default(student):
    fused = inference_model(student, "fused")(some_images())
    np.testing.assert_array_equal(inference_model(student)(some_images()), fused)


@pytest.mark.parametrize("head", ["fused", "fused_softmax", "class"])
def test_one_head_needs_no_fusion(head):
    model = build_model("deit_micro_patch4_32", num_classes=3, depth=1)
    got = inference_model(model, head)(some_images())
    np.testing.assert_array_equal(got, model(some_images()))


def test_shares_the_weights_of_the_student(student):
    model = inference_model(student)
    before = model(some_images()).numpy()
    bias = student.get_layer("distillation_head").bias
    bias.assign([0.0, 2.0, 0.0])
    expected = before + [0.0, 1.0, 0.0]
    np.testing.assert_allclose(model(some_images()), expected, rtol=1e-5, atol=1e-6)


def test_refuses_an_unknown_head(student):
    rule = (
        r"`head` must be one of \['class', 'distillation', 'fused', 'fused_softmax'\]"
    )
    hint = "Did you mean 'fused'"
    with pytest.raises(ValueError, match=rf"{rule}. {hint}\? Received: head='fusd'"):
        inference_model(student, "fusd")


def test_refuses_the_distillation_head_of_a_model_without_one():
    model = build_model("deit_micro_patch4_32", num_classes=3, depth=1)
    rule = "The model has one head, 'class'. "
    with pytest.raises(ValueError, match=f"{rule}Received: head='distillation'"):
        inference_model(model, "distillation")


def test_a_sequential_model_has_one_head():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    x = np.ones((2, 4), "float32")
    np.testing.assert_array_equal(inference_model(model)(x), model(x))


def test_refuses_a_model_that_does_not_know_its_input():
    unbuilt = keras.Sequential([keras.layers.Dense(3)], name="unbuilt")
    with pytest.raises(ValueError, match="must know its input.*Received: .*'unbuilt'"):
        inference_model(unbuilt)


@pytest.mark.parametrize("shape", [(4,), (None, None, 3)])
def test_refuses_an_input_that_is_no_image_of_one_size(shape):
    image = keras.Input(shape)
    model = keras.Model(image, keras.layers.Dense(3)(image))
    with pytest.raises(ValueError, match="RGB images of one size.*input_shape="):
        input_size(model)


def test_the_size_of_the_input_is_height_and_width():
    assert input_size(build_model("deit_micro_patch4_32", image_size=(32, 48))) == (
        32,
        48,
    )


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16", "bfloat16"])
def test_a_model_of_half_precision_has_a_twin_in_float32(dtype):
    model = build_model("deit_micro_distilled_patch4_32", 5, dtype=dtype)
    twin = float32_model(model)
    assert {layer.compute_dtype for layer in twin._flatten_layers()} == {"float32"}
    full = build_model("deit_micro_distilled_patch4_32", 5, dtype="float32")
    full.set_weights([np.asarray(w, "float32") for w in model.get_weights()])
    x = np.full((1, 32, 32, 3), 99, "float32")
    np.testing.assert_array_equal(twin(x)["class"], full(x)["class"])


def test_a_twin_in_bfloat16_has_its_heads_in_float32(student):
    twin = bfloat16_model(student)
    dtypes = {layer.name: layer.compute_dtype for layer in twin.layers}
    assert (dtypes["class_head"], dtypes["block_0"]) == ("float32", "bfloat16")
    x = some_images()
    exact, rounded = student(x)["class"], twin(x)["class"]
    np.testing.assert_allclose(rounded, exact, atol=0.01)
    assert np.abs(rounded - exact).max() > 0


def test_models_within_a_model_change_their_dtype_too():
    inner = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Conv2D(2, 3)])
    image = keras.Input((4, 4, 3))
    x = keras.layers.Flatten()(inner(image))
    model = keras.Model(image, keras.layers.Dense(2)(x))
    half = bfloat16_model(model)
    kinds = (keras.layers.Conv2D, keras.layers.Dense)
    layers = [x for x in half._flatten_layers() if isinstance(x, kinds)]
    dtypes = {type(layer): layer.compute_dtype for layer in layers}
    assert dtypes == {keras.layers.Conv2D: "bfloat16", keras.layers.Dense: "float32"}
    full = float32_model(half)
    assert {layer.compute_dtype for layer in full._flatten_layers()} == {"float32"}
    x = some_images()[:, :4, :4]
    np.testing.assert_allclose(full(x), model(x), rtol=1e-5)


def test_a_model_in_float32_is_its_own_twin():
    model = build_model("deit_micro_patch4_32", 5)
    assert float32_model(model) is model
