"""The training step of distillation, driven by `fit`."""

from functools import partial

import keras
import tensorflow as tf
from keras import ops

from keras_deit._checks import check, check_choice, check_share
from keras_deit.distillation.losses import (
    REDUCTIONS,
    for_each_example,
    hard_distillation,
    label_cross_entropy,
    soft_distillation,
)
from keras_deit.distillation.teacher import Teacher
from keras_deit.models.inference import head_logits, model_output

KINDS = ("none", "soft", "hard")


class Distiller(keras.Model):
    """Trains a student on labels and on what a teacher says about the same pixels.

    `loss = (1 - alpha) * label_loss + alpha * distillation_loss`: the label loss reads
    the class head, the distillation loss the distillation head; a student with one head
    gets both on the same logits. With `kind="none"` the loss is the label loss.

    The teacher runs once for each batch, in inference mode, outside the gradient tape.
    It is never tracked: saving, exporting and summarizing a `Distiller` is saving,
    exporting and summarizing its student.

    Losses that the student adds itself, such as those of regularizers, are minimized as
    well; they are not part of what is reported. Under a `tf.distribute` strategy the
    batch must be a multiple of the number of replicas.

    Beside the losses, `fit` and `evaluate` report for each head, and for both fused,
    the accuracy and, with a teacher, the agreement with it, both weighted by
    `sample_weight`.

    Args:
        student: A Keras classifier that returns logits (B, Y), or
            `{"class": logits, "distillation": logits}`.
        teacher: A `Teacher` or what `Teacher` accepts; may be None if `kind` is "none".
        kind: "hard", "soft" or "none".
        alpha: Weight of the distillation loss, in [0, 1].
        temperature: Softens both distributions; positive, for `kind="soft"` only.
        reduction: "batchmean" or "numel", for `kind="soft"`; see `soft_distillation`.
        teacher_label_smoothing: Smoothing of the teacher's labels, in [0, 1], for
            `kind="hard"` only. The papers' runs use 0.

    Raises:
        ValueError: If an argument is outside its range or has no meaning for `kind`, a
            teacher is missing, student and teacher differ in their classes, or Keras
            does not run on TensorFlow.

    Example:
    >>> def classifier(name):
    ...     return keras.Sequential([
    ...         keras.Input((4, 4, 3)), keras.layers.Flatten(), keras.layers.Dense(3),
    ...     ], name=name)
    >>> distiller = Distiller(classifier("student"), classifier("teacher"), kind="soft")
    >>> distiller.compile("adamw")
    >>> x, y = ops.ones((8, 4, 4, 3)), ops.zeros((8,), "int32")
    >>> history = distiller.fit(x, y, verbose=0)
    >>> sorted(history.history)[:2]
    ['accuracy', 'agreement']

    Reference:
        Touvron et al., DeiT (arXiv:2012.12877), section 4, equations 2 and 3; official
        code `losses.py`, `DistillationLoss`. We differ in three ways: the soft loss is
        a mean over the batch unless `reduction="numel"` (decision D11), a student with
        one head is allowed (the paper's rows without token), and both heads are
        reported.
    """

    def __init__(
        self,
        student: keras.Model,
        teacher=None,
        kind: str = "hard",
        alpha: float = 0.5,
        temperature: float = 1.0,
        reduction: str = "batchmean",
        teacher_label_smoothing: float = 0.0,
        name: str = "distiller",
    ):
        super().__init__(name=name, autocast=False)  # the student casts its pixels
        check(
            keras.config.backend() == "tensorflow",
            "A Distiller trains on TensorFlow only: set KERAS_BACKEND=tensorflow.",
            backend=keras.config.backend(),
        )
        check_choice("kind", kind, KINDS)
        check_share("alpha", alpha)
        check_choice("reduction", reduction, REDUCTIONS)
        check_share("teacher_label_smoothing", teacher_label_smoothing)
        check(
            temperature > 0, "`temperature` must be positive.", temperature=temperature
        )
        for option, value, neutral, meant_for in (
            ("temperature", temperature, 1.0, "soft"),
            ("reduction", reduction, "batchmean", "soft"),
            ("teacher_label_smoothing", teacher_label_smoothing, 0.0, "hard"),
        ):
            check(
                kind == meant_for or value == neutral,
                f"`{option}` has a meaning for `kind={meant_for!r}` only.",
                **{option: value},
                kind=kind,
            )
        self.student = student
        self.teacher = _as_teacher(teacher, kind)
        self.kind = kind
        self.alpha = alpha
        self.temperature = temperature
        self.reduction = reduction
        self.teacher_label_smoothing = teacher_label_smoothing
        _check_classes(student, self.teacher)
        # Prefix of the reported names -> head, as `head_logits` knows it.
        self.reported_heads = {"": "fused"}
        if isinstance(model_output(student), dict):
            self.reported_heads = {
                f"{head}_": head for head in ("class", "distillation", "fused")
            }
        self.reported = {
            name: keras.metrics.Mean(name=name) for name in self._report_names()
        }
        self.built = True
        self.num_traces = 0
        self.train_with(student)

    def _report_names(self) -> list[str]:
        losses = ["loss", "label_loss"]
        if self.kind != "none":
            losses.append("distillation_loss")
        measures = ["accuracy"] if self.teacher is None else ["accuracy", "agreement"]
        return losses + [p + m for m in measures for p in self.reported_heads]

    def compile(self, optimizer="adamw", loss=None, jit_compile=False, **kwargs):
        """Configures training.

        Args:
            optimizer: A Keras optimizer or its name. For a student in float16 it is
                wrapped in a `LossScaleOptimizer`, unless it is one.
            loss: The label loss, a `keras.losses.Loss` with `from_logits=True`, or a
                function of (labels, logits) that returns one value for each example;
                None takes the cross entropy, with class indices (B,) or distributions
                (B, Y).
            jit_compile: Whether to compile the step with XLA. Off by default: on a CPU
                it costs time and, in bfloat16, far more.
            **kwargs: What `keras.Model.compile` takes, except `metrics`,
                `weighted_metrics` and `loss_weights`: the heads are reported anyway,
                and `alpha` weighs the losses.

        Raises:
            ValueError: If one of those three is given, or the loss takes no logits.
        """
        for refused in ("metrics", "weighted_metrics", "loss_weights"):
            check(
                refused not in kwargs,
                f"`{refused}` cannot be given to a Distiller: it reports each head, "
                "and `alpha` weighs its losses.",
                **{refused: kwargs.get(refused)},
            )
        optimizer = keras.optimizers.get(optimizer)
        scales = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        layers = self.student._flatten_layers()
        if not scales and any(layer.compute_dtype == "float16" for layer in layers):
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        super().compile(optimizer=optimizer, jit_compile=jit_compile, **kwargs)
        self.label_loss = (
            label_cross_entropy if loss is None else for_each_example(loss)
        )

    def train_with(self, model, training: bool = True, heads_only: bool = False):
        """Chooses how the steps from now on train; they are traced anew.

        `num_traces` counts how often the step was traced.

        Args:
            model: What computes the outputs: the student, or a model of its very
                layers, such as `with_keep_rate(student, rate)`.
            training: Whether it is in training mode: stochastic depth, and batch norm
                with the statistics of the batch.
            heads_only: Whether the weights of the heads alone are trained, those with
                "_head/" in their path.

        Raises:
            ValueError: If there are no heads of that name.
        """
        check(
            not heads_only or any("_head/" in w.path for w in self.trainable_weights),
            "To train the heads alone, a layer whose name ends in '_head' is needed.",
            model=model.name,
        )
        # A partial of it, lest Keras tracks the model as a part of this one.
        self._forward = partial(model.__call__, training=training)
        self._heads_only = heads_only
        if self.train_function is not None:
            self.make_train_function(force=True)

    def call(self, pixels, training=None):
        return self.student(pixels, training=training)

    def losses_of(self, labels, outputs, teacher_logits=None) -> dict:
        """Computes the parts of the loss for each example.

        Args:
            labels: Class indices (B,), or distributions over classes (B, Y).
            outputs: What the student returned.
            teacher_logits: Logits of the teacher (B, Y); None if `kind` is "none".

        Returns:
            "loss", "label_loss" and, unless `kind` is "none", "distillation_loss", each
            of shape (B,).
        """
        two_heads = isinstance(outputs, dict)
        label_loss = self.label_loss(labels, outputs["class"] if two_heads else outputs)
        if self.kind == "none":
            return {"loss": label_loss, "label_loss": label_loss}
        student_logits = outputs["distillation"] if two_heads else outputs
        if self.kind == "soft":
            distillation_loss = soft_distillation(
                student_logits, teacher_logits, self.temperature, self.reduction
            )
        else:
            distillation_loss = hard_distillation(
                student_logits, teacher_logits, self.teacher_label_smoothing
            )
        loss = (1 - self.alpha) * label_loss + self.alpha * distillation_loss
        return {
            "loss": loss,
            "label_loss": label_loss,
            "distillation_loss": distillation_loss,
        }

    def train_step(self, data):
        self.num_traces += 1  # this runs in Python when the step is traced, only then
        pixels, labels, sample_weight = _unpack(data)
        teacher_logits = None if self.teacher is None else self.teacher(pixels)
        with tf.GradientTape() as tape:
            outputs = self._forward(pixels)
            losses = self.losses_of(labels, outputs, teacher_logits)
            replicas = tf.distribute.get_strategy().num_replicas_in_sync
            loss = _weighted_mean(losses["loss"], sample_weight)
            loss = (loss + sum(self.student.losses)) / replicas
            loss = self.optimizer.scale_loss(loss)
        weights = [
            weight
            for weight in self.trainable_weights
            if not self._heads_only or "_head/" in weight.path
        ]
        # A head that takes no part in the loss gets a zero, as in the official code.
        gradients = [
            ops.zeros_like(weight) if gradient is None else gradient
            for weight, gradient in zip(
                weights, tape.gradient(loss, weights), strict=True
            )
        ]
        self.optimizer.apply_gradients(zip(gradients, weights, strict=True))
        return self._report(labels, outputs, teacher_logits, losses, sample_weight)

    def test_step(self, data):
        pixels, labels, sample_weight = _unpack(data)
        teacher_logits = None if self.teacher is None else self.teacher(pixels)
        outputs = self.student(pixels, training=False)
        losses = self.losses_of(labels, outputs, teacher_logits)
        return self._report(labels, outputs, teacher_logits, losses, sample_weight)

    def _report(self, labels, outputs, teacher_logits, losses, sample_weight) -> dict:
        """Updates every reported number, and returns them."""
        values = dict(losses)
        true_class = labels
        if len(labels.shape) == 2:  # a distribution: the class with the largest share
            true_class = ops.argmax(labels, axis=-1)
        for prefix, head in self.reported_heads.items():
            guess = ops.argmax(head_logits(outputs, head), axis=-1)
            values[f"{prefix}accuracy"] = _equal(guess, true_class)
            if teacher_logits is not None:
                taught = ops.argmax(teacher_logits, axis=-1)
                values[f"{prefix}agreement"] = _equal(guess, taught)
        for name, metric in self.reported.items():
            metric.update_state(values[name], sample_weight=sample_weight)
        return self.get_metrics_result()

    @property
    def metrics(self):
        """The reported means, and nothing of Keras' own."""
        return list(self.reported.values())

    def save(self, filepath, *args, **kwargs):
        """Saves the student: the file loads without a `Distiller`."""
        self.student.save(filepath, *args, **kwargs)

    def save_weights(self, filepath, *args, **kwargs):
        """Saves the weights of the student."""
        self.student.save_weights(filepath, *args, **kwargs)

    def load_weights(self, filepath, *args, **kwargs):
        """Loads the weights of the student."""
        self.student.load_weights(filepath, *args, **kwargs)

    def export(self, filepath, *args, **kwargs):
        """Exports the student; `keras_deit.export` does more."""
        self.student.export(filepath, *args, **kwargs)


