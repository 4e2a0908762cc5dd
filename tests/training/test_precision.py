"""What is computed in half precision, what is not, and what overflows."""

import itertools
from collections import defaultdict
from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_deit import Distiller, create_model
from keras_deit.distillation.losses import (
    hard_distillation,
    label_cross_entropy,
    soft_distillation,
)
from keras_deit.models.preprocessing import preprocessing_of
from keras_deit.training import precision
from keras_deit.training.parts import build
from keras_deit.training.precision import check_compiler, in_precision, make_student
from keras_deit.training.teachers import load_teacher
from tests.training.small_recipes import RECIPE, teacher_of

HALF = ("mixed_bfloat16", "mixed_float16")
TEN = tuple("0123456789")
MICRO = "deit_micro_patch4_32"
TINY = {"image_size": 16, "depth": 1, "embed_dim": 16, "num_heads": 2}
PIXELS = np.random.default_rng(0).uniform(0, 255, (4, 16, 16, 3)).astype("float32")
LABELS = np.eye(4, dtype="float32")

FAMILIES = {
    "deit": ("deit_micro_distilled_patch4_32", {"depth": 1}),
    "evit": (MICRO, {"depth": 1, "keep_rate": 0.5}),
    "performer": ("t2t_vit_micro_32", {"depth": 1}),
    "transformer": ("t2t_vit_micro_32", {"depth": 1, "attention": "transformer"}),
    "regnety": ("regnety_micro_32", {}),
}
QUICK = {("evit", "mixed_float16"), ("performer", "mixed_bfloat16")}
CASES = [
    pytest.param(*case, marks=[] if case in QUICK else [pytest.mark.slow])
    for case in itertools.product(FAMILIES, HALF)
]
# Kinds of operations of normalizations, attention weights, ranking and losses.
EXACT = {
    "Mean",
    "SquaredDifference",
    "Rsqrt",
    "Softmax",
    "TopKV2",
    "LogSoftmax",
    "SparseSoftmaxCrossEntropyWithLogits",
}


def operations(model):
    """All operations of a step of training with all losses, and its outputs."""

    def step(pixels, labels, taught):
        with tf.GradientTape() as tape:
            logits = keras.tree.flatten(model(pixels, training=True))
            losses = [
                label_cross_entropy(labels, logits[0]),
                soft_distillation(logits[-1], taught),
                hard_distillation(logits[-1], taught),
            ]
            loss = sum(tf.reduce_mean(each) for each in losses)
        weights = [weight.value for weight in model.trainable_weights]
        return logits, losses, tape.gradient(loss, weights)

    shapes = [((2, 32, 32, 3), "float32"), ((2,), "int32"), ((2, 4), "float32")]
    inputs = [tf.TensorSpec(*shape) for shape in shapes]
    function = tf.function(step).get_concrete_function(*inputs)
    return function.graph.get_operations(), function.structured_outputs


def dtypes_of(operation):
    tensors = (*operation.inputs, *operation.outputs)
    return {x.dtype.name for x in tensors if x.dtype.is_floating}


@pytest.mark.parametrize(("family", "policy"), CASES)
def test_what_needs_full_precision_has_it(family, policy):
    name, overrides = FAMILIES[family]
    model = create_model(name, 4, dtype=policy, **overrides)
    graph, outputs = operations(model)
    dtypes = defaultdict(set)
    for operation in graph:
        dtypes[operation.type] |= dtypes_of(operation)
        own = "performer" in operation.name and operation.type != "Cast"
        # That of GELU's gradient may overflow, to the limit that it has there.
        own |= operation.type == "Exp" and "gradient_tape" not in operation.name
        assert not own or dtypes_of(operation) <= {"float32"}, operation.name
    for kind in EXACT & set(dtypes):
        assert dtypes[kind] == {"float32"}, kind
    assert {"Mean", "Rsqrt", "LogSoftmax"} <= set(dtypes)
    assert policy.removeprefix("mixed_") in dtypes["MatMul"]  # it is in effect
    assert {x.dtype.name for x in keras.tree.flatten(outputs)} == {"float32"}
    assert {weight.dtype for weight in model.trainable_weights} == {"float32"}


