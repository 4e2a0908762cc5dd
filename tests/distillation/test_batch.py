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
