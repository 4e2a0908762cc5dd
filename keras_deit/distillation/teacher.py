"""One face for every teacher: pixels in, logits out, nothing ever changed."""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_deit._checks import check
from keras_deit.data.source import digest_of
from keras_deit.distillation.saved_model_teacher import of_saved_model
from keras_deit.distillation.teacher_cache import TeacherCache
from keras_deit.distillation.teacher_kinds import (
    check_options,
    ends_in_softmax,
    kind_of,
    log,
    of_cache,
    of_ensemble,
    of_function,
    of_keras_model,
    of_variant,
)
from keras_deit.models.factory import image_height_and_width
from keras_deit.weights.loader import load_model

_BLACK_BOXES = ("model", "SavedModel", "function")
_PROBE = 2  # images that show whether a black box returns probabilities


class Teacher:
    """Wraps whatever can tell classes apart so that a student can learn from it.

    It is called in inference mode, outside any gradient, on the pixels that the student
    sees. It is no Keras object, so a `Distiller` that holds one neither tracks, saves,
    exports nor trains it.

    Args:
        model: One of

            - a Keras classifier with one output of shape (B, Y), or a distilled model
              (its fused head teaches), or the path of its `.keras` file;
            - the name of a variant, one of `list_variants()`, with its weights;
            - the folder of a SavedModel, also one of another TensorFlow: a signature of
              it takes RGB images and returns classes. A SavedModel is a program: load
              only what you trust;
            - a function of float32 pixels (B, H, W, 3) in [0, 255];
            - a list of such teachers, or `Teacher`s: an ensemble;
            - the folder of a teacher cache, or a `TeacherCache`. It cannot be called:
              its answers come with the batches, see `TeacherCache.join`.
        image_size: Side of the teacher's input or (height, width), in pixels; the
            pixels are resized to it, bilinear and antialiased. None reads it from the
            model. A Keras model of another fixed size is built for this one, if none of
            its weights depends on the size.
        preprocess: Called on the resized pixels, in [0, 255], before the model; None if
            the model takes them as they are, as all of this package do.
        classes: Which of the model's classes the student has, as indices in the
            student's order, each at least 0; None takes all as they are.
        from_logits: Whether the model returns logits; if False, it returns
            probabilities, and their logarithms are the logits. A wrong value is refused
            as far as that can be seen: by the last layer of a Keras model, and by what
            a teacher of a known `image_size` says of noise.
        weights: Of a variant: "pretrained" (also if None) or a file.
        num_classes: Y of a function, which needs it, or of a variant's weights; 1000 if
            None.
        signature: Of a SavedModel; None takes the only one that fits, or
            "serving_default", or "pixels".
        shares: Of an ensemble, how much each member counts; positive; None for all
            alike.
        mean: Of an ensemble, what is averaged: "logits" or "probabilities".
        as_numpy: Whether the function takes and returns NumPy arrays, as one that calls
            PyTorch or ONNX Runtime does. It is then left out of TensorFlow's graph.
        version: Names the function or `preprocess`; a teacher cache needs it, since
            code has no digest. Another version is another teacher.

    Raises:
        ValueError: If the model does not take RGB images, does not end in one output of
            classes, or returns probabilities while `from_logits` is True; if `classes`
            names one that it lacks; or if an option has no meaning for this kind.
        FileNotFoundError: If there is no such file.

    Example:
    >>> teacher = Teacher(keras.Sequential([
    ...     keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(5),
    ... ]))
    >>> tuple(teacher(keras.ops.ones((2, 32, 32, 3))).shape)
    (2, 5)
    >>> both = Teacher([teacher, teacher], shares=[3, 1], mean="probabilities")
    >>> tuple(both(keras.ops.ones((2, 32, 32, 3))).shape)
    (2, 5)
    """

    def __init__(
        self,
        model,
        image_size: int | tuple[int, int] | None = None,
        preprocess: Callable | None = None,
        classes: Sequence[int] | None = None,
        from_logits: bool = True,
        weights: str | Path | None = None,
        num_classes: int | None = None,
        signature: str | None = None,
        shares: Sequence[float] | None = None,
        mean: str = "logits",
        as_numpy: bool = False,
        version: str | None = None,
    ):
        kind = kind_of(model)
        given = {
            "image_size": image_size is not None,
            "preprocess": preprocess is not None,
            "classes": classes is not None,
            "from_logits": not from_logits,
            "weights": weights is not None,
            "num_classes": num_classes is not None,
            "signature": signature is not None,
            "shares": shares is not None,
            "mean": mean != "logits",
            "as_numpy": as_numpy,
            "version": version is not None,
        }
        check_options(kind, [name for name, is_given in given.items() if is_given])
        size = None if image_size is None else image_height_and_width(image_size)
        self.kind = kind
        self.cache = None
        match kind:
            case "cache":
                self.cache = (
                    model if isinstance(model, TeacherCache) else TeacherCache(model)
                )
                answerer = of_cache(self.cache)
            case "ensemble":
                members = [m if isinstance(m, Teacher) else Teacher(m) for m in model]
                answerer = of_ensemble(members, shares, mean)
            case "function":
                answerer = of_function(model, num_classes, as_numpy)
            case "SavedModel":
                answerer = of_saved_model(Path(model), signature, size)
            case "variant":
                answerer = of_variant(model, num_classes or 1000, size, weights)
            case _:
                answerer = of_keras_model(_loaded(model), size)
        self.classes = None if classes is None else [int(c) for c in classes]
        self.preprocess = preprocess
        self.from_logits = from_logits
        self.version = version
        self.image_size = size or answerer.image_size
        self._answerer = answerer
        self._check_classes()
        self._check_logits()

    def _check_classes(self) -> None:
        count = self._answerer.num_classes
        check(
            self.classes is None
            or (self.classes and set(self.classes) <= set(range(count))),
            f"`classes` must be indices of the teacher's {count} classes.",
            classes=self.classes,
        )

    def _check_logits(self) -> None:
        """Refuses probabilities taken for logits, and logits for probabilities."""
        returns_probabilities = None
        if self.model is not None and ends_in_softmax(self.model):
            returns_probabilities = True
        elif self.kind in _BLACK_BOXES and None not in self.image_size:
            returns_probabilities = self._probe()
        check(
            not (self.from_logits and returns_probabilities),
            "The teacher ends in a softmax: pass `from_logits=False`.",
            from_logits=self.from_logits,
        )
        check(
            self.from_logits or returns_probabilities is not False,
            "The teacher returns no probabilities: leave `from_logits=True`.",
            from_logits=self.from_logits,
        )

    def _probe(self) -> bool:
        """Asks about noise; whether the answers are distributions."""
        shape = (_PROBE, *self.image_size, 3)
        noise = np.random.default_rng(0).integers(0, 256, shape)
        answers = self._answerer.answer(self.prepare(noise), False)
        answers = tf.cast(tf.convert_to_tensor(answers), tf.float32)
        check(
            answers.shape.rank == 2 and answers.shape[-1] == self._answerer.num_classes,
            "The teacher must return (B, Y), Y being `num_classes`.",
            shape=tuple(answers.shape),
            num_classes=self._answerer.num_classes,
        )
        sums = np.abs(np.sum(answers, -1) - 1)
        return bool(
            np.min(answers) >= 0 and np.max(sums) < 1e-2
        )  # also in half precision

    @property
    def model(self) -> keras.Model | None:
        """The Keras model, if the teacher is one."""
        return self._answerer.model

    @property
    def num_classes(self) -> int:
        """Y, the classes that it tells apart."""
        if self.classes is not None:
            return len(self.classes)
        return self._answerer.num_classes

    @cached_property
    def digest(self) -> str:
        """64 hexadecimal digits: of the weights, the structure and the preprocessing.

        Raises:
            ValueError: If there is code in it and `version` is None.
        """
        check(
            self.version is not None
            or (self.preprocess is None and self.kind != "function"),
            "A function, also as `preprocess`, has no digest: pass `version`, a text "
            "that changes with it.",
            version=self.version,
        )
        return digest_of(
            self._answerer.digest(),
            repr((self.image_size, self.classes, self.from_logits, self.version)),
        )

    def of_classes(self, classes: Sequence[int] | None) -> "Teacher":
        """The same teacher for other classes of its own; see `classes`."""
        twin = object.__new__(Teacher)
        twin.__dict__ = {k: v for k, v in self.__dict__.items() if k != "digest"}
        twin.classes = None if classes is None else list(classes)
        twin._check_classes()
        return twin

    def __call__(self, pixels):
        """Computes the logits in float32, (B, Y), for pixels (B, H, W, 3) in [0, 255].

        No gradient flows through it.
        """
        return tf.stop_gradient(self.logits(pixels, training=False))

    def logits(self, pixels, training: bool):
        """The same, with gradients, and a Keras model perhaps in training mode."""
        return self.finish(self._answerer.answer(self.prepare(pixels), training))

    def prepare(self, pixels):
        """Makes of the student's pixels what stands behind the teacher takes."""
        x = tf.cast(pixels, tf.float32)
        if None not in self.image_size and tuple(x.shape[1:3]) != self.image_size:
            x = tf.image.resize(x, self.image_size, antialias=True)
        return x if self.preprocess is None else self.preprocess(x)

    def finish(self, outputs):
        """Makes logits of the student's classes of what that returned."""
        logits = tf.cast(outputs, tf.float32)
        check(
            logits.shape.rank is None or logits.shape[-1] == self._answerer.num_classes,
            "The teacher must return (B, Y), Y being its number of classes.",
            shape=tuple(logits.shape),
            num_classes=self._answerer.num_classes,
        )
        if not self.from_logits:
            logits = log(logits)
        return (
            logits if self.classes is None else tf.gather(logits, self.classes, axis=-1)
        )


def _loaded(model) -> keras.Model:
    return model if isinstance(model, keras.Model) else load_model(model)