def tiny(policy="mixed_float16"):
    keras.utils.set_random_seed(3)
    return create_model(MICRO, 4, dtype=policy, **TINY)


def float16_distiller(initial_scale, teacher=None, **kwargs):
    distiller = Distiller(tiny(), teacher, "none" if teacher is None else "soft")
    optimizer = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(0.1), initial_scale=initial_scale
    )
    distiller.compile(optimizer, **kwargs)
    return distiller


def loss_of_a_step(distiller, pixels):
    return float(distiller.train_on_batch(pixels, LABELS, return_dict=True)["loss"])


def has_changed(distiller, before):
    after = distiller.student.get_weights()
    assert all(np.all(np.isfinite(weight)) for weight in after)
    return any(np.any(a != b) for a, b in zip(after, before, strict=True))


@pytest.mark.parametrize("has_teacher", [False, True])
def test_a_step_whose_gradient_overflows_is_skipped(has_teacher):
    teacher = tiny() if has_teacher else None
    distiller = float16_distiller(2.0**40, teacher)
    before = distiller.student.get_weights()
    distiller.train_on_batch(PIXELS, LABELS)
    scale = distiller.optimizer.dynamic_scale
    assert not has_changed(distiller, before)
    assert float(scale) == 2.0**39
    assert int(distiller.optimizer.iterations) == 0
    scale.assign(2.0**10)  # it would have come down to that in time
    distiller.train_on_batch(PIXELS, LABELS)
    assert has_changed(distiller, before)
    assert float(scale) == 2.0**10
    if has_teacher:
        taught = [x.numpy() for x in teacher.weights]
        keras.tree.map_structure(np.testing.assert_array_equal, taught, before)


@pytest.mark.slow
@pytest.mark.parametrize("place", [0, 3])  # of the first replica, of the second
def test_both_replicas_skip_what_overflows_on_one(two_replicas, place):
    with two_replicas.scope():
        distiller = float16_distiller(2.0**10)
    before = distiller.student.get_weights()
    # Replicas take halves of a batch: the gradient of one half is out of range.
    labels = np.array(LABELS, "float32")
    labels[place] *= 1e6
    distiller.fit(PIXELS, labels, batch_size=4, shuffle=False, verbose=0)
    assert not has_changed(distiller, before)
    assert float(distiller.optimizer.dynamic_scale.numpy()) == 2.0**9
    distiller.fit(PIXELS, LABELS, batch_size=4, shuffle=False, verbose=0)
    assert has_changed(distiller, before)
    kernel = distiller.student.get_layer("class_head").kernel.value
    one, other = two_replicas.experimental_local_results(kernel)
    np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_the_scale_of_the_loss_comes_down_until_it_fits():
    distiller = float16_distiller(2.0**24)
    before = distiller.student.get_weights()
    losses = [loss_of_a_step(distiller, PIXELS) for _ in range(20)]
    assert has_changed(distiller, before)
    assert 1 <= float(distiller.optimizer.dynamic_scale) < 2.0**24
    assert losses[-1] < losses[0]


def losses_of(name, overrides, jit_compile):
    """Of three steps without chance: XLA draws other numbers."""
    keras.utils.set_random_seed(3)
    student = create_model(name, 4, depth=1, **overrides)
    distiller = Distiller(student, kind="none")
    distiller.compile(keras.optimizers.SGD(0.05), jit_compile=jit_compile)
    distiller.train_with(student, training=False)
    pixels = np.tile(PIXELS, (1, 2, 2, 1))
    return [loss_of_a_step(distiller, pixels) for _ in range(3)]


