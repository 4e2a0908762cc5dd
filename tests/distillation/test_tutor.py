"""Who is asked about a batch, and when."""

import numpy as np
import pytest
import tensorflow as tf

from keras_deit import Distiller, Teacher
from tests.distillation.small_models import CLASSES, batch, compiled, head, two_heads


def test_the_teacher_runs_once_before_the_tape_opens(monkeypatch):
    events, model = [], head("t")

    def answer(pixels):
        events.append("teacher")
        return model(pixels)

    class Tape(tf.GradientTape):
        def __enter__(self):
            events.append("tape opens")
            return super().__enter__()

    distiller = Distiller(two_heads(), Teacher(answer, num_classes=CLASSES))
    distiller.compile("sgd", run_eagerly=True)
    monkeypatch.setattr(tf, "GradientTape", Tape)
    events.clear()
    distiller.train_on_batch(*batch())
    assert events == ["teacher", "tape opens"]


def test_sparse_labels_with_hard_distillation_and_a_ready_made_teacher():
    teacher = Teacher(head("t"), preprocess=lambda x: x / 2)
    history = compiled(two_heads(), teacher, "hard").fit(*batch(), verbose=0)
    assert "distillation_agreement" in history.history


def logits_of(x):
    """Says that the class is the first channel's size: 0 or 3."""
    return np.where(x[:, :1, 0, 0] > 127, [[0, 0, 0, 1]], [[1, 0, 0, 0]]).astype("f4")


def cached(x, y):
    """A batch with what a teacher said of it."""
    named = {"label": y, "teacher_logits": logits_of(x)}
    return tf.data.Dataset.from_tensor_slices((x, named)).batch(len(x))


def test_what_travels_with_the_labels_takes_the_place_of_the_teacher():
    x, y = batch()
    student, twin = two_heads(), two_heads()
    twin.set_weights(student.get_weights())
    live = Teacher(logits_of, num_classes=CLASSES, as_numpy=True)
    expected = compiled(student, live).fit(x, y, batch_size=6, verbose=0).history
    asked = []
    silent = Teacher(lambda x: asked.append(1) or x[:, 0, 0, :1], num_classes=CLASSES)
    found = compiled(twin, silent).fit(cached(x, y), verbose=0).history
    assert not asked
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name] == pytest.approx(values), name
    for a, b in zip(student.weights, twin.weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-7)


def test_a_teacher_may_be_cached_in_training_and_live_in_validation():
    x, y = batch()
    live = Teacher(logits_of, num_classes=CLASSES, as_numpy=True)
    history = compiled(two_heads(), live).fit(
        cached(x, y), validation_data=(x, y), verbose=0
    )
    assert "val_fused_agreement" in history.history
    assert "val_distillation_loss" in history.history


def test_a_teacher_that_learns_and_one_that_is_cached_contradict_each_other():
    x, y = batch()
    distiller = compiled(two_heads(), head("t"), train_teacher=True)
    with pytest.raises(ValueError, match="needs batches without 'teacher_logits'"):
        distiller.fit(cached(x, y), verbose=0)


def test_an_optimizer_for_a_teacher_that_is_not_trained_is_refused():
    with pytest.raises(ValueError, match="a meaning with `train_teacher` only"):
        Distiller(two_heads(), head("t")).compile("sgd", teacher_optimizer="sgd")
