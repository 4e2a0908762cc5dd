"""The numbers that `Distiller` reports."""

import keras
import tensorflow as tf
from keras import ops

from keras_deit.models.inference import head_logits, model_output

OF_THE_TEACHER = ("teacher_loss", "teacher_accuracy")  # if it is trained


class Reported:
    """Means over an epoch, weighted by `sample_weight`.

    Args:
        student: Whose heads are reported.
        losses: Names of the losses.
        has_teacher: Whether the agreement with a teacher is reported.
        trains_teacher: Whether the teacher's own numbers are.
    """

    def __init__(self, student, losses, has_teacher: bool, trains_teacher: bool):
        # Prefix of the names -> head, as `head_logits` knows it.
        self._heads = {"": "fused"}
        if isinstance(model_output(student), dict):
            heads = ("class", "distillation", "fused")
            self._heads = {f"{head}_": head for head in heads}
        measures = ("accuracy", "agreement") if has_teacher else ("accuracy",)
        names = [*losses, *(p + m for m in measures for p in self._heads)]
        names += OF_THE_TEACHER if trains_teacher else ()
        self.metrics = {name: keras.metrics.Mean(name=name) for name in names}

    def update(self, batch, outputs, losses: dict, lesson) -> None:
        """Takes a batch in.

        Args:
            batch: A `Batch`.
            outputs: What the student returned.
            losses: Of each example, (B,), by name.
            lesson: A `Lesson`.
        """
        values = {**losses, **lesson.numbers}
        for prefix, head in self._heads.items():
            guess = ops.argmax(head_logits(outputs, head), axis=-1)
            values[f"{prefix}accuracy"] = equal(guess, batch.true_class)
            if lesson.logits is not None:
                agreed = equal(guess, ops.argmax(lesson.logits, axis=-1))
                values[f"{prefix}agreement"] = agreed
        self._known = [name for name in self.metrics if name in values]
        for name in self._known:
            self.metrics[name].update_state(values[name], sample_weight=batch.weight)

    def means(self) -> dict:
        """The means of what is known of the batches, over all replicas, by name."""
        means = [self.metrics[name] for name in self._known]
        totals = [tf.convert_to_tensor(mean.total.value) for mean in means]
        counts = [tf.convert_to_tensor(mean.count.value) for mean in means]
        sums = ops.stack([ops.stack(totals), ops.stack(counts)])
        replicas = tf.distribute.get_replica_context()
        if replicas.num_replicas_in_sync > 1:  # each has sums of its own
            sums = replicas.all_reduce(tf.distribute.ReduceOp.SUM, sums)
        values = ops.unstack(ops.divide_no_nan(sums[0], sums[1]), len(means))
        return dict(zip(self._known, values, strict=True))


def equal(a, b):
    """1.0 where two arrays of classes are the same, else 0.0."""
    return ops.cast(ops.equal(ops.cast(a, "int32"), ops.cast(b, "int32")), "float32")