@pytest.mark.slow
@pytest.mark.parametrize("name", [MICRO, "t2t_vit_micro_32"])
def test_xla_computes_the_same(name):
    plain, compiled = (losses_of(name, {}, jit) for jit in (False, True))
    np.testing.assert_allclose(compiled, plain, rtol=1e-5)
    assert plain[2] < plain[0]


def recorded(recipe, monkeypatch):
    """With what the student of a recipe is created."""
    calls = []

    def create(*args, **kwargs):
        calls.append((*args, kwargs, keras.config.dtype_policy().name))
        return "student"

    monkeypatch.setattr(precision, "create_model", create)
    assert make_student(recipe, 7) == "student"
    assert keras.config.dtype_policy().name == "float32"
    return calls[0]


def test_a_student_is_what_the_recipe_says(monkeypatch):
    recipe = replace(RECIPE, image_size=40, weights="w.keras", model_overrides={})
    created = recorded(recipe, monkeypatch)
    assert created[:5] == (MICRO, 7, 40, "w.keras", {"dtype": "float32"})
    recipe = replace(recipe, precision="mixed_float16", gradient_checkpointing=True)
    assert recorded(recipe, monkeypatch)[4] == {
        "dtype": "mixed_float16",
        "gradient_checkpointing": True,
    }


def test_a_dtype_among_the_overrides_still_counts(monkeypatch):
    recipe = replace(RECIPE, model_overrides={"dtype": "bfloat16"})
    assert recorded(recipe, monkeypatch)[4] == {"dtype": "bfloat16"}


def test_a_network_of_keras_is_built_under_the_policy(monkeypatch):
    recipe = replace(RECIPE, variant="keras:MobileNet", model_overrides={})
    assert recorded(recipe, monkeypatch)[4:] == ({}, "float32")
    recipe = replace(recipe, precision="mixed_bfloat16")
    assert recorded(recipe, monkeypatch)[4:] == ({}, "mixed_bfloat16")


def test_the_policy_comes_back_when_nothing_can_be_built():
    recipe = replace(RECIPE, variant="keras:MobileNet", precision="mixed_bfloat16")
    with pytest.raises(ValueError, match="has no fields to override"):
        make_student(recipe, 7)
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.slow
def test_a_network_of_keras_learns_in_half_precision():
    recipe = replace(RECIPE, variant="keras:MobileNet", model_overrides={})
    recipe = replace(recipe, image_size=32, precision="mixed_bfloat16")
    student = make_student(recipe, 7)
    assert student.get_layer("network").compute_dtype == "bfloat16"
    assert student.get_layer("class_head").compute_dtype == "float32"
    assert student(np.zeros((1, 32, 32, 3))).dtype == "float32"


def of_dtype(model):
    return {layer.name: layer.compute_dtype for layer in model._flatten_layers()}


def test_a_model_in_its_own_precision_is_itself():
    model = tiny("float32")
    assert in_precision(model, "float32") is model


def test_a_teacher_of_two_heads_gets_a_precision_of_its_own(tmp_path):
    model = create_model("deit_micro_distilled_patch4_32", 10, **TINY)
    model.save(tmp_path / "teacher.keras")
    recipe = replace(RECIPE, kind="hard", teacher=str(tmp_path / "teacher.keras"))
    exact = load_teacher(recipe, TEN)
    half = load_teacher(replace(recipe, teacher_precision="mixed_float16"), TEN)
    dtypes = of_dtype(half.model)
    assert dtypes["block_0"] == "float16"
    assert dtypes["class_head"] == dtypes["distillation_head"] == "float32"
    assert half.digest != exact.digest  # a cache of one is none of the other
    assert half.image_size == (16, 16)
    assert preprocessing_of(half.model) == preprocessing_of(exact.model)
    a, b = exact(PIXELS), half(PIXELS)
    assert b.dtype == "float32"
    np.testing.assert_allclose(a, b, atol=0.02)
    assert np.any(a != b)


