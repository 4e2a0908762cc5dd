"""Terms of `keras.distillation` beside ours."""

import keras
import numpy as np
import pytest
from keras import ops
from keras.distillation import FeatureDistillation, LogitsDistillation

from keras_deit import Distiller, Teacher, create_model, with_keep_rate
from tests.distillation.small_models import CLASSES, batch, compiled, head, two_heads


def deep(name, width=6):
    image = keras.Input((4, 4, 3))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(image))
    x = keras.layers.Dense(width, name="hidden")(x)
    return keras.Model(image, keras.layers.Dense(CLASSES)(x), name=name)


def hidden(model, x):
    return np.array(keras.Model(model.inputs[0], model.get_layer("hidden").output)(x))


FEATURES = FeatureDistillation("mse", "hidden", "hidden")


def test_a_term_between_two_layers_by_numpy():
    student, teacher, (x, y) = deep("student"), deep("teacher"), batch()
    expected = np.mean((hidden(student, x) - hidden(teacher, x)) ** 2)
    kernel = np.array(student.get_layer("hidden").kernel)
    distiller = compiled(
        student, teacher, "soft", alpha=0.0, extra_losses=[(FEATURES, 2.0)]
    )
    twin = deep("student")
    twin.set_weights(student.get_weights())
    compiled(twin, kind="none").train_on_batch(x, y)
    gradient = 2 * (hidden(student, x) - hidden(teacher, x)) / hidden(student, x).size
    flat = x.reshape(len(x), -1) / 255
    results = distiller.train_on_batch(x, y, return_dict=True)
    assert results["extra_loss"] == pytest.approx(2 * expected, rel=1e-5)
    # A step of the label loss, and one of twice the mean square.
    np.testing.assert_allclose(
        np.array(student.get_layer("hidden").kernel) - kernel,
        np.array(twin.get_layer("hidden").kernel)
        - kernel
        - 0.1 * 2 * flat.T @ gradient,
        atol=1e-6,
    )


def test_a_term_of_logits_is_about_the_distillation_head():
    student, teacher, (x, y) = two_heads(), head("t"), batch()
    loss = LogitsDistillation(temperature=2.0)
    expected = float(loss.compute_loss(teacher(x), student(x)["distillation"]))
    distiller = compiled(student, teacher, extra_losses=[(loss, 1.0)])
    results = distiller.train_on_batch(x, y, return_dict=True)
    assert results["extra_loss"] == pytest.approx(expected, rel=1e-4)
    validation = distiller.evaluate(x, y, verbose=0, return_dict=True)
    assert "extra_loss" not in validation  # a term of training


def test_the_teacher_runs_once():
    calls = []

    def preprocess(x):
        calls.append(tuple(x.shape))
        return x

    teacher = deep("teacher")
    student = deep("student")
    distiller = Distiller(
        student, Teacher(teacher, preprocess=preprocess), extra_losses=[(FEATURES, 1)]
    )
    distiller.compile("sgd", run_eagerly=True)
    x, y = batch(size=4)
    calls.clear()  # it was shown noise before
    distiller.train_on_batch(x, y)
    assert calls == [(6, 4, 4, 3)]


def test_blocks_of_our_models_are_reachable_by_name():
    student = create_model("deit_micro_patch4_32", num_classes=CLASSES)
    teacher = create_model("deit_micro_patch4_32", num_classes=CLASSES)
    teacher.set_weights(student.get_weights())
    term = FeatureDistillation("mse", "block_1", "block_2")
    x, y = batch(4, 32)
    distiller = compiled(student, teacher, extra_losses=[(term, 1.0)])
    features = keras.Model(
        student.inputs[0], [student.get_layer(f"block_{i}").output for i in (1, 2)]
    )
    (one, *_), (two, *_) = features(x)
    expected = float(ops.mean((one - two) ** 2))
    results = distiller.train_on_batch(x, y, return_dict=True)
    assert results["extra_loss"] == pytest.approx(expected, rel=1e-4)


def test_refuses_what_is_no_term():
    for terms in ([FEATURES], [("mse", 1.0)], [(FEATURES, 1.0, 2.0)]):
        with pytest.raises(ValueError, match="must be pairs of a loss of keras.dist"):
            Distiller(deep("s"), deep("t"), extra_losses=terms)
    with pytest.raises(ValueError, match="`extra_losses` need a teacher"):
        Distiller(deep("s"), kind="none", extra_losses=[(FEATURES, 1.0)])


def test_refuses_layers_that_are_not_there():
    with pytest.raises(ValueError, match=r"layers of the student; .*\['hidden'\]"):
        Distiller(head("s"), deep("t"), extra_losses=[(FEATURES, 1.0)])
    with pytest.raises(ValueError, match=r"layers of the teacher; .*\['hidden'\]"):
        Distiller(deep("s"), head("t"), extra_losses=[(FEATURES, 1.0)])
    function = Teacher(lambda x: x[:, 0, 0], num_classes=CLASSES)
    with pytest.raises(ValueError, match="needs one that is a Keras model"):
        Distiller(deep("s"), function, extra_losses=[(FEATURES, 1.0)])


def test_the_keep_rate_of_a_watched_student_is_fixed():
    student = create_model("deit_micro_patch4_32", num_classes=CLASSES)
    term = FeatureDistillation("mse", "block_0", "block_0")
    teacher = create_model("deit_micro_patch4_32", num_classes=CLASSES)
    distiller = Distiller(student, teacher, extra_losses=[(term, 1.0)])
    with pytest.raises(ValueError, match="the keep rate is fixed"):
        distiller.train_with(with_keep_rate(student, 0.5))


def test_layers_are_not_looked_at_in_a_teacher_that_learns_or_is_cached():
    with pytest.raises(ValueError, match="need one that is not trained"):
        Distiller(
            deep("s"), deep("t"), train_teacher=True, extra_losses=[(FEATURES, 1.0)]
        )
    distiller = compiled(deep("s"), deep("t"), extra_losses=[(FEATURES, 1.0)])
    x, y = batch()
    with pytest.raises(ValueError, match="needs batches without 'teacher_logits'"):
        distiller.train_on_batch(x, {"label": y, "teacher_logits": np.eye(4)[y]})
