"""The training step of distillation, driven by `fit`."""

from collections.abc import Sequence
from weakref import WeakSet

import keras
import tensorflow as tf
from keras import ops

from keras_deit._checks import check
from keras_deit.distillation.batch import unpack
from keras_deit.distillation.extra_losses import ExtraLosses
from keras_deit.distillation.keras_fit import function_of, num_workers
from keras_deit.distillation.losses import for_each_example, label_cross_entropy
from keras_deit.distillation.objective import Objective
from keras_deit.distillation.optimization import (
    accumulated,
    apply,
    gradients_of,
    scaled,
)
from keras_deit.distillation.reported import Reported
from keras_deit.distillation.side_state import SideState
from keras_deit.distillation.teacher import Teacher
from keras_deit.distillation.tutor import Tutor
from keras_deit.models.inference import model_output


class Distiller(keras.Model):
    """Trains a student on labels and on what a teacher says about the same pixels.

    `loss = (1 - alpha) * label_loss + alpha * distillation_loss`: the label loss reads
    the class head, the distillation loss the distillation head; a student with one head
    gets both on the same logits. With `kind="none"` the loss is the label loss.

    The teacher runs once for each batch, in inference mode, outside the gradient tape.
    It is never tracked: saving, exporting and summarizing a `Distiller` is saving,
    exporting and summarizing its student.

    Where the labels of a batch come as `{"label": ..., "teacher_logits": ...}`, the
    teacher is not asked: these are what it said, see `TeacherCache.join`. If it is
    nothing but a cache, batches without them are for `evaluate` alone, which then
    reports the label loss and the accuracies.

    With `train_teacher` the teacher learns from the labels in the same step, by an
    optimizer of its own; the student is taught by its logits in training mode, before
    its step, without gradient. It is saved by nobody: `distiller.teacher.model.save`.

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
        train_teacher: False; True to train the whole teacher as well; or "head" to
            train its head alone, the rest in inference mode.
        accumulate_steps: Micro-batches that a training step takes one after the other,
            each of so small a share of the batch of a replica. The gradients are summed
            and applied once: the same step with less memory, but that batch norm sees
            the statistics of a micro-batch. Not for a teacher that is trained.
        extra_losses: Further terms of the loss in training: pairs of a loss of
            `keras.distillation`, for instance `FeatureDistillation` between two layers,
            and its weight. Reported together as "extra_loss"; they do not know
            `sample_weight`.

    Raises:
        ValueError: If an argument is outside its range or has no meaning for `kind`, a
            teacher is missing, student and teacher differ in their classes, the teacher
            cannot be trained, or Keras does not run on TensorFlow.

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
        train_teacher: bool | str = False,
        accumulate_steps: int = 1,
        extra_losses: Sequence[tuple] = (),
        name: str = "distiller",
    ):
        super().__init__(name=name, autocast=False)  # the student casts its pixels
        check(
            keras.config.backend() == "tensorflow",
            "A Distiller trains on TensorFlow only: set KERAS_BACKEND=tensorflow.",
            backend=keras.config.backend(),
        )
        self.objective = Objective(
            kind, alpha, temperature, reduction, teacher_label_smoothing
        )
        self.student = student
        self.teacher = _as_teacher(teacher, kind)
        _check_classes(student, self.teacher)
        if self.teacher is not None and self.teacher.cache is not None:
            self.teacher.cache.check_loss(kind, temperature)
        self._extra = ExtraLosses(extra_losses, student, self.teacher)
        self.tutor = Tutor(self.teacher, train_teacher, self._extra)
        self._reported = Reported(
            student,
            self._loss_names(),
            has_teacher=self.teacher is not None,
            trains_teacher=self.tutor.training is not None,
        )
        self.built = True
        check(
            accumulate_steps >= 1 and (accumulate_steps == 1 or not train_teacher),
            "`accumulate_steps` must be at least 1, and 1 with a teacher that is "
            "trained, which makes a step of its own for each batch.",
            accumulate_steps=accumulate_steps,
            train_teacher=train_teacher,
        )
        self.accumulate_steps = accumulate_steps
        self._side = SideState(student)
        self.num_traces = 0
        self._graphs = WeakSet()
        self.train_with(student)

    def _loss_names(self) -> list[str]:
        names = ["loss", "label_loss"]
        if self.objective.kind != "none":
            names.append("distillation_loss")
        if self._extra.terms:
            names.append("extra_loss")
        return names

    def compile(
        self,
        optimizer="adamw",
        loss=None,
        jit_compile=False,
        teacher_optimizer=None,
        **kwargs,
    ):
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
            teacher_optimizer: Like `optimizer`, for a teacher that is trained; None
                takes "adamw".
            **kwargs: What `keras.Model.compile` takes, except `metrics`,
                `weighted_metrics` and `loss_weights`: the heads are reported anyway,
                and `alpha` weighs the losses.

        Raises:
            ValueError: If one of those three is given, the loss takes no logits, or
                there is an optimizer for a teacher that is not trained.
        """
        for refused in ("metrics", "weighted_metrics", "loss_weights"):
            check(
                refused not in kwargs,
                f"`{refused}` cannot be given to a Distiller: it reports each head, "
                "and `alpha` weighs its losses.",
                **{refused: kwargs.get(refused)},
            )
        self.tutor.compile(teacher_optimizer)
        optimizer = scaled(optimizer, self.student)
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
        self._forward = self._extra.watch(model, training)
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
            teacher_logits: Logits of the teacher (B, Y); None for the label loss alone.

        Returns:
            "loss", "label_loss" and, if there is a distillation loss,
            "distillation_loss", each of shape (B,).
        """
        logits = outputs["class"] if isinstance(outputs, dict) else outputs
        check(
            teacher_logits is None or teacher_logits.shape[-1] == logits.shape[-1],
            "Student and teacher must have the same classes.",
            student_classes=logits.shape[-1],
            teacher_classes=teacher_logits is not None and teacher_logits.shape[-1],
        )
        return self.objective(self.label_loss(labels, logits), outputs, teacher_logits)

    def train_step(self, data):
        self._count_trace()
        weights = [
            weight
            for weight in self.trainable_weights
            if not self._heads_only or "_head/" in weight.path
        ]
        state = self._side.read()
        gradients, after = accumulated(
            lambda data, state: self._gradients(data, state, weights),
            data,
            state,
            weights,
            self.accumulate_steps,
        )
        apply(self.optimizer, gradients, weights)
        self._side.write(after)
        return self._reported.means()

    def make_train_function(self, force=False):
        if num_workers(self.distribute_strategy) == 1:
            super().make_train_function(force)
        elif self.train_function is None or force:
            self.train_function = function_of(self.train_step, self)

    def make_test_function(self, force=False):
        if num_workers(self.distribute_strategy) == 1:
            super().make_test_function(force)
        elif self.test_function is None or force:
            self.test_function = function_of(self.test_step, self)

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        """Builds the optimizer: all else is built before; see `keras_fit`."""
        if self.distribute_strategy.num_replicas_in_sync > 1:
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_weights)

    def _count_trace(self) -> None:
        """Counts the graphs that the step is traced in, once for all its replicas."""
        graph = tf.compat.v1.get_default_graph()
        self.num_traces += graph not in self._graphs
        self._graphs.add(graph)

    def _gradients(self, data, state: list, weights: list):
        """The gradients of a batch or a micro-batch, and the state after it."""
        batch = unpack(data)
        lesson = self.tutor.teach(batch, self.label_loss)
        with tf.GradientTape() as tape:
            with self._side.scope(state) as scope:
                outputs, layers = self._forward(lesson.before(batch.pixels))
            losses = self.losses_of(batch.labels, outputs, lesson.logits)
            own = sum(scope.losses) + sum(self.student.losses)
            loss = batch.mean(losses["loss"]) + own
            if self._extra.terms:
                extra = self._extra.value(outputs, layers, lesson)
                loss += extra
                losses["extra_loss"] = extra * ops.ones_like(losses["loss"])
            replicas = tf.distribute.get_strategy().num_replicas_in_sync
            loss = loss / (replicas * self.accumulate_steps)
            loss = self.optimizer.scale_loss(loss)
        self._reported.update(batch, outputs, losses, lesson)
        return gradients_of(tape, loss, weights), self._side.after(scope, state)

    def test_step(self, data):
        batch = unpack(data)
        lesson = self.tutor.examine(batch, self.label_loss)
        outputs = self.student(lesson.before(batch.pixels), training=False)
        losses = self.losses_of(batch.labels, outputs, lesson.logits)
        self._reported.update(batch, outputs, losses, lesson)
        return self._reported.means()

    @property
    def metrics(self):
        """The reported means, and nothing of Keras' own."""
        return list(self._reported.metrics.values())

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