def _as_teacher(teacher, kind: str) -> Teacher | None:
    check(
        teacher is not None or kind == "none",
        "`teacher` may be None with `kind='none'` only.",
        teacher=teacher,
        kind=kind,
    )
    return (
        teacher if teacher is None or isinstance(teacher, Teacher) else Teacher(teacher)
    )


def _check_classes(student: keras.Model, teacher: Teacher | None) -> None:
    """Refuses heads and a teacher that do not agree on the classes."""
    outputs = model_output(student)
    check(
        not isinstance(outputs, dict) or set(outputs) == {"class", "distillation"},
        "`student` must return logits, or a dict of 'class' and 'distillation'.",
        outputs=outputs,
    )
    heads = outputs.values() if isinstance(outputs, dict) else [outputs]
    classes = {head.shape[-1] for head in heads}
    check(len(classes) == 1, "The student's heads must agree.", classes=classes)
    (num_classes,) = classes
    check(
        teacher is None or teacher.num_classes == num_classes,
        "Student and teacher must have the same classes.",
        student_classes=num_classes,
        teacher_classes=teacher and teacher.num_classes,
    )


def _unpack(data):
    pixels, labels, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    labels = labels["label"] if isinstance(labels, dict) else labels
    if labels.shape[1:] == (1,):  # a column of class indices
        labels = ops.reshape(labels, (-1,))
    if sample_weight is not None:
        sample_weight = ops.reshape(sample_weight, (-1,))
    return pixels, labels, sample_weight


def _weighted_mean(values, sample_weight):
    """Sum of the weighted values over the batch size, as Keras' losses do."""
    return ops.mean(values if sample_weight is None else values * sample_weight)


def _equal(a, b):
    return ops.cast(ops.equal(ops.cast(a, "int32"), ops.cast(b, "int32")), "float32")
