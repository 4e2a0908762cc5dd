"""The signatures of a SavedModel: files or pixels in, labels out."""

from collections.abc import Callable
from pathlib import Path

import keras
import tensorflow as tf

from keras_deit.data.bounded import OK, bounded_views
from keras_deit.export.dial import DEFAULT
from keras_deit.models.inference import input_size
from keras_deit.models.preprocessing import preprocessing_of

PIXELS, FLOAT, EXPLAIN = "pixels", "float", "explain"
NO_CLASS = -1  # of an image that could not be decoded


class ServedModel:
    """Builds what is served around functions from pixels to logits.

    Args:
        model: The one-head model; it says what images have to look like.
        labels_file: Text file with the name of a class in each line; it becomes an
            asset.
        top_k: How many of the best classes are named.
        max_bytes: Most bytes of a file.
        max_pixels: Most pixels of an image.
    """

    def __init__(
        self,
        model: keras.Model,
        labels_file: Path,
        top_k: int,
        max_bytes: int,
        max_pixels: int,
    ):
        self._size = input_size(model)
        self._crop_ratio = preprocessing_of(model).crop_ratio
        self._bounds = (max_bytes, max_pixels)
        self._top_k = min(top_k, model.output.shape[-1])
        self._labels = tf.lookup.StaticHashTable(
            tf.lookup.TextFileInitializer(
                str(labels_file),
                key_dtype=tf.int64,
                key_index=tf.lookup.TextFileIndex.LINE_NUMBER,
                value_dtype=tf.string,
                value_index=tf.lookup.TextFileIndex.WHOLE_LINE,
            ),
            default_value="",
        )

    def write(
        self,
        folder: Path,
        answers: dict[str, Callable],
        explanation: keras.Model | None = None,
    ) -> list[str]:
        """Writes the SavedModel.

        Args:
            folder: What to make.
            answers: For each signature that takes files, the function from pixels,
                float32 (B, H, W, 3), to logits; `serving_default` is among them.
            explanation: What `explanation_model` returned, if there is to be a
                signature for it.

        Returns:
            The names of the signatures.
        """
        shape = (None, *self._size, 3)
        floats = tf.TensorSpec(shape, tf.float32, "pixels")
        files = tf.TensorSpec((None,), tf.string, "image_bytes")
        # Traced once each; the signatures that call them share them.
        views = _traced(self._views, files)
        traced = {f: _traced(f, floats) for f in {*answers.values()}}
        answers = {name: traced[f] for name, f in answers.items()}
        answer = answers[DEFAULT]
        functions = {n: self._from_files(views, f) for n, f in answers.items()}
        functions[PIXELS] = functions[FLOAT] = lambda pixels: self._named(
            answer(tf.cast(pixels, tf.float32))
        )
        if explanation is not None:
            functions[EXPLAIN] = self._explain(views, explanation)
        specs = {PIXELS: tf.TensorSpec(shape, tf.uint8, "pixels"), FLOAT: floats}
        # Without `track(model)`: the endpoints' weights are saved anyway, and it would
        # save them a second time, as Keras' own variables.
        archive = keras.export.ExportArchive()
        archive.track(self._labels)
        for name, function in functions.items():
            archive.add_endpoint(name, function, [specs.get(name, files)])
        archive.write_out(folder, verbose=False)
        return list(functions)

    def _from_files(self, views: Callable, answer: Callable) -> Callable:
        def serve(image_bytes):
            pixels, status = views(image_bytes)
            logits = answer(tf.cast(pixels, tf.float32))
            return {**self._named(logits, status == OK), "status": status}

        return serve

    def _explain(self, views: Callable, explanation: keras.Model) -> Callable:
        def serve(image_bytes):
            pixels, status = views(image_bytes)
            maps = explanation(tf.cast(pixels, tf.float32), training=False)
            maps = {name: _zero_unless(status == OK, x) for name, x in maps.items()}
            return {**maps, "status": status}

        return serve

    def _views(self, image_bytes):
        """Decodes files, to uint8 (B, H, W, 3) and the status of each."""
        return bounded_views(image_bytes, self._size, self._crop_ratio, *self._bounds)

    def _named(self, logits, decoded=None):
        """Names the best classes; where there was nothing to see, there is no class."""
        probabilities = tf.nn.softmax(logits)
        scores, classes = tf.math.top_k(probabilities, self._top_k)
        if decoded is not None:
            logits, probabilities, scores = (
                _zero_unless(decoded, x) for x in (logits, probabilities, scores)
            )
            classes = tf.where(decoded[:, None], classes, NO_CLASS)
        return {
            "logits": logits,
            "probabilities": probabilities,
            "top_k_classes": classes,
            "top_k_scores": scores,
            "top_k_labels": self._labels.lookup(tf.cast(classes, tf.int64)),
        }


def _traced(function: Callable, spec: tf.TensorSpec) -> Callable:
    return tf.function(function, autograph=False).get_concrete_function(spec)


def _zero_unless(holds, values):
    """Takes `values` (B, ...) where a flag (B,) holds, and zeros elsewhere."""
    flags = tf.reshape(holds, (-1, *(1 for _ in values.shape[1:])))
    return tf.where(flags, values, tf.zeros_like(values))
