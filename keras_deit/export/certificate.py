"""The proof that an artifact equals its model."""

import hashlib
import json
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_deit._checks import check
from keras_deit.data.sources import load_source
from keras_deit.version import __version__

TOLERANCE = 1e-4  # of a logit, float32
NUM_CHECK_IMAGES = 32
PACKAGES = ("keras", "tensorflow", "ai-edge-litert", "numpy")


@dataclass(frozen=True)
class Comparison:
    """How far an artifact is from its model on some images.

    Attributes:
        num_images: How many images were compared.
        max_difference: Largest absolute difference of a logit.
        top1_agreement: Share of the images with the same best class, in [0, 1].
        decided_agreement: The same share among the images whose two best logits lie
            further apart than twice the tolerance, so that rounding cannot swap them.
    """

    num_images: int
    max_difference: float
    top1_agreement: float
    decided_agreement: float

    @property
    def passes(self) -> bool:
        """Whether the artifact equals the model; a NaN does not."""
        return self.max_difference <= TOLERANCE and self.decided_agreement == 1


def compare(expected, received) -> Comparison:
    """Compares the logits of a model with those of its artifact.

    Args:
        expected: Logits of the model, shape (n, Y).
        received: Logits of the artifact for the same images, shape (n, Y).

    Returns:
        The comparison.
    """
    expected, received = np.asarray(expected), np.asarray(received)
    same = expected.argmax(-1) == received.argmax(-1)
    second, best = np.sort(expected, axis=-1)[:, -2:].T
    decided = best - second > 2 * TOLERANCE
    return Comparison(
        num_images=len(expected),
        max_difference=float(np.abs(expected - received).max()),
        top1_agreement=float(same.mean()),
        decided_agreement=float(same[decided].mean()) if decided.any() else 1.0,
    )


def check_images(images=None) -> list[np.ndarray]:
    """Gathers the real images that an artifact is checked on.

    Args:
        images: RGB images, uint8, each of any size; None takes handwritten digits.

    Returns:
        The images, uint8, each (rows, columns, 3).

    Raises:
        ValueError: If there is no image, or one is no uint8 RGB image.
    """
    if images is None:
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
    return images


def check_labels(labels, num_classes: int) -> list[str]:
    """Reads the class names, or numbers the classes if there are none.

    Raises:
        ValueError: If there is not one name for each class.
    """
    names = [str(n) for n in (range(num_classes) if labels is None else labels)]
    check(
        len(names) == num_classes,
        "`labels` must have one name for each class.",
        labels=len(names),
        classes=num_classes,
    )
    return names


def certify(
    path: Path, model: keras.Model, comparisons: dict[str, Comparison], **facts
) -> None:
    """Writes the certificate, or fails if an artifact is not equal to its model.

    Args:
        path: The JSON file to write.
        model: The model that was exported.
        comparisons: How far the artifact is from it, for each of its signatures.
        **facts: What else to record of the artifact.

    Raises:
        RuntimeError: If a comparison does not pass.
    """
    for signature, comparison in comparisons.items():
        if not comparison.passes:
            raise RuntimeError(
                f"The exported artifact differs from the model in {signature!r}: "
                f"{asdict(comparison)}; at most {TOLERANCE} is allowed; it is not kept."
            )
    certificate = {
        "model": model.name,
        "weights_sha256": _digest(model),
        "tolerance": TOLERANCE,
        "comparisons": {name: asdict(c) for name, c in comparisons.items()},
        **facts,
        "versions": {
            "keras_deit": __version__,
            "python": platform.python_version(),
            **{package: version(package) for package in PACKAGES},
        },
        "machine": platform.machine(),
    }
    path.write_text(json.dumps(certificate, indent=2) + "\n")


def _digest(model: keras.Model) -> str:
    digest = hashlib.sha256()
    for weight in model.weights:
        digest.update(weight.path.encode())
        digest.update(np.ascontiguousarray(tf.convert_to_tensor(weight)).tobytes())
    return digest.hexdigest()
