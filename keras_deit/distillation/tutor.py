"""What the student is told of a batch, wherever it comes from."""

from dataclasses import dataclass, field

import tensorflow as tf
from keras import ops

from keras_deit._checks import check
from keras_deit.distillation.batch import Batch
from keras_deit.distillation.co_training import CoTraining
from keras_deit.distillation.extra_losses import ExtraLosses
from keras_deit.distillation.optimization import scaled
from keras_deit.distillation.reported import OF_THE_TEACHER, equal
from keras_deit.distillation.teacher import Teacher


@dataclass(frozen=True)
class Lesson:
    """What is known of a batch before the student's step.

    Attributes:
        logits: Of the teacher, (B, Y), without gradient; None if there is none.
        layers: What layers of the teacher returned, by name.
        numbers: What is reported of a teacher that is trained, (B,) each, by name.
    """

    logits: object = None
    layers: dict = field(default_factory=dict)
    numbers: dict = field(default_factory=dict)

    def before(self, pixels):
        """The pixels, once the lesson is over.

        Teacher and student do not run at the same time: on a CPU the order in which
        numbers are summed up, and so the last bit, would depend on who is faster.
        """
        if self.logits is None:
            return pixels
        with tf.control_dependencies([self.logits]):
            return tf.identity(pixels)


class Tutor:
    """Asks the teacher once for each batch, or reads what it said before.

    Args:
        teacher: A `Teacher`, or None.
        train_teacher: Which part of it is trained; see `Distiller`.
        extra: Says which layers of it are asked for.

    Raises:
        ValueError: If the teacher cannot be trained.
    """

    def __init__(
        self, teacher: Teacher | None, train_teacher: bool | str, extra: ExtraLosses
    ):
        self._teacher = teacher
        self._extra = extra
        self.training = None
        self.optimizer = None
        check(
            train_teacher is False or not extra.asks_layers,
            "`extra_losses` about layers of a teacher need one that is not trained.",
            train_teacher=train_teacher,
        )
        if train_teacher is not False:
            self.training = CoTraining(teacher, train_teacher)

    def compile(self, optimizer) -> None:
        """Takes the optimizer of a teacher that is trained; None for the usual one.

        Raises:
            ValueError: If there is one, but the teacher is not trained.
        """
        check(
            optimizer is None or self.training is not None,
            "`teacher_optimizer` has a meaning with `train_teacher` only.",
            teacher_optimizer=optimizer,
        )
        if self.training is not None:
            self.optimizer = scaled(optimizer or "adamw", self._teacher.model)
            self.optimizer.build(self.training.weights)

    def teach(self, batch: Batch, label_loss) -> Lesson:
        """Prepares a training step; a teacher that is trained makes its own.

        Args:
            batch: What `fit` gave.
            label_loss: Called with (labels, logits), returns (B,).

        Raises:
            ValueError: If the teacher is a cache and the batch has none of it, or is
                trained and the batch has logits of one.
        """
        if batch.taught is not None:
            check(
                self.training is None and not self._extra.asks_layers,
                "A teacher that is trained, or whose layers are looked at, needs "
                "batches without 'teacher_logits'.",
                teacher=self._teacher and self._teacher.kind,
            )
            return Lesson(batch.taught)
        if self.training is not None:
            logits, losses = self.training.step(self.optimizer, label_loss, batch)
            return Lesson(logits, numbers=_numbers(batch, logits, losses))
        if self._teacher is None:
            return Lesson()
        check(
            self._teacher.cache is None,
            "A teacher cache needs batches with 'teacher_logits' beside 'label': those "
            "of `TeacherCache.join`.",
            teacher=self._teacher.kind,
        )
        return Lesson(*self._extra.ask(batch.pixels))

    def examine(self, batch: Batch, label_loss) -> Lesson:
        """Prepares a validation step: nobody learns, a cache knows nothing."""
        if batch.taught is not None:
            return Lesson(batch.taught)
        if self._teacher is None or self._teacher.cache is not None:
            return Lesson()
        logits = self._teacher(batch.pixels)
        if self.training is None:
            return Lesson(logits)
        losses = label_loss(batch.labels, logits)
        return Lesson(logits, numbers=_numbers(batch, logits, losses))


def _numbers(batch: Batch, logits, losses) -> dict:
    right = equal(ops.argmax(logits, axis=-1), batch.true_class)
    return dict(zip(OF_THE_TEACHER, (losses, right), strict=True))
