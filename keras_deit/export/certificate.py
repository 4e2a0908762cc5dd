"""The proof that an artifact equals its model."""

import hashlib
import json
import math
import os
import platform
import textwrap
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_deit._checks import check, check_share
from keras_deit.export.trials import Trial
from keras_deit.models.inference import input_size
from keras_deit.models.preprocessing import preprocessing_of
from keras_deit.training.report import percent, print_table
from keras_deit.version import __version__

FORMAT = 2  # of the JSON file
MOST_LISTED = 40  # operators that are printed by name
PACKAGES = (
    "keras",
    "tensorflow",
    "ai-edge-litert",
    "openvino",
    "onnx",
    "onnxruntime",
    "tf2onnx",
    "numpy",
)


@dataclass(frozen=True)
class Limits:
    """How far an artifact may be from its model.

    Attributes:
        max_difference: Largest absolute difference of a logit, if it is limited.
        relative_difference: Largest relative difference, if it is limited.
        top1_agreement: Smallest share of the images with the same best class, rounded
            in favor of the artifact to whole images.
    """

    max_difference: float | None
    relative_difference: float | None
    top1_agreement: float


LIMITS = {
    # No agreement: within this difference nothing but ties can have another best class.
    "float32": Limits(1e-4, None, 0.0),
    "float16": Limits(None, 0.01, 0.99),
    "bfloat16": Limits(None, 0.05, 0.98),
    "dynamic_int8": Limits(None, 0.2, 0.97),
    "int8": Limits(None, None, 0.0),  # reported as it is; it must be numbers
}


def limits_of(precision: str, min_agreement: float | None = None) -> Limits:
    """The limits of a precision, perhaps with another agreement.

    Raises:
        ValueError: If `min_agreement` is outside [0, 1].
    """
    if min_agreement is None:
        return LIMITS[precision]
    check_share("min_agreement", min_agreement)
    return replace(LIMITS[precision], top1_agreement=min_agreement)


def check_labels(labels, num_classes: int) -> list[str]:
    """Reads the class names, or numbers the classes if there are none.

    Raises:
        ValueError: If there are fewer than two classes, there is not one name for each,
            or one is empty, has two lines or is no text.
    """
    check(num_classes >= 2, "The model must have two classes or more.", Y=num_classes)
    check(not isinstance(labels, str), "`labels` must be a list.", labels=labels)
    names = [str(n) for n in (range(num_classes) if labels is None else labels)]
    check(
        len(names) == num_classes,
        "`labels` must have one name for each class.",
        labels=len(names),
        classes=num_classes,
    )
    for name in names:
        is_line = bool(name) and "\n" not in name and "\r" not in name
        is_text = not any("\ud800" <= letter <= "\udfff" for letter in name)
        check(is_line and is_text, "A name in `labels` must be a line.", name=name)
    return names


def certify(
    path: Path,
    model: keras.Model,
    kind: str,
    precision: str,
    trials: dict[str, Trial],
    limits: Limits,
    verbose: bool = True,
    **facts,
) -> dict:
    """Writes the certificate, or fails if an artifact is not equal to its model.

    Args:
        path: The JSON file to write.
        model: The one-head model that was exported.
        kind: What the artifact is, for people.
        precision: One of `LIMITS`.
        trials: What came out when each signature was tried.
        limits: How far it may be; see `limits_of`.
        verbose: Whether to print the table as well.
        **facts: What else to record of the artifact.

    Returns:
        What was written.

    Raises:
        RuntimeError: If a trial breaks a limit.
    """
    for signature, trial in trials.items():
        fault = _fault(trial, limits)
        if fault:
            raise RuntimeError(
                f"The exported artifact differs from the model in {signature!r}: "
                f"{fault}; it is not kept. Images of the model's own task tell most; "
                "`min_agreement` lowers the limit. "
                f"Received: {asdict(trial.comparison)}."
            )
    preprocessing = {
        "image_size": list(input_size(model)),
        **asdict(preprocessing_of(model)),
    }
    certificate = {
        "format": FORMAT,
        "kind": kind,
        "model": model.name,
        "precision": precision,
        "weights_sha256": _digest(model),
        "preprocessing": preprocessing,
        "preprocessing_sha256": hashlib.sha256(
            json.dumps(preprocessing, sort_keys=True).encode()
        ).hexdigest(),
        "limits": asdict(limits),
        "signatures": {name: asdict(trial) for name, trial in trials.items()},
        **facts,
        "versions": {
            "keras_deit": __version__,
            "python": platform.python_version(),
            **{package: _version(package) for package in PACKAGES},
        },
        "machine": {"architecture": platform.machine(), "cores": os.cpu_count()},
    }
    path.write_text(json.dumps(certificate, indent=2, allow_nan=False) + "\n")
    if verbose:
        print_certificate(certificate)
    return certificate


def _fault(trial: Trial, limits: Limits) -> str | None:
    """Says which limit a trial breaks, if any; what is no number breaks one."""
    found = trial.comparison
    if not math.isfinite(found.max_difference):
        return "its logits are not all numbers"
    for name in ("max_difference", "relative_difference"):
        limit, value = getattr(limits, name), getattr(found, name)
        if limit is not None and not value <= limit:
            return f"{name} is {value:.3g}, at most {limit:g} is allowed"
    others = round((1 - found.top1_agreement) * found.num_images)
    allowed = math.ceil(round((1 - limits.top1_agreement) * found.num_images, 6))
    if others > allowed:
        return (
            f"top1_agreement is {found.top1_agreement:.4f}, at least "
            f"{limits.top1_agreement:g} is asked"
        )
    return None


def print_certificate(certificate: dict) -> None:
    """Prints what a certificate says: a row for each signature, then the rest."""
    rows = []
    for name, trial in certificate["signatures"].items():
        found, speed = trial["comparison"], trial["speed"]
        rows.append(
            (
                name,
                f"{found['max_difference']:.1e}",
                f"{found['relative_difference']:.1e}",
                percent(found["top1_agreement"]),
                *(
                    "" if trial[key] is None else percent(trial[key])
                    for key in ("model_accuracy", "accuracy")
                ),
                *_speed_cells(speed),
            )
        )
    columns = (
        "signature",
        "max diff",
        "relative",
        "agreement",
        "model top-1",
        "top-1",
        "p50 / p95 ms",
        "images/s (batch)",
    )
    num_images = next(iter(certificate["signatures"].values()))["comparison"][
        "num_images"
    ]
    title = (
        f"{certificate['kind']} {certificate['precision']} of {certificate['model']}, "
        f"compared with the model on {num_images} images"
    )
    print_table(title, columns, rows)
    size, operators = certificate["bytes"] / 2**20, certificate["operators"]
    listed = ", listed in the certificate"
    if len(operators) <= MOST_LISTED:
        listed = f": {', '.join(operators)}"
    text = f"{size:.1f} MiB, {len(operators)} operators{listed}"
    print(textwrap.fill(text, 100))


def _speed_cells(speed: dict | None) -> tuple[str, str]:
    if speed is None:
        return "", ""
    latency = f"{speed['latency_p50']:.1f} / {speed['latency_p95']:.1f}"
    return latency, f"{speed['throughput']:.1f} ({speed['throughput_batch']})"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _digest(model: keras.Model) -> str:
    digest = hashlib.sha256()
    for weight in model.weights:
        digest.update(weight.path.encode())
        digest.update(np.ascontiguousarray(tf.convert_to_tensor(weight)).tobytes())
    return digest.hexdigest()
