"""How the losses are blended."""

import pytest
from keras import ops

from keras_deit import Distiller
from keras_deit.distillation import soft_distillation
from keras_deit.distillation.losses import hard_distillation, label_cross_entropy
from keras_deit.distillation.objective import Objective
from tests.distillation.small_models import batch, compiled, head, two_heads


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


def test_without_what_a_teacher_said_the_loss_is_the_label_loss():
    label_loss = ops.convert_to_tensor([1.0, 2.0])
    assert Objective("soft")(label_loss, ops.zeros((2, 3)), None) == {
        "loss": label_loss,
        "label_loss": label_loss,
    }
