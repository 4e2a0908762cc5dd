"""Which layers int8 hurts."""

import csv
import io
import re
import warnings
from collections.abc import Collection
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_deit._files import existing_file
from keras_deit.export.quantization import quantize
from keras_deit.export.tflite_file import short_name

MOVES = ("RESHAPE", "TRANSPOSE", "UNPACK", "CONCATENATION", "STRIDED_SLICE", "GATHER")


@dataclass(frozen=True)
class LayerError:
    """What int8 does to the output of one operator, all before it being equal.

    Attributes:
        layer: Names of the layers that lead to it, "block_0/mlp/fc1"; "output" for the
            logits themselves.
        operator: What it computes.
        relative_error: Root mean square of the error over the standard deviation of
            the output: noise over signal.
        steps: Root mean square of the error in steps of the integers; rounding alone
            makes 0.29.
        max_error: Largest absolute error.
        scale: Width of a step.
    """

    layer: str
    operator: str
    relative_error: float
    steps: float
    max_error: float
    scale: float


def layer_errors(
    calibrated: bytes, views: np.ndarray, layers: Collection[str]
) -> list[LayerError]:
    """Measures what int8 does to each operator that becomes integer.

    Args:
        calibrated: A file of `quantization.calibrate`. Of several signatures, the first
            in alphabetical order is measured.
        views: Real images, float32 (n, H, W, 3).
        layers: Names of the layers of the model.

    Returns:
        The operators, the worst first. Those that only move numbers are left out.
    """

    def relative_error(exact, received, scale, zero_point):
        error = (received.astype(np.float32) - zero_point) * scale - exact
        return np.sqrt(np.mean(error**2)) / max(np.std(exact), np.finfo("float32").tiny)

    with warnings.catch_warnings():
        # TensorFlow's debugger runs on its old interpreter, and warns of it.
        warnings.simplefilter("ignore", UserWarning)
        debugger = tf.lite.experimental.QuantizationDebugger(
            quant_debug_model_content=quantize(calibrated, for_debugging=True),
            debug_dataset=lambda: ([view[None]] for view in views),
            debug_options=tf.lite.experimental.QuantizationDebugOptions(
                layer_direct_compare_metrics={"relative_error": relative_error}
            ),
        )
        debugger.run()
    text = io.StringIO()
    debugger.layer_statistics_dump(text)
    rows = csv.DictReader(io.StringIO(text.getvalue()))
    errors = [_layer_error(row, layers) for row in rows if row["op_name"] not in MOVES]
    return sorted(errors, key=lambda e: e.relative_error, reverse=True)


def _layer_error(row: dict, layers: Collection[str]) -> LayerError:
    scale = float(row["scale"])
    return LayerError(
        layer=layer_path(row["tensor_name"], layers) or "output",
        operator=row["op_name"],
        relative_error=float(row["relative_error"]),
        steps=float(row["mean_squared_error"]) ** 0.5 / scale,
        max_error=float(row["max_abs_error"]),
        scale=scale,
    )


def layer_path(tensor: str, layers: Collection[str]) -> str:
    """Finds the layers in the name of a tensor, which Keras has numbered.

    Example:
    >>> layer_path("deit_1/block_0_1/mlp_1/Gelu/mul_2", {"block_0", "mlp"})
    'block_0/mlp'
    """
    path = []
    for part in short_name(tensor).split("/"):
        names = (part, re.sub(r"_\d+$", "", part))
        path += [name for name in names if name in layers][:1]
    return "/".join(path)


def csv_of(errors: list[LayerError]) -> str:
    """Writes errors as CSV: a heading, then a row for each, in their order."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(LayerError)])
    writer.writeheader()
    writer.writerows(asdict(error) for error in errors)
    return text.getvalue()


def read_sensitivity(path: str | Path) -> list[LayerError]:
    """Reads the errors of a file `<name>.sensitivity.csv`, in their order.

    Raises:
        OSError: If it cannot be read.
    """
    rows = csv.DictReader(existing_file(path).read_text().splitlines())
    kinds = {field.name: field.type for field in fields(LayerError)}
    return [LayerError(**{k: kinds[k](v) for k, v in row.items()}) for row in rows]
