"""A SavedModel is tried, signature after signature."""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_deit.data.geometry import decode_image
from keras_deit.export.dial import DEFAULT, keep_rate_of
from keras_deit.export.signatures import EXPLAIN, FLOAT, PIXELS
from keras_deit.export.trials import CheckSet, Trial, model_logits, try_signature

FEW_IMAGES = 4
OUTPUT_TOLERANCE = 1e-3  # of a probability, or a share of attention


class Samples:
    """What the signatures are tried with: real images, as files and as pixels."""

    def __init__(self, checked: CheckSet, model: keras.Model):
        encoders = (tf.io.encode_jpeg, tf.io.encode_png)
        files = [encoders[i % 2](x).numpy() for i, x in enumerate(checked.images)]
        decoded = [decode_image(file).numpy() for file in files]
        self.checked = CheckSet(decoded, checked.labels)
        self._files = np.array(files, object)
        self._views = self.checked.views(model)

    def of(self, signature: str, count: int | None = None) -> dict[str, np.ndarray]:
        """The arguments of a signature, of so many images or of all."""
        if signature == PIXELS:
            return {"pixels": self._views[:count]}
        if signature == FLOAT:
            return {"pixels": self._views[:count].astype(np.float32)}
        return {"image_bytes": self._files[:count]}


def try_out(
    artifact: Path,
    models: dict,
    samples: Samples,
    names: list[str],
    timed: bool,
    progress: bool,
) -> dict[str, Trial]:
    """Loads the artifact, and tries each of its signatures."""
    signatures = tf.saved_model.load(str(artifact)).signatures
    views = samples.of(PIXELS)["pixels"]
    expected = {n: model_logits(m, views, progress) for n, m in models.items()}

    def tried(name):
        ((argument, inputs),) = samples.of(name).items()

        def run(batch):
            return signatures[name](**{argument: tf.constant(batch)})["logits"].numpy()

        return try_signature(
            models.get(name, models[DEFAULT]),
            run,
            samples.checked,
            keep_rate=keep_rate_of(name),
            inputs=inputs,
            expected=expected.get(name, expected[DEFAULT]),
            timed=timed,
            progress=progress,
        )

    return {name: tried(name) for name in names}


def check_outputs(
    artifact: Path,
    samples: Samples,
    signatures: list[str],
    labels: list[str],
    explanation: keras.Model | None,
) -> None:
    """Compares what is not logits with what it must be, on some images.

    Raises:
        RuntimeError: If an image is refused, or an output is not what it must be.
    """
    loaded = tf.saved_model.load(str(artifact)).signatures
    for name in signatures:
        arguments = samples.of(name, FEW_IMAGES)
        answer = loaded[name](**{k: tf.constant(v) for k, v in arguments.items()})
        answer = {key: value.numpy() for key, value in answer.items()}
        status = {text.decode() for text in answer.get("status", [b"ok"])}
        if status != {"ok"}:
            raise RuntimeError(
                "The artifact refuses an image that it is checked on: "
                f"{name!r} says {sorted(status)}."
            )
        if name == EXPLAIN:
            views = samples.of(FLOAT, FEW_IMAGES)["pixels"]
            expected = explanation(views, training=False)
        else:
            expected = _named(answer["logits"], answer["top_k_classes"], labels)
        for key, wanted in expected.items():
            if not _equal(answer[key], np.asarray(wanted)):
                raise RuntimeError(f"The artifact has another {key!r} in {name!r}.")


def _named(logits: np.ndarray, classes: np.ndarray, labels: list[str]) -> dict:
    """What has to stand beside logits, and beside the classes that are named best."""
    probabilities = tf.nn.softmax(logits).numpy()
    scores = np.take_along_axis(probabilities, classes, axis=-1)
    best = -np.sort(-probabilities, axis=-1)[:, : classes.shape[-1]]
    names = np.array([label.encode() for label in labels], object)[classes]
    return {
        "probabilities": probabilities,
        "top_k_scores": np.where(scores == best, scores, np.nan),
        "top_k_labels": names,
    }


def _equal(received: np.ndarray, wanted: np.ndarray) -> bool:
    if received.dtype == object:
        return np.array_equal(received, wanted)
    return np.allclose(received, wanted, atol=OUTPUT_TOLERANCE)