def test_a_teacher_in_half_precision_can_be_one_in_float32(tmp_path):
    create_model(MICRO, 10, dtype="mixed_bfloat16", **TINY).save(tmp_path / "t.keras")
    recipe = replace(RECIPE, kind="hard", teacher=str(tmp_path / "t.keras"))
    as_it_is = load_teacher(recipe, TEN)
    exact = load_teacher(replace(recipe, teacher_precision="float32"), TEN)
    assert of_dtype(as_it_is.model)["block_0"] == "bfloat16"
    assert set(of_dtype(exact.model).values()) == {"float32"}


def test_a_teacher_that_is_trained_is_built_in_its_precision():
    recipe = replace(
        RECIPE,
        kind="hard",
        teacher=MICRO,
        teacher_weights="random",
        train_teacher=True,
        teacher_precision="mixed_float16",
    )
    teacher = load_teacher(recipe, TEN)
    assert of_dtype(teacher.model)["block_0"] == "float16"
    assert of_dtype(teacher.model)["class_head"] == "float32"


def test_probabilities_stay_probabilities(tmp_path):
    recipe = teacher_of(tmp_path, 10)
    model = keras.models.load_model(recipe.teacher)
    softmax = keras.layers.Softmax()(model.output)
    keras.Model(model.input, softmax).save(recipe.teacher)
    recipe = replace(
        recipe, teacher_from_logits=False, teacher_precision="mixed_float16"
    )
    teacher = load_teacher(recipe, TEN)
    assert list(of_dtype(teacher.model).values())[-2:] == ["float32"] * 2
    assert teacher(np.zeros((1, 32, 32, 3))).numpy().argmax() == 9


def test_a_saved_model_computes_in_what_it_was_made_in(tmp_path):
    recipe = teacher_of(tmp_path, 10)
    keras.models.load_model(recipe.teacher).export(tmp_path / "saved", verbose=False)
    recipe = replace(
        recipe, teacher=str(tmp_path / "saved"), teacher_precision="mixed_bfloat16"
    )
    with pytest.raises(ValueError, match="`teacher_precision` is for .* a Keras model"):
        load_teacher(recipe, TEN)


def test_xla_in_bfloat16_on_a_processor_is_refused():
    recipe = replace(RECIPE, jit_compile=True)
    rule = r"`jit_compile` on a processor needs float32: .* in_bfloat16=\['deit_micro"
    half, exact = tiny("mixed_bfloat16"), tiny("float32")
    for models in ((half, None), (exact, Distiller(exact, half).teacher)):
        with pytest.raises(ValueError, match=rule):
            check_compiler(recipe, *models)
        check_compiler(RECIPE, *models)
    check_compiler(recipe, exact, None)


def test_xla_on_several_processors_is_refused(two_replicas):
    rule = "`jit_compile` on processors needs a single replica: .* replicas=2"
    with two_replicas.scope(), pytest.raises(ValueError, match=rule):
        check_compiler(replace(RECIPE, jit_compile=True), None, None)


def test_on_an_accelerator_xla_may_compile_bfloat16(monkeypatch):
    def devices(kind):
        return ["an accelerator"] if kind == "TPU" else []

    monkeypatch.setattr(precision.tf.config, "list_logical_devices", devices)
    check_compiler(replace(RECIPE, jit_compile=True), tiny("mixed_bfloat16"), None)


@pytest.mark.slow
def test_a_recipe_in_half_precision_is_built_so():
    parts = build(replace(RECIPE, precision="mixed_float16"))
    assert of_dtype(parts.student)["block_0"] == "float16"
    assert isinstance(parts.distiller.optimizer, keras.optimizers.LossScaleOptimizer)
    assert not parts.distiller.jit_compile
    with pytest.raises(ValueError, match="`jit_compile` on a processor needs"):
        build(replace(RECIPE, precision="mixed_bfloat16", jit_compile=True))
