"""A teacher that learns in the same step as its student."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from keras_deit import Distiller, Teacher, create_model
from keras_deit.distillation.losses import label_cross_entropy
from tests.distillation.small_models import CLASSES, batch, head, two_heads


def co_trained(student, teacher, part=True, rate=0.1, **kwargs):
    distiller = Distiller(student, teacher, train_teacher=part, **kwargs)
    distiller.compile(
        keras.optimizers.SGD(0.1), teacher_optimizer=keras.optimizers.SGD(rate)
    )
    return distiller


def test_a_step_of_the_teacher_by_numpy():
    teacher, (x, y) = head("teacher"), batch()
    kernel, bias = (np.array(w) for w in teacher.trainable_weights)
    flat = x.reshape(len(x), -1) / 255
    logits = flat @ kernel + bias
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    error = (p - np.eye(CLASSES)[y]) / len(x)
    co_trained(two_heads(), teacher, rate=0.3).train_on_batch(x, y)
    np.testing.assert_allclose(
        teacher.trainable_weights[0], kernel - 0.3 * flat.T @ error, atol=1e-6
    )
    np.testing.assert_allclose(
        teacher.trainable_weights[1], bias - 0.3 * error.sum(0), atol=1e-6
    )


def test_the_student_learns_from_the_logits_before_the_teachers_step():
    x, y = batch()
    teacher, student, twin = head("teacher"), two_heads(), two_heads()
    twin.set_weights(student.get_weights())
    frozen = keras.models.clone_model(teacher)
    frozen.set_weights(teacher.get_weights())
    plain = Distiller(twin, frozen, kind="soft")
    plain.compile(keras.optimizers.SGD(0.1))
    plain.train_on_batch(x, y)
    co_trained(student, teacher, kind="soft").train_on_batch(x, y)
    for a, b in zip(student.weights, twin.weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_the_student_sees_the_logits_of_the_training_mode():
    # Dropout that drops everything: in training mode the teacher says its bias.
    image = keras.Input((4, 4, 3))
    x = keras.layers.Dropout(0.999999)(keras.layers.Flatten()(image))
    teacher = keras.Model(image, keras.layers.Dense(CLASSES)(x))
    teacher.layers[-1].bias.assign([0.0, 0.0, 9.0, 0.0])
    x, y = batch()
    student = head("student")
    distiller = co_trained(student, teacher, rate=1e-9)
    expected = np.mean(-np.array(ops.log_softmax(student(x)))[:, 2])
    results = distiller.train_on_batch(x, y, return_dict=True)
    assert results["distillation_loss"] == pytest.approx(expected, rel=1e-4)


def test_no_gradient_of_the_students_loss_reaches_the_teacher():
    teachers, (x, y) = [head("teacher"), head("teacher")], batch()
    teachers[1].set_weights(teachers[0].get_weights())
    for teacher, alpha in zip(teachers, (0.0, 1.0), strict=True):
        distiller = co_trained(two_heads(), teacher, kind="soft", alpha=alpha)
        distiller.train_on_batch(x, y)
    for one, other in zip(*(t.get_weights() for t in teachers), strict=True):
        np.testing.assert_array_equal(one, other)


def regnet():
    return create_model("regnety_micro_32", num_classes=CLASSES)


def changed(model, before):
    return {
        weight.path
        for weight, old in zip(model.weights, before, strict=True)
        if not np.array_equal(weight, old)
    }


def test_the_whole_teacher_moves_its_batch_norm_the_head_alone_does_not():
    x, y = batch(8, 32)
    student = create_model("deit_micro_distilled_patch4_32", num_classes=CLASSES)
    whole, only_head = regnet(), regnet()
    before = whole.get_weights()
    co_trained(student, whole).train_on_batch(x, y)
    moved = changed(whole, before)
    assert any("moving_mean" in path for path in moved)
    assert any("stem" in path and "kernel" in path for path in moved)
    before = only_head.get_weights()
    co_trained(student, only_head, part="head").train_on_batch(x, y)
    assert {path.split("/")[-2] for path in changed(only_head, before)} == {
        "class_head"
    }


def test_the_head_of_a_network_that_names_none_is_its_last_layer():
    image = keras.Input((4, 4, 3))
    x = keras.layers.Dense(5, name="body")(keras.layers.Flatten()(image))
    outputs = keras.layers.Dense(CLASSES, name="top")(x)
    teacher = keras.Model(image, keras.layers.Activation("linear")(outputs))
    before = teacher.get_weights()
    co_trained(two_heads(), teacher, part="head").train_on_batch(*batch())
    assert {path.split("/")[0] for path in changed(teacher, before)} == {"top"}


def test_the_teacher_is_reported_and_learns():
    x, y = batch(16)
    teacher = head("teacher")
    distiller = co_trained(two_heads(), teacher, rate=0.5)
    history = distiller.fit(
        x, y, epochs=10, batch_size=16, verbose=0, validation_data=(x, y)
    ).history
    assert history["teacher_loss"][-1] < history["teacher_loss"][0]
    assert history["val_teacher_accuracy"][-1] == pytest.approx(
        np.mean(np.argmax(teacher(x), -1) == y)
    )
    loss = float(ops.mean(label_cross_entropy(y, teacher(x))))
    assert history["val_teacher_loss"][-1] == pytest.approx(loss, rel=1e-5)


def test_it_is_still_not_tracked_and_not_saved(tmp_path):
    student = two_heads()
    distiller = co_trained(student, head("teacher"))
    assert [w.path for w in distiller.weights] == [w.path for w in student.weights]
    distiller.save(tmp_path / "student.keras")
    saved = keras.models.load_model(tmp_path / "student.keras")
    assert len(saved.weights) == len(student.weights)


def test_two_replicas_train_the_teacher_like_one(two_replicas):
    x, y = batch(8)
    y = y.astype("int64")

    def weights(strategy):
        with strategy.scope():
            keras.utils.set_random_seed(5)
            student, teacher = two_heads(), head("teacher")
            distiller = co_trained(student, teacher)
        data = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
        distiller.fit(data, epochs=3, verbose=0)
        return teacher.get_weights() + student.get_weights()

    two = weights(two_replicas)
    one = weights(tf.distribute.get_strategy())
    for a, b in zip(two, one, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("part", ["all", 1.5, None])
def test_refuses_another_part(part):
    with pytest.raises(ValueError, match=r"must be False, True .all of it. or 'head'"):
        Distiller(two_heads(), head("t"), train_teacher=part)


def test_refuses_a_teacher_that_cannot_be_trained(two_replicas):
    function = Teacher(lambda x: x[:, 0, 0], num_classes=CLASSES)
    with pytest.raises(ValueError, match="Only a teacher that is a Keras model"):
        Distiller(two_heads(), function, train_teacher=True)
    strategy = two_replicas
    outside = head("t")
    with strategy.scope(), pytest.raises(ValueError, match="in the scope of the strat"):
        Distiller(two_heads(), outside, train_teacher=True)
    frozen = head("t")
    frozen.trainable = False
    with pytest.raises(ValueError, match="must have weights that can be trained"):
        Distiller(two_heads(), frozen, train_teacher=True)
    with pytest.raises(ValueError, match="Only a teacher that is a Keras model"):
        Distiller(two_heads(), kind="none", train_teacher=True)
