"""How the logits of a teacher are stored: all, the largest ones, or the argmax."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from keras_deit._checks import check

KEEP_LOGITS = ("all", "hard")  # or a number: the so many largest ones

_LEAST = float(np.finfo(np.float16).min)  # exp of it is 0 even in float64
_CERTAIN = 1e4  # logits between the best class and the others, if only it is kept
_TINY = float(np.finfo(np.float16).smallest_subnormal)


@dataclass(frozen=True)
class LogitCodec:
    """Turns logits (B, Y) into bytes, and back into logits of the same losses.

    "all": the logits, in float32. "hard": the class of the largest logit, which comes
    back as a one-hot. A number k: the k largest logits minus the largest one, in half
    precision, their classes, and `log sum exp((z - max z) / T)` over the other classes.
    These come back with that probability at temperature T spread evenly over them, so
    that dense logits are all a loss ever sees.

    The argmax stays the same in all three, the lowest class where logits are equal.
    Below the largest logit minus 65504 all are the same to k: their probability is 0.

    Args:
        keep: "all", "hard" or k, at least 1 and less than Y.
        num_classes: Y, at least 1.
        temperature: T of the soft loss, in [0.001, 1000]; has a meaning for k only.

    Raises:
        ValueError: If an argument is outside its range, or a temperature is given that
            has no meaning.

    Example:
    >>> codec = LogitCodec(1, num_classes=3)
    >>> logits = np.array([[0.0, np.log(2), 0.0]], "float32")
    >>> codec.decode(tf.constant(codec.encode(logits)), 1).numpy().round(2)
    array([[-0.69,  0.  , -0.69]], dtype=float32)

    Reference:
        Wu et al., TinyViT (arXiv:2207.10666), section 3; official code
        `save_logits.py`. We differ in storing logits, not probabilities, so that argmax
        and loss at T come out of the same dense logits, and no seeds of the views: ours
        follow from (seed, epoch, example id).
    """

    keep: str | int
    num_classes: int
    temperature: float = 1.0

    def __post_init__(self):
        rule = "`num_classes` must be a whole number of at least 1."
        whole = type(self.num_classes) is int and self.num_classes >= 1
        check(whole, rule, num_classes=self.num_classes)
        counted = type(self.keep) is int and 1 <= self.keep < self.num_classes
        check(
            counted or self.keep in KEEP_LOGITS,
            "`keep` must be 'all', 'hard' or a number of logits, at least 1 and less "
            "than the number of classes.",
            keep=self.keep,
            num_classes=self.num_classes,
        )
        check(
            type(self.temperature) in (int, float) and 1e-3 <= self.temperature <= 1e3,
            "`temperature` must be a number in [0.001, 1000].",
            temperature=self.temperature,
        )
        check(
            counted or self.temperature == 1,
            "`temperature` has a meaning for a number of logits only.",
            temperature=self.temperature,
            keep=self.keep,
        )

    @property
    def bytes_per_view(self) -> int:
        """Bytes that `encode` makes of the logits of one view."""
        if self.keep == "all":
            return 4 * self.num_classes
        if self.keep == "hard":
            return self._class_type.size
        return self.keep * (2 + self._class_type.size) + 2

    def encode(self, logits: np.ndarray) -> bytes:
        """Makes bytes of logits.

        Args:
            logits: Float32, finite, shape (B, Y).

        Returns:
            B times `bytes_per_view` bytes.

        Raises:
            ValueError: If logits have another shape, are NaN or infinite.
        """
        logits = np.asarray(logits, np.float32)
        check(
            logits.ndim == 2 and logits.shape[1] == self.num_classes,
            f"The teacher's logits must have the shape (B, {self.num_classes}).",
            shape=logits.shape,
        )
        bad = np.flatnonzero(~np.isfinite(logits).all(axis=1)).tolist()
        rule = "The teacher's logits must be finite numbers, no NaN and no infinity."
        check(not bad, rule, views=bad[:5], number_of_views=len(bad))
        if self.keep == "all":
            return logits.astype("<f4").tobytes()
        if self.keep == "hard":
            return self._classes_to_bytes(logits.argmax(axis=1))
        return self._encode_largest(logits)

    def decode(
        self, payload: tf.Tensor, batch_size: int, places: Sequence[int] | None = None
    ) -> tf.Tensor:
        """Makes logits of bytes, in a graph.

        Args:
            payload: What `encode` returned, a string of shape ().
            batch_size: B, views in it.
            places: Of the b views whose logits are wanted; None for all.

        Returns:
            Float32 logits, of the static shape (b, Y).
        """

        def wanted(values: tf.Tensor, columns: int) -> tf.Tensor:
            values = tf.reshape(values, (batch_size, columns))
            return values if places is None else tf.gather(values, places)

        if self.keep == "all":
            return wanted(tf.io.decode_raw(payload, tf.float32), self.num_classes)
        if self.keep == "hard":
            classes = wanted(tf.io.decode_raw(payload, self._class_type), 1)
            classes = tf.cast(classes, tf.int32)[:, 0]
            # A softmax of these is the one-hot itself, at any usual temperature.
            return _CERTAIN * (tf.one_hot(classes, self.num_classes) - 1)
        return self._decode_largest(payload, batch_size, wanted)

    @property
    def _class_type(self) -> tf.DType:
        return tf.uint16 if self.num_classes <= 2**16 else tf.int32

    def _classes_to_bytes(self, classes: np.ndarray) -> bytes:
        little_endian = np.dtype(self._class_type.as_numpy_dtype).newbyteorder("<")
        return classes.astype(little_endian).tobytes()

    def _encode_largest(self, logits: np.ndarray) -> bytes:
        with tf.device("CPU"):  # where the lower class comes first of equal ones
            largest, classes = (x.numpy() for x in tf.math.top_k(logits, self.keep))
        below = logits.astype(np.float64) - largest[:, :1]  # (B, Y), at most 0
        kept = np.take_along_axis(below, classes, axis=1)  # (B, k)
        # What is less than the largest stays so: the argmax is exact.
        kept = np.where(kept < 0, np.clip(kept, _LEAST, -_TINY), 0)
        rest = np.maximum(below / self.temperature, _LEAST)
        np.put_along_axis(rest, classes, -np.inf, axis=1)
        top = rest.max(axis=1, keepdims=True)
        rest = top[:, 0] + np.log(np.exp(rest - top).sum(axis=1))  # (B,)
        parts = kept.astype("<f2"), rest.astype("<f2")
        return parts[0].tobytes() + self._classes_to_bytes(classes) + parts[1].tobytes()

    def _decode_largest(
        self, payload: tf.Tensor, batch_size: int, wanted: Callable
    ) -> tf.Tensor:
        def section(first: int, columns: int, dtype: tf.DType) -> tf.Tensor:
            size = batch_size * columns * dtype.size
            part = tf.strings.substr(payload, first * batch_size, size)
            return wanted(tf.io.decode_raw(part, dtype), columns)

        k, size = self.keep, self._class_type.size
        kept = tf.cast(section(0, k, tf.half), tf.float32)
        classes = tf.cast(section(2 * k, k, self._class_type), tf.int32)
        rest = tf.cast(section((2 + size) * k, 1, tf.half), tf.float32)
        even = self.temperature * (rest - math.log(self.num_classes - k))
        # The mean of the rest is never above the least one kept; rounded, it may be.
        even = tf.minimum(even, kept[:, -1:] - _TINY)
        rows = tf.repeat(tf.range(kept.shape[0])[:, None], k, axis=1)
        return tf.tensor_scatter_nd_update(
            tf.broadcast_to(even, (kept.shape[0], self.num_classes)),
            tf.stack([rows, classes], axis=-1),  # (B, k, 2)
            kept,
        )
