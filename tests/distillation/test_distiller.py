import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from keras_deit import Distiller, Teacher, create_model, with_keep_rate
from keras_deit.distillation import soft_distillation
from keras_deit.distillation.losses import label_cross_entropy
from tests.distillation.small_models import CLASSES, batch, compiled, head, two_heads


def test_blends_the_losses_of_both_heads():
    student, teacher, (x, y) = two_heads(), head("teacher"), batch()
    outputs, taught = student(x), teacher(x)
    results = compiled(student, teacher, "soft", alpha=0.3, temperature=2.0).evaluate(
        x, y, verbose=0, return_dict=True
    )
    label_loss = float(ops.mean(label_cross_entropy(y, outputs["class"])))
    soft = float(ops.mean(soft_distillation(outputs["distillation"], taught, 2.0)))
    assert results["label_loss"] == pytest.approx(label_loss, rel=1e-5)
    assert results["distillation_loss"] == pytest.approx(soft, rel=1e-5)
    assert results["loss"] == pytest.approx(0.7 * label_loss + 0.3 * soft, rel=1e-5)


def test_a_step_of_gradient_descent_by_numpy():
    student, (x, y) = head("student"), batch()
    kernel, bias = (np.array(w) for w in student.trainable_weights)
    flat = x.reshape(len(x), -1) / 255
    logits = flat @ kernel + bias
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    error = (p - np.eye(CLASSES)[y]) / len(x)
    compiled(student, kind="none").train_on_batch(x, y)
    np.testing.assert_allclose(
        student.trainable_weights[0], kernel - 0.1 * flat.T @ error, atol=1e-6
    )
    np.testing.assert_allclose(
        student.trainable_weights[1], bias - 0.1 * error.sum(0), atol=1e-6
    )


def test_an_example_of_weight_zero_counts_for_nothing():
    x, y = batch()
    weight = np.array([1, 1, 1, 0, 0, 0], "float32")
    distiller = compiled(two_heads(), head("t"))
    some = distiller.evaluate(x[:3], y[:3], verbose=0, return_dict=True)
    padded = distiller.evaluate(x, y, sample_weight=weight, verbose=0, return_dict=True)
    assert padded == pytest.approx(some, rel=1e-5)


def test_sample_weights_scale_the_gradient_of_both_terms():
    x, y = batch()

    def change(weight):
        keras.utils.set_random_seed(3)
        student = two_heads()
        before = student.get_weights()
        compiled(student, head("t"), "soft").train_on_batch(
            x, y, sample_weight=np.full(6, weight, "float32")
        )
        return [b - a for a, b in zip(before, student.get_weights(), strict=True)]

    for whole, half in zip(change(1.0), change(0.5), strict=True):
        np.testing.assert_allclose(half, whole / 2, atol=1e-6)
        assert np.abs(whole).max() > 1e-4


def test_a_keras_loss_may_replace_the_label_loss():
    student, (x, y) = head("student"), batch()
    distiller = Distiller(student, kind="none")
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.2)
    distiller.compile("sgd", loss=loss)
    one_hot = np.eye(CLASSES, dtype="float32")[y]
    results = distiller.evaluate(x, one_hot, verbose=0, return_dict=True)
    assert results["loss"] == pytest.approx(float(loss(one_hot, student(x))), rel=1e-5)


# The teacher is never tracked, saved, exported or changed.


def trainable_teacher():
    """A teacher with batch normalization whose weights nobody froze."""
    teacher = create_model("regnety_micro_32", num_classes=CLASSES)
    assert teacher.trainable
    return teacher


def micro_distiller(teacher=None):
    student = create_model("deit_micro_distilled_patch4_32", num_classes=CLASSES)
    return compiled(student, teacher or trainable_teacher(), optimizer="adamw")


