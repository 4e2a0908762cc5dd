"""One face for every teacher: pixels in, logits out, nothing ever changed."""

from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import tensorflow as tf

from keras_deit._checks import check
from keras_deit.models.factory import image_height_and_width
from keras_deit.models.inference import inference_model, model_output
from keras_deit.weights.loader import load_model


class Teacher:
    """Wraps a classifier so that a student can learn from it.

    It is called in inference mode, outside any gradient, on the pixels that the student
    sees. It is no Keras object, so a `Distiller` that holds one neither tracks, saves,
    exports nor trains it.

    Args:
        model: A Keras classifier with one output of shape (B, Y), or a distilled model
            (its fused head teaches), or the path of a `.keras` file.
        image_size: Side of the teacher's input or (height, width), in pixels; the
            pixels are resized to it, bilinear and antialiased. None reads it from the
            model.
        preprocess: Called on the resized pixels, in [0, 255], before the model; None if
            the model takes them as they are, as all of this package do.
        classes: Which of the model's classes the student has, as indices in the
            student's order, each at least 0; None takes all as they are.
        from_logits: Whether the model returns logits; if False, it returns
            probabilities, and their logarithms are the logits.

    Raises:
        ValueError: If the model does not take RGB images, does not end in one output of
            classes, or ends in a softmax while `from_logits` is True; or if `classes`
            names one that it lacks.
        FileNotFoundError: If there is no such file.

    Example:
    >>> teacher = Teacher(keras.Sequential([
    ...     keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(5),
    ... ]))
    >>> tuple(teacher(keras.ops.ones((2, 32, 32, 3))).shape)
    (2, 5)
    """

    def __init__(
        self,
        model: keras.Model | str | Path,
        image_size: int | tuple[int, int] | None = None,
        preprocess: Callable | None = None,
        classes: Sequence[int] | None = None,
        from_logits: bool = True,
    ):
        if isinstance(model, str | Path):
            model = load_model(model)
        check(
            isinstance(model, keras.Model),
            "`model` must be a Keras model or the path of a .keras file.",
            model=model,
        )
        if isinstance(model_output(model), dict):
            model = inference_model(model)
        output = model_output(model)
        shape = getattr(output, "shape", ())
        check(
            len(shape) == 2 and shape[-1] is not None,
            "The teacher must have one output of shape (B, Y).",
            output=output,
        )
        image = tuple(model.inputs[0].shape)
        check(
            len(image) == 4 and image[-1] == 3,
            "The teacher must take RGB images, (B, height, width, 3).",
            input_shape=image,
        )
        check(
            not (from_logits and _ends_in_softmax(model)),
            "The teacher ends in a softmax: pass `from_logits=False`.",
            from_logits=from_logits,
        )
        classes = None if classes is None else list(classes)
        check(
            classes is None or (classes and set(classes) <= set(range(shape[-1]))),
            f"`classes` must be indices of the teacher's {shape[-1]} classes.",
            classes=classes,
        )
        self.model = model
        self.classes = classes
        self.num_classes = shape[-1] if classes is None else len(classes)
        self.image_size = (
            image[1:3] if image_size is None else image_height_and_width(image_size)
        )
        self.preprocess = preprocess
        self.from_logits = from_logits

    def __call__(self, pixels):
        """Computes the logits in float32, (B, Y), for pixels (B, H, W, 3)."""
        x = tf.cast(pixels, "float32")
        if None not in self.image_size and tuple(x.shape[1:3]) != self.image_size:
            x = tf.image.resize(x, self.image_size, antialias=True)
        if self.preprocess is not None:
            x = self.preprocess(x)
        outputs = tf.cast(self.model(x, training=False), "float32")
        if not self.from_logits:
            outputs = tf.math.log(tf.maximum(outputs, keras.config.epsilon()))
        if self.classes is not None:
            outputs = tf.gather(outputs, self.classes, axis=-1)
        return tf.stop_gradient(outputs)


def _ends_in_softmax(model: keras.Model) -> bool:
    last = model.layers[-1]
    return isinstance(last, keras.layers.Softmax) or (
        getattr(last, "activation", None) is keras.activations.softmax
    )
