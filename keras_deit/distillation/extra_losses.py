"""Losses of `keras.distillation`, as terms beside ours."""

from collections.abc import Sequence

import keras
import tensorflow as tf
from keras import ops

from keras_deit._checks import check
from keras_deit.distillation.teacher import Teacher
from keras_deit.models.inference import model_output


class ExtraLosses:
    """Adds losses between layers of the student and of the teacher.

    Args:
        terms: Pairs of a loss of `keras.distillation` and its weight. A
            `FeatureDistillation` names a layer on each side, of which it compares the
            first output (the tokens, of our blocks); without names, and for
            `LogitsDistillation`, it is about the logits: of the distillation head, if
            there is one, and of the teacher.
        student: The student.
        teacher: A `Teacher`; of a Keras model if a loss names a layer.

    Raises:
        ValueError: If a term is no such pair, or a layer is not there.
    """

    def __init__(
        self,
        terms: Sequence[tuple[keras.distillation.DistillationLoss, float]],
        student: keras.Model,
        teacher: Teacher | None,
    ):
        for term in terms:
            check(
                isinstance(term, tuple)
                and len(term) == 2
                and isinstance(term[0], keras.distillation.DistillationLoss),
                "`extra_losses` must be pairs of a loss of keras.distillation and its "
                "weight.",
                extra_losses=terms,
            )
        check(
            not terms or teacher is not None,
            "`extra_losses` need a teacher.",
            teacher=teacher,
        )
        self.terms = tuple(terms)
        self._student_names = self._names("student_layer_name")
        self._student, self._teacher = student, teacher
        self._watched_teacher = None
        if names := self._names("teacher_layer_name"):
            check(
                teacher.model is not None,
                "A loss about a layer of the teacher needs one that is a Keras model.",
                teacher=teacher.kind,
                layers=names,
            )
            self._watched_teacher = _watched(teacher.model, names, "teacher")
        self.watch(student, training=True)  # refuses what is not there

    def _names(self, side: str) -> list[str]:
        names = (getattr(loss, side, None) for loss, _ in self.terms)
        return sorted({name for name in names if name is not None})

    def watch(self, model: keras.Model, training: bool):
        """Makes a function from pixels to what the student and its layers return.

        Args:
            model: The student, or a model of its very layers; not the latter if a loss
                names one of them.
            training: Whether it is in training mode.
        """
        # Functions, lest Keras tracks the models as parts of a `Distiller`.
        if not self._student_names:
            return lambda pixels: (model(pixels, training=training), {})
        check(
            model is self._student,
            "With `extra_losses` about layers of the student the keep rate is fixed.",
            student=self._student.name,
            model=model.name,
        )
        watched = _watched(model, self._student_names, "student")
        return lambda pixels: watched(pixels, training=training)

    @property
    def asks_layers(self) -> bool:
        """Whether a term is about a layer of the teacher."""
        return self._watched_teacher is not None

    def ask(self, pixels):
        """What the frozen teacher says, without gradient: its logits, its layers."""
        if self._watched_teacher is None:
            return self._teacher(pixels), {}
        teacher = self._teacher
        outputs, layers = self._watched_teacher(teacher.prepare(pixels), training=False)
        return tf.nest.map_structure(
            tf.stop_gradient, (teacher.finish(outputs), layers)
        )

    def value(self, outputs, layers: dict, lesson):
        """Computes the weighted sum of the terms, a scalar.

        Args:
            outputs: What the student returned.
            layers: What layers of the student returned, by name.
            lesson: What the teacher and its layers returned, see `Lesson`.
        """
        logits = outputs["distillation"] if isinstance(outputs, dict) else outputs
        ours = {None: logits, **layers}
        theirs = {None: lesson.logits, **lesson.layers}
        total = 0.0
        for loss, weight in self.terms:
            taught = theirs[getattr(loss, "teacher_layer_name", None)]
            learned = ours[getattr(loss, "student_layer_name", None)]
            total += weight * ops.cast(loss.compute_loss(taught, learned), "float32")
        return total


def _watched(model: keras.Model, names: Sequence[str], side: str) -> keras.Model:
    """A model that also returns what some of its layers return, by name."""
    known = {layer.name: layer for layer in model.layers}
    missing = [name for name in names if name not in known]
    check(
        not missing,
        f"`extra_losses` must name layers of the {side}; it has {sorted(known)}.",
        missing=missing,
        model=model.name,
    )
    outputs = {name: known[name].output for name in names}
    # A block of ours returns its tokens, and which of them it kept.
    layers = {n: x[0] if isinstance(x, list) else x for n, x in outputs.items()}
    return keras.Model(model.inputs[0], (model_output(model), layers))