def test_the_teacher_is_not_changed():
    teacher = trainable_teacher()
    before = teacher.get_weights()
    micro_distiller(teacher).fit(*batch(8, 32), batch_size=4, verbose=0)
    for old, new in zip(before, teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_the_teacher_is_not_tracked():
    distiller = micro_distiller()
    student = distiller.student
    assert [w.path for w in distiller.weights] == [w.path for w in student.weights]
    assert len(distiller.trainable_weights) == len(student.trainable_weights)
    assert distiller.layers == [student]
    assert distiller.count_params() == student.count_params()


def test_the_teacher_is_in_no_checkpoint(tmp_path):
    distiller = micro_distiller()
    path = tf.train.Checkpoint(student=distiller).save(str(tmp_path / "c"))
    shapes = [tuple(shape) for _, shape in tf.train.list_variables(path)]
    stem = distiller.teacher.model.get_layer("stem").conv.kernel
    assert tuple(stem.shape) not in shapes
    patches = distiller.student.get_layer("patch_embedding").projection.kernel
    assert tuple(patches.shape) in shapes


@pytest.mark.slow
def test_what_is_saved_is_the_student_and_loads_without_distiller(tmp_path):
    distiller = micro_distiller()
    x, _ = batch(2, 32)
    distiller.save(tmp_path / "student.keras")
    distiller.save_weights(tmp_path / "student.weights.h5")
    expected = distiller.student(x)["class"]
    script = (
        "import keras, keras_deit, json, sys, numpy as np; "
        f"model = keras.models.load_model({str(tmp_path / 'student.keras')!r}); "
        f"x = np.array({x.tolist()}, 'float32'); "
        "print(json.dumps([type(model).__name__, model(x)['class'].numpy().tolist()]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    kind, logits = json.loads(done.stdout)
    assert kind == "Functional"
    np.testing.assert_allclose(logits, expected, atol=1e-6)
    twin = create_model("deit_micro_distilled_patch4_32", num_classes=CLASSES)
    twin.load_weights(tmp_path / "student.weights.h5")
    np.testing.assert_array_equal(twin(x)["class"], expected)
    other = micro_distiller()
    other.load_weights(tmp_path / "student.weights.h5")
    np.testing.assert_array_equal(other(x)["class"], expected)


def test_what_is_exported_is_the_student(tmp_path):
    distiller = micro_distiller()
    distiller.export(tmp_path / "exported", verbose=False)
    exported = tf.saved_model.load(str(tmp_path / "exported"))
    assert len(exported.variables) == len(distiller.student.weights)
    x, _ = batch(2, 32)
    np.testing.assert_allclose(
        exported.serve(x)["distillation"],
        distiller.student(x)["distillation"],
        atol=1e-5,
    )


def test_no_gradient_flows_through_the_teacher():
    x, _ = batch()
    x = tf.Variable(x)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(Teacher(head("t"))(x))
    assert tape.gradient(total, x) is None


# What `keras.distillation` refuses works here.


def test_student_and_teacher_of_other_input_sizes():
    results = compiled(two_heads(), head("t", size=8)).evaluate(
        *batch(), verbose=0, return_dict=True
    )
    assert np.isfinite(results["loss"])


@pytest.mark.slow
def test_a_half_precision_student_of_a_float32_teacher():
    student = create_model(
        "deit_micro_distilled_patch4_32", num_classes=CLASSES, dtype="mixed_bfloat16"
    )
    distiller = compiled(student, trainable_teacher(), "soft", optimizer="adamw")
    before = student.get_weights()
    history = distiller.fit(*batch(4, 32), verbose=0)
    assert np.isfinite(history.history["loss"][0])
    assert all(w.dtype == "float32" for w in student.trainable_weights)
    assert any(
        (a != b).any() for a, b in zip(before, student.get_weights(), strict=True)
    )


def test_a_validation_split_and_a_second_epoch_do_not_retrace():
    distiller = compiled(two_heads(), head("t"))
    traces = []
    original = distiller.losses_of
    distiller.losses_of = lambda *a: traces.append(1) or original(*a)
    x, y = batch(24)
    history = distiller.fit(
        x, y, batch_size=6, epochs=3, validation_split=0.5, verbose=0
    )
    assert "val_fused_accuracy" in history.history
    assert len(traces) == 2  # one training step, one validation step


@pytest.mark.slow
def test_under_a_strategy_one_step_equals_the_doubled_batch(two_replicas):
    x, y = batch(8, 32)
    y = y.astype("int64")

    def weights_after_a_step(strategy):
        with strategy.scope():
            keras.utils.set_random_seed(5)
            student = create_model(
                "deit_micro_distilled_patch4_32", num_classes=CLASSES
            )
            teacher = create_model("regnety_micro_32", num_classes=CLASSES)
            distiller = compiled(
                student, teacher, "soft", optimizer=keras.optimizers.SGD(0.5)
            )
        start = student.get_weights()
        data = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
        history = distiller.fit(data, verbose=0)
        return start, student.get_weights(), history.history

    two = two_replicas
    assert two.num_replicas_in_sync == 2
    start, mirrored, mirrored_history = weights_after_a_step(two)
    _, single, single_history = weights_after_a_step(tf.distribute.get_strategy())
    moved = 0
    for before, a, b in zip(start, mirrored, single, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
        moved = max(moved, np.abs(b - before).max())
    assert moved > 1e-2
    for name, values in single_history.items():
        assert mirrored_history[name] == pytest.approx(values, abs=1e-5), name


# Refusals


def test_refuses_a_teacher_of_other_classes():
    image = keras.Input((4, 4, 3))
    other = keras.Model(image, keras.layers.Dense(7)(keras.layers.Flatten()(image)))
    with pytest.raises(
        ValueError, match="same classes. Received: student_classes=4, teacher_classes=7"
    ):
        Distiller(two_heads(), other)


def test_refuses_other_outputs():
    image = keras.Input((4, 4, 3))
    x = keras.layers.Dense(CLASSES)(keras.layers.Flatten()(image))
    with pytest.raises(ValueError, match="logits, or a dict of 'class' and 'distill"):
        Distiller(keras.Model(image, {"a": x, "b": x}), kind="none")
    y = keras.layers.Dense(2)(x)
    with pytest.raises(ValueError, match="heads must agree"):
        Distiller(keras.Model(image, {"class": x, "distillation": y}), kind="none")


def test_compile_refuses_what_it_would_ignore():
    distiller = Distiller(two_heads(), kind="none")
    with pytest.raises(ValueError, match="`metrics` cannot be given to a Distiller"):
        distiller.compile("sgd", metrics=["accuracy"])
    with pytest.raises(ValueError, match="of Keras mean losses of probabilities"):
        distiller.compile("sgd", loss="categorical_crossentropy")
    with pytest.raises(ValueError, match="must take logits: pass `from_logits=True`"):
        distiller.compile("sgd", loss=keras.losses.CategoricalCrossentropy())


def test_refuses_another_backend(monkeypatch):
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    with pytest.raises(ValueError, match="on TensorFlow only.*backend='jax'"):
        Distiller(two_heads(), kind="none")


def test_compile_refuses_losses_of_probabilities():
    distiller = Distiller(two_heads(), kind="none")
    with pytest.raises(ValueError, match="must take logits"):
        distiller.compile("sgd", loss=keras.losses.KLDivergence())
    with pytest.raises(ValueError, match="of Keras mean losses of probabilities"):
        distiller.compile("sgd", loss=keras.losses.categorical_crossentropy)


def test_the_students_own_losses_are_minimized():
    image = keras.Input((4, 4, 3))
    logits = keras.layers.Dense(CLASSES, kernel_regularizer=keras.regularizers.L2(0.5))
    student = keras.Model(image, logits(keras.layers.Flatten()(image)))
    kernel = np.array(logits.kernel)
    x = np.zeros((6, 4, 4, 3), "float32")  # black: labels say nothing of the kernel
    compiled(student, kind="none").train_on_batch(x, batch()[1])
    np.testing.assert_allclose(logits.kernel, kernel * (1 - 0.1 * 2 * 0.5), rtol=1e-5)


@pytest.mark.slow
def test_each_token_count_is_traced_once_whatever_the_replicas(two_replicas):
    x, y = batch(8, 32)
    with two_replicas.scope():
        student = create_model(
            "deit_micro_patch4_32", num_classes=CLASSES, depth=4, keep_rate=0.5
        )
        distiller = compiled(student, kind="none")
    for rate in (1.0, 0.7, 0.5):
        distiller.train_with(with_keep_rate(student, rate))
        distiller.fit(x, y.astype("int64"), batch_size=4, epochs=2, verbose=0)
    assert distiller.num_traces == 3
