from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from keras_deit.distillation.losses import (
    hard_distillation,
    label_cross_entropy,
    soft_distillation,
)

GOLDEN = dict(np.load(Path(__file__).parents[1] / "golden" / "losses.npz"))
CASES = [
    name
    for name in GOLDEN
    if name[2:].startswith(("mixed_", "labels_")) and "_grad_" not in name
]


def test_soft_by_hand():
    # p = softmax([0, ln 3]) = [1/4, 3/4], q = softmax([0, 0]) = [1/2, 1/2]:
    # 1/4 ln(1/2) + 3/4 ln(3/2) = -0.1732868 + 0.3040988
    loss = soft_distillation(
        ops.zeros((1, 2)), ops.convert_to_tensor([[0.0, np.log(3)]])
    )
    np.testing.assert_allclose(loss, [0.1308120], rtol=1e-5)


def test_temperature_by_hand():
    # Logits twice as large at T = 2 give the same p and q, and T^2 = 4 times the loss.
    teacher = ops.convert_to_tensor([[0.0, 2 * np.log(3)]])
    loss = soft_distillation(ops.zeros((1, 2)), teacher, temperature=2.0)
    np.testing.assert_allclose(loss, [4 * 0.1308120], rtol=1e-5)


def test_hard_by_hand():
    # The teacher says class 1; log softmax([ln 3, 0])[1] = ln(1/4).
    student = ops.convert_to_tensor([[np.log(3), 0.0]])
    teacher = ops.convert_to_tensor([[-5.0, -4.0]])
    np.testing.assert_allclose(
        hard_distillation(student, teacher), [np.log(4)], rtol=1e-6
    )


def test_smoothing_of_the_teachers_label_by_hand():
    # Target [0.1, 0.9] over log softmax [ln(3/4), ln(1/4)].
    student = ops.convert_to_tensor([[np.log(3), 0.0]])
    loss = hard_distillation(student, ops.convert_to_tensor([[0.0, 1.0]]), 0.2)
    np.testing.assert_allclose(
        loss, [-(0.1 * np.log(3 / 4) + 0.9 * np.log(1 / 4))], rtol=1e-6
    )


def test_indices_and_one_hot_labels_are_the_same():
    logits = ops.convert_to_tensor(GOLDEN["b_cls"])
    labels = GOLDEN["b_labels"]
    np.testing.assert_array_equal(
        label_cross_entropy(labels, logits),
        label_cross_entropy(np.eye(7, dtype="float32")[labels], logits),
    )


def test_a_student_that_equals_its_teacher_has_no_soft_loss():
    logits = ops.convert_to_tensor(GOLDEN["b_cls"])
    np.testing.assert_allclose(soft_distillation(logits, logits, 3.0), 0, atol=1e-6)


def test_half_precision_logits_are_computed_in_float32():
    logits = ops.cast(GOLDEN["b_cls"], "bfloat16")
    teacher = ops.cast(GOLDEN["b_teacher"], "bfloat16")
    for loss in (
        soft_distillation(logits, teacher),
        hard_distillation(logits, teacher),
        label_cross_entropy(GOLDEN["b_labels"], logits),
    ):
        assert loss.dtype == "float32"
        assert bool(ops.all(ops.isfinite(loss)))


def test_extreme_logits_stay_finite():
    student = ops.convert_to_tensor([[1e4, -1e4, 0.0]])
    assert bool(ops.isfinite(soft_distillation(student, -student))[0])
    assert bool(ops.isfinite(hard_distillation(student, -student))[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": 0.0}, "`temperature` must be positive. Received: temp.*0.0"),
        ({"reduction": "mean"}, "`reduction` must be one of .* Received: .*'mean'"),
    ],
)
def test_soft_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        soft_distillation(ops.zeros((1, 2)), ops.zeros((1, 2)), **arguments)


def test_hard_refuses_a_smoothing_above_one():
    with pytest.raises(ValueError, match=r"`label_smoothing` must be in \[0, 1\]"):
        hard_distillation(ops.zeros((1, 2)), ops.zeros((1, 2)), 1.5)


def blended(name, class_logits, distillation_logits):
    """The loss that a case of the golden file names, by our functions."""
    prefix, labels, kind, *rest = name.split("_")
    targets = GOLDEN[f"{prefix}_{'targets_mixed' if labels == 'mixed' else 'labels'}"]
    teacher = GOLDEN[f"{prefix}_teacher"]
    label_loss = ops.mean(label_cross_entropy(targets, class_logits))
    if kind == "none":
        return label_loss
    alpha, tau = float(rest[0][len("alpha") :]), float(rest[1][len("tau") :])
    if kind == "soft":
        reduction = "batchmean" if rest[-1] == "batchmean" else "numel"
        term = soft_distillation(distillation_logits, teacher, tau, reduction)
    else:
        term = hard_distillation(distillation_logits, teacher)
    return (1 - alpha) * label_loss + alpha * ops.mean(term)


@pytest.mark.parametrize("name", CASES)
def test_equals_the_official_loss_and_its_gradients(name):
    class_logits = tf.Variable(GOLDEN[f"{name[0]}_cls"])
    distillation_logits = tf.Variable(GOLDEN[f"{name[0]}_dist"])
    with tf.GradientTape() as tape:
        loss = blended(name, class_logits, distillation_logits)
    np.testing.assert_allclose(loss, GOLDEN[name], rtol=1e-5)
    if f"{name}_grad_cls" in GOLDEN:
        gradients = tape.gradient(
            loss,
            [class_logits, distillation_logits],
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        for gradient, head in zip(gradients, ("cls", "dist"), strict=True):
            np.testing.assert_allclose(
                gradient, GOLDEN[f"{name}_grad_{head}"], rtol=1e-4, atol=1e-7
            )


def test_the_golden_file_has_all_kinds():
    assert len(CASES) == 44


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_teacher_that_says_no_numbers_is_not_taken_for_class_zero(bad):
    teacher = np.array([[0.0, bad, 1.0], [0.0, 2.0, 1.0]], "float32")
    loss = np.array(hard_distillation(np.zeros((2, 3), "float32"), teacher))
    np.testing.assert_allclose(loss, [np.nan, np.log(3)], rtol=1e-5)
