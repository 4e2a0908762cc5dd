"""What a step reads of what `fit` gives."""

import numpy as np
import pytest
from keras import ops

from tests.distillation.small_models import CLASSES, batch, compiled, head, two_heads


def test_labels_may_travel_in_a_dict():
    (x, y), distiller = batch(), compiled(two_heads(), head("t"))
    plain = distiller.evaluate(x, y, verbose=0, return_dict=True)
    named = distiller.evaluate(
        x, {"label": y, "id": np.arange(6)}, verbose=0, return_dict=True
    )
    assert plain == named


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


def test_mixed_labels_are_distributions():
    student, (x, y) = two_heads(), batch()
    mixed = 0.7 * np.eye(CLASSES)[y] + 0.3 * np.eye(CLASSES)[y[::-1]]
    results = compiled(student, head("t")).evaluate(
        x, mixed.astype("float32"), verbose=0, return_dict=True
    )
    expected = -np.sum(mixed * np.array(ops.log_softmax(student(x)["class"])), -1)
    assert results["label_loss"] == pytest.approx(expected.mean(), rel=1e-5)


def test_refuses_labels_under_another_name():
    (x, y), distiller = batch(), compiled(two_heads(), head("t"))
    for labels in ({"class": y}, {"label": y, "teacher_logit": y}):
        with pytest.raises(ValueError, match="must have 'label', and may have 'id'"):
            distiller.evaluate(x, labels, verbose=0)


def test_weights_may_be_of_another_precision():
    (x, y), distiller = batch(), compiled(two_heads(), head("t"))
    found = [
        distiller.evaluate(x, y, sample_weight=w, verbose=0, return_dict=True)
        for w in (np.full(6, 0.5), np.full(6, 0.5, "float32"))
    ]
    assert found[0] == pytest.approx(found[1])


def test_what_a_teacher_said_must_be_of_the_students_classes():
    (x, y), distiller = batch(), compiled(two_heads(), head("t"))
    with pytest.raises(ValueError, match="the same classes.*teacher_classes=1"):
        distiller.evaluate(x, {"label": y, "teacher_logits": x[:, 0, 0, :1]}, verbose=0)
