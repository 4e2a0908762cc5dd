"""What `fit` gives to a step."""

from dataclasses import dataclass

import keras
from keras import ops

from keras_deit._checks import check


@dataclass(frozen=True)
class Batch:
    """What a step of `Distiller` gets.

    Attributes:
        pixels: (B, H, W, 3).
        labels: Class indices (B,) or distributions (B, Y).
        weight: Of each example, (B,), or None.
        taught: What a teacher said of these pixels, (B, Y), or None.
    """

    pixels: object
    labels: object
    weight: object
    taught: object

    @property
    def true_class(self):
        """(B,); of a distribution the class with the largest share."""
        if len(self.labels.shape) == 1:
            return self.labels
        return ops.argmax(self.labels, axis=-1)

    def mean(self, values):
        """Sum of the weighted values over the batch size, as Keras' losses do."""
        return ops.mean(values if self.weight is None else values * self.weight)


def unpack(data) -> Batch:
    """Reads (x, y, weight), y perhaps a dict of "label" and "teacher_logits"."""
    pixels, y, weight = keras.utils.unpack_x_y_sample_weight(data)
    y = y if isinstance(y, dict) else {"label": y}
    check(
        "label" in y and not y.keys() - {"label", "id", "teacher_logits"},
        "A dict of labels must have 'label', and may have 'id' and 'teacher_logits'.",
        keys=sorted(y),
    )
    labels, taught = y["label"], y.get("teacher_logits")
    if labels.shape[1:] == (1,):  # a column of class indices
        labels = ops.reshape(labels, (-1,))
    if weight is not None:
        weight = ops.cast(ops.reshape(weight, (-1,)), "float32")
    return Batch(pixels, labels, weight, taught)
