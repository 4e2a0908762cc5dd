"""A teacher that learns beside its student."""

import tensorflow as tf

from keras_deit._checks import check
from keras_deit.distillation.batch import Batch
from keras_deit.distillation.optimization import apply, gradients_of
from keras_deit.distillation.side_state import SideState
from keras_deit.distillation.teacher import Teacher

PARTS = (True, "head")


class CoTraining:
    """Trains a teacher on the labels, a step before the student learns from it.

    Args:
        teacher: A `Teacher` of a Keras model.
        part: True trains the whole network, in training mode; "head" the head alone,
            the weights with "_head/" in their path or else those of the last layer, on
            the network in inference mode, so that batch norm keeps its statistics.

    Raises:
        ValueError: If there is no such part, the teacher is no Keras model or one of
            another strategy, or there is nothing to train.
    """

    def __init__(self, teacher: Teacher, part: bool | str):
        check(
            part in PARTS,
            "`train_teacher` must be False, True (all of it) or 'head'.",
            train_teacher=part,
        )
        check(
            teacher is not None and teacher.model is not None,
            "Only a teacher that is a Keras model can be trained.",
            teacher=teacher and teacher.kind,
            train_teacher=part,
        )
        strategy = tf.distribute.get_strategy()
        check(
            all(_is_of(strategy, weight) for weight in teacher.model.weights),
            "A teacher that is trained must be made in the scope of the strategy.",
            strategy=type(strategy).__name__,
        )
        self.teacher = teacher
        self.training = part is True
        self._side = SideState(teacher.model)
        weights = teacher.model.trainable_weights
        self.weights = weights if part is True else _head(teacher.model)
        check(
            bool(self.weights),
            "The teacher must have weights that can be trained.",
            teacher=teacher.model.name,
            train_teacher=part,
        )

    def step(self, optimizer, label_loss, batch: Batch):
        """Makes one step of the teacher.

        Args:
            optimizer: Of the teacher.
            label_loss: Called with (labels, logits), returns (B,).
            batch: What `fit` gave.

        Returns:
            The logits before the step, (B, Y), without gradient, and the loss of each
            example (B,).
        """
        state = self._side.read()
        with tf.GradientTape() as tape:
            with self._side.scope(state) as scope:
                logits = self.teacher.logits(batch.pixels, training=self.training)
            losses = label_loss(batch.labels, logits)
            own = sum(scope.losses) + sum(self.teacher.model.losses)
            loss = batch.mean(losses) + own
            loss = loss / tf.distribute.get_strategy().num_replicas_in_sync
            loss = optimizer.scale_loss(loss)
        apply(optimizer, gradients_of(tape, loss, self.weights), self.weights)
        self._side.write(self._side.after(scope, state))
        return tf.stop_gradient(logits), losses


def _is_of(strategy, weight) -> bool:
    return strategy.extended.variable_created_in_scope(weight.value)


def _head(model) -> list:
    weights = [w for w in model.trainable_weights if "_head/" in w.path]
    if weights:
        return weights
    last = (layer for layer in reversed(model.layers) if layer.trainable_weights)
    return next((layer.trainable_weights for layer in last), [])
