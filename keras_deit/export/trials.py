"""An artifact is tried: the same answers as its model, on real images, and how fast."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np

from keras_deit._checks import check
from keras_deit.data.geometry import evaluation_view
from keras_deit.data.sources import load_source
from keras_deit.models.inference import input_size
from keras_deit.models.preprocessing import preprocessing_of
from keras_deit.training.progress import tracked

NUM_CHECK_IMAGES = 32
BATCH_SIZE = 32
MODEL_BATCH = 16  # images that the model sees at once: bounds the memory
LEAST_CALLS, MOST_CALLS, MOST_SECONDS = 3, 30, 2.0  # of a measurement of speed


@dataclass(frozen=True)
class CheckSet:
    """The real images that an artifact is tried on.

    Attributes:
        images: RGB images, uint8, each (rows, columns, 3) of any size.
        labels: The class of each image, in the order of the logits, int (n,); None if
            it is not known.
    """

    images: list[np.ndarray]
    labels: np.ndarray | None = None

    def views(self, model: keras.Model) -> np.ndarray:
        """Resizes and crops the images as the model expects, uint8 (n, H, W, 3)."""
        size, crop_ratio = input_size(model), preprocessing_of(model).crop_ratio
        return np.stack([evaluation_view(i, size, crop_ratio) for i in self.images])


def check_set(num_classes: int, images=None, image_labels=None) -> CheckSet:
    """Gathers the real images that an artifact is tried on.

    Args:
        num_classes: Y, the number of classes.
        images: RGB images, uint8, each of any size; None takes handwritten digits.
        image_labels: The class of each image, in the order of the logits; None if it is
            not known.

    Returns:
        The images and their classes.

    Raises:
        ValueError: If there is no image, one is no uint8 RGB image, or there is not one
            label in [0, Y) for each image.
    """
    if images is None:
        check(
            image_labels is None,
            "`image_labels` needs `images`.",
            image_labels=image_labels,
        )
        digits = load_source("digits", "validation").in_order()
        images = [e["image"].numpy() for e in digits.take(NUM_CHECK_IMAGES)]
    images = [np.asarray(image) for image in images]
    check(len(images) > 0, "`images` must hold at least one image.", images=images)
    for image in images:
        check(
            image.dtype == np.uint8 and image.ndim == 3 and image.shape[-1] == 3,
            "`images` must be uint8 RGB images, (rows, columns, 3).",
            dtype=str(image.dtype),
            shape=image.shape,
        )
    if image_labels is None:
        return CheckSet(images)
    image_labels = np.asarray(image_labels)
    check(
        image_labels.shape == (len(images),)
        and np.issubdtype(image_labels.dtype, np.integer),
        "`image_labels` must be one whole number for each image.",
        shape=image_labels.shape,
        dtype=str(image_labels.dtype),
        images=len(images),
    )
    check(
        image_labels.min() >= 0 and image_labels.max() < num_classes,
        "`image_labels` must be classes of the model, from 0 on.",
        smallest=image_labels.min(),
        largest=image_labels.max(),
        classes=num_classes,
    )
    return CheckSet(images, image_labels)


@dataclass(frozen=True)
class Comparison:
    """How far an artifact is from its model on some images.

    Attributes:
        num_images: How many images were compared.
        max_difference: Largest absolute difference of a logit.
        relative_difference: Root mean square of the differences, over that of the
            model's logits about the mean of their image; over 1 if those are all equal.
        top1_agreement: Share of the images with the same best class, in [0, 1].
        flip_margin: Largest lead, in the model, of the best class of an image whose
            best class is another one in the artifact; 0 if there is none.
    """

    num_images: int
    max_difference: float
    relative_difference: float
    top1_agreement: float
    flip_margin: float


def compare(expected, received) -> Comparison:
    """Compares the logits of a model with those of its artifact.

    Args:
        expected: Logits of the model, shape (n, Y).
        received: Logits of the artifact for the same images, shape (n, Y).

    Returns:
        The comparison; what is no number makes its differences NaN or infinite.
    """
    expected, received = (np.asarray(x, np.float64) for x in (expected, received))
    same = expected.argmax(-1) == received.argmax(-1)
    second, best = np.sort(expected, axis=-1)[:, -2:].T
    differences = received - expected
    scale = _rms(expected - expected.mean(-1, keepdims=True))
    difference = _rms(differences)
    return Comparison(
        num_images=len(expected),
        max_difference=float(np.abs(differences).max()),
        relative_difference=difference / (scale or 1.0),
        top1_agreement=float(same.mean()),
        flip_margin=float((best - second)[~same].max(initial=0.0)),
    )


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))


@dataclass(frozen=True)
class Speed:
    """How fast an artifact was, on the machine that made it, in that minute.

    Attributes:
        latency_p50: Median time of one image, in milliseconds.
        latency_p95: 95th percentile of it, in milliseconds.
        throughput: Images a second in batches.
        throughput_batch: Images in such a batch.
    """

    latency_p50: float
    latency_p95: float
    throughput: float
    throughput_batch: int


def measure_speed(run: Callable, inputs: np.ndarray, batch_size: int) -> Speed:
    """Times a function on one input, and on a batch of them.

    Args:
        run: The function; it must take 1 and `batch_size` inputs at once.
        inputs: Real inputs, (n, ...); they are repeated as needed.
        batch_size: Inputs in a batch; at 1 both figures are of the same calls.

    Returns:
        The figures, after a warm-up; each of 3 to 30 calls, in 2 seconds if possible.
    """
    alone = _times(run, inputs[:1])
    together = alone
    if batch_size > 1:
        together = _times(run, np.resize(inputs, (batch_size, *inputs.shape[1:])))
    return Speed(
        latency_p50=1e3 * float(np.median(alone)),
        latency_p95=1e3 * float(np.percentile(alone, 95)),
        throughput=batch_size / float(np.median(together)),
        throughput_batch=batch_size,
    )


def _times(run: Callable, inputs: np.ndarray) -> list[float]:
    """Seconds of calls, after one that is not counted."""
    run(inputs)
    times, start = [], time.perf_counter()
    while len(times) < LEAST_CALLS or (
        len(times) < MOST_CALLS and time.perf_counter() - start < MOST_SECONDS
    ):
        before = time.perf_counter()
        run(inputs)
        times.append(time.perf_counter() - before)
    return times


@dataclass(frozen=True)
class Trial:
    """What came out when a signature of an artifact was tried.

    Attributes:
        comparison: How far it is from its model.
        model_accuracy: Share of the images that the model knows, in [0, 1]; None if the
            classes of the images are not known.
        accuracy: The same of the artifact.
        speed: How fast it was; None if that was not measured.
        keep_rate: The keep rate of the signature; None for the model's own.
    """

    comparison: Comparison
    model_accuracy: float | None
    accuracy: float | None
    speed: Speed | None
    keep_rate: float | None = None


def model_logits(
    model: keras.Model, views: np.ndarray, progress: bool = True
) -> np.ndarray:
    """The logits (n, Y) of a model for pixels (n, H, W, 3).

    Raises:
        ValueError: If they are no logits but probabilities.
    """
    logits = _in_batches(
        lambda x: model(x, training=False), views, MODEL_BATCH, progress
    )
    sums = logits.sum(-1)
    check(
        logits.min() < 0 or np.abs(sums - 1).max() > 1e-3,
        "The model must return logits: build it without a softmax at its end "
        "(`classifier_activation=None` in keras.applications).",
        model=model.name,
    )
    return logits


def try_signature(
    model: keras.Model,
    run: Callable[[np.ndarray], np.ndarray],
    checked: CheckSet,
    batch_size: int = BATCH_SIZE,
    keep_rate: float | None = None,
    inputs: np.ndarray | None = None,
    expected: np.ndarray | None = None,
    timed: bool = True,
    progress: bool = True,
) -> Trial:
    """Tries one signature of an artifact.

    Args:
        model: The one-head float32 model that it has to equal.
        run: The signature: inputs (b, ...) in, logits (b, Y) out, as NumPy arrays.
        checked: The images.
        batch_size: Most inputs that `run` takes at once; 1 for a fixed batch of one.
        keep_rate: The keep rate of the signature, if it is one of a dial.
        inputs: What `run` gets of each image; None takes the views, uint8 (H, W, 3).
        expected: What `model_logits` returned of these images; None works it out.
        timed: Whether to measure the speed as well.
        progress: Whether to show a bar, where standard error is a terminal.

    Returns:
        What came out.
    """
    views = checked.views(model) if expected is None or inputs is None else None
    inputs = views if inputs is None else inputs
    if expected is None:
        expected = model_logits(model, views, progress)
    received = _in_batches(run, inputs, batch_size, progress)
    return Trial(
        comparison=compare(expected, received),
        model_accuracy=_accuracy(expected, checked.labels),
        accuracy=_accuracy(received, checked.labels),
        speed=measure_speed(run, inputs, batch_size) if timed else None,
        keep_rate=keep_rate,
    )


def _in_batches(
    run: Callable, inputs: np.ndarray, size: int, progress: bool
) -> np.ndarray:
    starts = range(0, len(inputs), size)
    starts = tracked(starts, "Comparing with the model", len(starts), progress)
    return np.concatenate([np.asarray(run(inputs[i : i + size])) for i in starts])


def _accuracy(logits: np.ndarray, labels: np.ndarray | None) -> float | None:
    return None if labels is None else float((logits.argmax(-1) == labels).mean())
