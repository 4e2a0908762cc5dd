"""The three losses, as arithmetic: logits in, one value for each example out."""

import keras
from keras import ops

from keras_deit._checks import check, check_choice, check_share

REDUCTIONS = ("batchmean", "numel")


def soft_distillation(
    student_logits, teacher_logits, temperature=1.0, reduction="batchmean"
):
    """Kullback-Leibler divergence of the student from the teacher, softened.

    `T^2 sum_c p_c (log p_c - log q_c)` with p = softmax(teacher / T) and
    q = softmax(student / T).

    Args:
        student_logits: Logits of the distillation head, shape (B, Y).
        teacher_logits: Logits of the teacher, shape (B, Y).
        temperature: T, above 0.
        reduction: "batchmean", the textbook's: the mean over B is the mean divergence.
            "numel", the official code's, divides by Y as well, so that the term weighs
            Y times less.

    Returns:
        The loss of each example in float32, shape (B,).

    Raises:
        ValueError: If `temperature` is not positive, or there is no such reduction.

    Example:
    >>> logits = ops.convert_to_tensor([[1.0, 2.0]])
    >>> round(float(soft_distillation(logits, 0 * logits)[0]), 4)
    0.1201

    Reference:
        Hinton et al. (arXiv:1503.02531), section 2; Touvron et al., DeiT
        (arXiv:2012.12877), equation 2; official code `losses.py`, `DistillationLoss`.
    """
    check(temperature > 0, "`temperature` must be positive.", temperature=temperature)
    check_choice("reduction", reduction, REDUCTIONS)
    log_p = _log_softmax(teacher_logits, temperature)
    log_q = _log_softmax(student_logits, temperature)
    divergence = temperature**2 * ops.sum(ops.exp(log_p) * (log_p - log_q), axis=-1)
    return divergence / (log_q.shape[-1] if reduction == "numel" else 1)


def hard_distillation(student_logits, teacher_logits, label_smoothing=0.0):
    """Cross entropy with the class that the teacher likes best.

    Args:
        student_logits: Logits of the distillation head, shape (B, Y).
        teacher_logits: Logits of the teacher, shape (B, Y).
        label_smoothing: Share of the target spread evenly over all Y classes, in
            [0, 1]. The papers' runs use 0.

    Returns:
        The loss of each example in float32, shape (B,); NaN where the teacher's logits
        are not finite.

    Raises:
        ValueError: If `label_smoothing` is outside [0, 1].

    Example:
    >>> student = ops.convert_to_tensor([[0.0, 1.0]])
    >>> teacher = ops.convert_to_tensor([[3.0, 1.0]])
    >>> round(float(hard_distillation(student, teacher)[0]), 4)
    1.3133

    Reference:
        Touvron et al., DeiT (arXiv:2012.12877), equation 3; official code `losses.py`,
        `DistillationLoss`.
    """
    check_share("label_smoothing", label_smoothing)
    num_classes = teacher_logits.shape[-1]
    target = ops.one_hot(ops.argmax(teacher_logits, axis=-1), num_classes)
    target = (1 - label_smoothing) * target + label_smoothing / num_classes
    loss = -ops.sum(target * _log_softmax(student_logits), axis=-1)
    # The argmax of no numbers is a class, too: then nobody would notice.
    taught = ops.all(ops.isfinite(teacher_logits), axis=-1)
    return ops.where(taught, loss, float("nan"))


def label_cross_entropy(labels, logits):
    """Cross entropy with the true labels.

    Args:
        labels: Class indices, shape (B,), or a distribution over the classes (smoothed
            or mixed labels), shape (B, Y).
        logits: Logits of the class head, shape (B, Y).

    Returns:
        The loss of each example in float32, shape (B,).

    Example:
    >>> logits = ops.convert_to_tensor([[0.0, 1.0]])
    >>> round(float(label_cross_entropy(ops.convert_to_tensor([0]), logits)[0]), 4)
    1.3133
    """
    if len(labels.shape) == 1:
        logits = ops.cast(logits, "float32")
        return ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    return -ops.sum(ops.cast(labels, "float32") * _log_softmax(logits), axis=-1)


def for_each_example(loss):
    """Makes of a loss a function that returns one value for each example.

    Args:
        loss: A `keras.losses.Loss` with `from_logits=True`, or a function of (labels,
            logits) that does so already.

    Returns:
        A function of (labels, logits).

    Raises:
        ValueError: If `loss` cannot be called, or is a loss of probabilities.
    """
    is_keras_function = getattr(loss, "__module__", "").startswith("keras.")
    is_loss = isinstance(loss, keras.losses.Loss)
    check(
        callable(loss) and (is_loss or not is_keras_function),
        "`loss` must be a Keras loss object or a function of yours; the names and "
        "functions of Keras mean losses of probabilities.",
        loss=loss,
    )
    if not is_loss:
        return loss
    config = loss.get_config()
    check(
        config.get("from_logits") is True,
        "`loss` must take logits: pass `from_logits=True` to it.",
        loss=loss.name,
    )
    return type(loss).from_config({**config, "reduction": "none"})


def _log_softmax(logits, temperature=1.0):
    return ops.log_softmax(ops.cast(logits, "float32") / temperature, axis=-1)
