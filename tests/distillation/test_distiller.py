import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from keras_deit import Distiller, Teacher, create_model
from keras_deit.distillation import soft_distillation
from keras_deit.distillation.losses import hard_distillation, label_cross_entropy

CLASSES = 4


def head(name, size=4):
    """One dense layer on the pixels of a small image."""
    return keras.Sequential(
        [
            keras.Input((size, size, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(CLASSES, name="logits"),
        ],
        name=name,
    )


def two_heads():
    image = keras.Input((4, 4, 3), name="image")
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(image))
    outputs = {
        name: keras.layers.Dense(CLASSES, name=f"{name}_head")(x)
        for name in ("class", "distillation")
    }
    return keras.Model(image, outputs, name="student")


def batch(count=6, size=4):
    random = np.random.default_rng(1)
    x = random.uniform(0, 255, (count, size, size, 3)).astype("float32")
    return x, random.integers(0, CLASSES, count).astype("int32")


def compiled(*args, optimizer=None, **kwargs):
    distiller = Distiller(*args, **kwargs)
    distiller.compile(optimizer or keras.optimizers.SGD(0.1))
    return distiller


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


def test_reports_accuracy_and_agreement_of_each_head_by_hand():
    # Logits are the pixels of the first row: the heads, the teacher and the labels say:
    #   class        0 1 2 3   (right on 4, agrees on 2)
    #   distillation 0 1 3 2   (right on 2, agrees on 4)
    image = keras.Input((4, 4, 3))
    pixels = image[:, 0, :, :]  # (B, 4, 3): four classes, three answers
    student = keras.Model(
        image, {"class": pixels[..., 0], "distillation": pixels[..., 1]}
    )
    teacher = keras.Model(image, pixels[..., 2])
    x = np.zeros((4, 4, 4, 3), "float32")
    for row, (a, b, c) in enumerate([(0, 0, 0), (1, 1, 1), (2, 3, 3), (3, 2, 2)]):
        x[row, 0, a, 0], x[row, 0, b, 1], x[row, 0, c, 2] = 1, 2, 1
    results = compiled(student, teacher).evaluate(
        x, np.arange(4), verbose=0, return_dict=True
    )
    assert results["class_accuracy"] == 1.0
    assert results["class_agreement"] == 0.5
    assert results["distillation_accuracy"] == 0.5
    assert results["distillation_agreement"] == 1.0
    assert results["fused_accuracy"] == 0.5  # the distillation head speaks louder
    assert results["fused_agreement"] == 1.0


@pytest.mark.parametrize("kind", ["none", "soft", "hard"])
def test_one_head_gets_both_terms(kind):
    student, teacher, (x, y) = head("student"), head("teacher"), batch()
    logits, taught = student(x), teacher(x)
    results = compiled(student, teacher, kind).evaluate(
        x, y, verbose=0, return_dict=True
    )
    expected = label_cross_entropy(y, logits)
    if kind == "soft":
        expected = 0.5 * expected + 0.5 * soft_distillation(logits, taught)
    if kind == "hard":
        expected = 0.5 * expected + 0.5 * hard_distillation(logits, taught)
    assert results["loss"] == pytest.approx(float(ops.mean(expected)), rel=1e-5)
    assert {"accuracy", "agreement"} <= set(results)


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


def test_mixed_labels_are_distributions():
    student, (x, y) = two_heads(), batch()
    mixed = 0.7 * np.eye(CLASSES)[y] + 0.3 * np.eye(CLASSES)[y[::-1]]
    results = compiled(student, head("t")).evaluate(
        x, mixed.astype("float32"), verbose=0, return_dict=True
    )
    expected = -np.sum(mixed * np.array(ops.log_softmax(student(x)["class"])), -1)
    assert results["label_loss"] == pytest.approx(expected.mean(), rel=1e-5)


def test_labels_may_travel_in_a_dict():
    (x, y), distiller = batch(), compiled(two_heads(), head("t"))
    plain = distiller.evaluate(x, y, verbose=0, return_dict=True)
    named = distiller.evaluate(
        x, {"label": y, "id": np.arange(6)}, verbose=0, return_dict=True
    )
    assert plain == named


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


def test_with_kind_none_the_distillation_head_keeps_its_weights():
    student, (x, y) = two_heads(), batch()
    before = np.array(student.get_layer("distillation_head").kernel)
    compiled(student, kind="none").fit(x, y, verbose=0)
    np.testing.assert_array_equal(before, student.get_layer("distillation_head").kernel)


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


def test_the_teacher_runs_once_before_the_tape_opens(monkeypatch):
    events = []

    class Tape(tf.GradientTape):
        def __enter__(self):
            events.append("tape opens")
            return super().__enter__()

    distiller = Distiller(two_heads(), head("t"))
    distiller.compile("sgd", run_eagerly=True)
    teacher = distiller.teacher
    distiller.teacher = lambda x: events.append("teacher") or teacher(x)
    monkeypatch.setattr(tf, "GradientTape", Tape)
    distiller.train_on_batch(*batch())
    assert events == ["teacher", "tape opens"]


# What `keras.distillation` refuses works here.


def test_student_and_teacher_of_other_input_sizes():
    results = compiled(two_heads(), head("t", size=8)).evaluate(
        *batch(), verbose=0, return_dict=True
    )
    assert np.isfinite(results["loss"])


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


def test_float16_scales_its_loss():
    student = create_model(
        "deit_micro_distilled_patch4_32", num_classes=CLASSES, dtype="mixed_float16"
    )
    optimizer = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(0.01), initial_scale=8.0
    )
    distiller = compiled(student, trainable_teacher(), optimizer=optimizer)
    full = create_model("deit_micro_distilled_patch4_32", num_classes=CLASSES)
    full.set_weights(student.get_weights())
    plain = compiled(full, distiller.teacher, optimizer=keras.optimizers.SGD(0.01))
    x, y = batch(4, 32)
    distiller.train_on_batch(x, y)
    plain.train_on_batch(x, y)
    for a, b in zip(student.trainable_weights, full.trainable_weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_sparse_labels_with_hard_distillation_and_a_ready_made_teacher():
    teacher = Teacher(head("t"), preprocess=lambda x: x / 2)
    history = compiled(two_heads(), teacher, "hard").fit(*batch(), verbose=0)
    assert "distillation_agreement" in history.history


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


def test_under_a_strategy_one_step_equals_the_doubled_batch():
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

    two = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "firm"}, r"`kind` must be one of .*Received: kind='firm'"),
        ({"alpha": 1.5}, r"`alpha` must be in \[0, 1\]\. Received: alpha=1.5"),
        ({"kind": "soft", "temperature": 0}, "`temperature` must be positive"),
        ({"kind": "soft", "reduction": "sum"}, "`reduction` must be one of"),
        ({"temperature": 2.0}, "`temperature` has a meaning for `kind='soft'` only"),
        ({"reduction": "numel"}, "`reduction` has a meaning for `kind='soft'` only"),
        (
            {"kind": "soft", "teacher_label_smoothing": 0.1},
            "`teacher_label_smoothing` has a meaning for `kind='hard'` only",
        ),
        ({"teacher": None}, "`teacher` may be None with `kind='none'` only"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        Distiller(two_heads(), **{"teacher": head("t"), **arguments})


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


def test_a_column_of_labels_and_of_weights_is_read_as_a_row():
    (x, y), student, teacher = batch(), two_heads(), head("t")
    weight = np.linspace(0, 1, 6, dtype="float32")
    row = compiled(student, teacher).evaluate(
        x, y, sample_weight=weight, verbose=0, return_dict=True
    )
    column = compiled(student, teacher).evaluate(
        x, y[:, None], sample_weight=weight[:, None], verbose=0, return_dict=True
    )
    assert column == pytest.approx(row, rel=1e-6)


def test_the_students_own_losses_are_minimized():
    image = keras.Input((4, 4, 3))
    logits = keras.layers.Dense(CLASSES, kernel_regularizer=keras.regularizers.L2(0.5))
    student = keras.Model(image, logits(keras.layers.Flatten()(image)))
    kernel = np.array(logits.kernel)
    x = np.zeros((6, 4, 4, 3), "float32")  # black: labels say nothing of the kernel
    compiled(student, kind="none").train_on_batch(x, batch()[1])
    np.testing.assert_allclose(logits.kernel, kernel * (1 - 0.1 * 2 * 0.5), rtol=1e-5)


def test_a_float16_student_gets_a_loss_scale():
    student = create_model(
        "deit_micro_patch4_32", num_classes=CLASSES, dtype="mixed_float16"
    )
    distiller = compiled(student, kind="none")
    assert isinstance(distiller.optimizer, keras.optimizers.LossScaleOptimizer)
    assert not isinstance(
        compiled(two_heads(), kind="none").optimizer,
        keras.optimizers.LossScaleOptimizer,
    )
