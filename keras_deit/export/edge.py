"""A TFLite file with built-in operators only, for the edge."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from keras_deit._checks import check, check_choice
from keras_deit._files import unfinished
from keras_deit.export.certificate import certify, check_labels, limits_of
from keras_deit.export.dial import DEFAULT, dial, keep_rate_of
from keras_deit.export.quantization import calibrate, calibration_views, quantize
from keras_deit.export.sensitivity import LayerError, csv_of, layer_errors
from keras_deit.export.tflite_file import builtin_operators, compact
from keras_deit.export.token_selection import selection_agreement
from keras_deit.export.trials import CheckSet, Trial, check_set, try_signature
from keras_deit.models.inference import float32_model, inference_model, input_size

BYTES_OF_A_WEIGHT = {"float32": 4, "float16": 2, "dynamic_int8": 1, "int8": 1}
PRECISIONS = tuple(BYTES_OF_A_WEIGHT)
SENSITIVITY = ".sensitivity.csv"
SENSITIVITY_IMAGES = 16


def tflite(
    model: keras.Model,
    path: str | Path,
    precision: str = "dynamic_int8",
    labels=None,
    images=None,
    image_labels=None,
    head: str = "fused",
    keep_rates: Sequence[float] = (),
    calibration_images=None,
    sensitivity: bool = False,
    min_agreement: float | None = None,
    timed: bool = True,
    verbose: bool = True,
) -> Path:
    """Exports a model as a TFLite file for one image at a time.

    Its signature `serving_default` takes `pixels`, (1, H, W, 3) in [0, 255], and
    returns `logits` and `probabilities`, float32 (1, Y). All operators are built in.
    With `keep_rates` there are more signatures of the same kind, `keep_70` for 0.7; all
    share the weights.

    Beside the file lie `<name>.labels.txt` and `<name>.certificate.json`, the proof of
    how near it is to the model on real images. If that is not near enough, nothing is
    left behind, and what was there stays.

    Args:
        model: A one-head or a distilled model of known input size, whatever its dtype
            policy.
        path: The file to write, ending in `.tflite`.
        precision: How it computes.

            - "float32": as the model does.
            - "float16": half the size, computes in float32; for GPUs.
            - "dynamic_int8": a quarter of the size: 8-bit weights, activations that
              are rounded to 8 bits by their own range at run time. Fast on CPUs, and
              near to the model. Kernels of fewer than 1,024 numbers stay in float32.
            - "int8": layers with weights compute with integers of ranges that were
              measured before, and `pixels` are uint8; for accelerators. Farthest from
              the model: what comes out is reported and not limited.
        labels: Name of each class, in the order of the logits; None numbers them.
        images: Real images to check on, uint8 RGB, each of any size; None takes
            embedded handwritten digits.
        image_labels: The class of each image; None if it is not known.
        head: Which head answers, as in `inference_model`.
        keep_rates: Shares of the patch tokens that stay at each reorganization, each a
            whole percent in (0, 1].
        calibration_images: Real images that int8 measures its ranges on, as `images`; a
            hundred is usual. They must be others than `images`, for an honest proof.
        sensitivity: Whether to write `<name>.sensitivity.csv` as well: which layers
            int8 hurts, see `export.sensitivity`.
        min_agreement: Smallest share of the images with the same best class, in [0, 1];
            None takes the precision's.
        timed: Whether to measure how fast it is as well: some seconds for each
            signature.
        verbose: Whether to print the certificate's table.

    Returns:
        The file.

    Raises:
        ValueError: If an argument is refused.
        RuntimeError: If the file differs from the model, or needs an operator that is
            not built in, or lacks the weights.
        OSError: If `path` cannot be written.
    """
    path = Path(path)
    check(path.suffix == ".tflite", "`path` must end in .tflite.", path=str(path))
    check_choice("precision", precision, PRECISIONS)
    limits = limits_of(precision, min_agreement)
    one_head = float32_model(inference_model(model, head))
    num_classes = one_head.output.shape[-1]
    names = check_labels(labels, num_classes)
    checked = check_set(num_classes, images, image_labels)
    ranges = _calibration_views(one_head, precision, calibration_images, sensitivity)
    models = dial(one_head, keep_rates)
    with unfinished(path.parent) as workshop:
        converter = _converter(models, workshop / "saved_model")
        content, errors = _convert(converter, precision, ranges, models, sensitivity)
        _check_weights(content, one_head, precision)
        files = {
            suffix: workshop / f"{path.stem}{suffix}"
            for suffix in (".labels.txt", SENSITIVITY, ".certificate.json", ".tflite")
        }
        files[".tflite"].write_bytes(content)
        files[".labels.txt"].write_text("\n".join(names) + "\n", encoding="utf-8")
        if errors:
            files[SENSITIVITY].write_text(csv_of(errors))
        certify(
            files[".certificate.json"],
            one_head,
            kind="TFLite",
            precision=precision,
            trials=_trials(content, models, checked, timed, verbose),
            limits=limits,
            verbose=verbose,
            **_facts(content, models, checked, ranges),
        )
        (path.parent / files[SENSITIVITY].name).unlink(missing_ok=True)  # of another
        for file in files.values():  # the model last; its proof holds its hash
            if file.exists():
                file.rename(path.parent / file.name)
    return path


def _calibration_views(model, precision, images, sensitivity) -> np.ndarray | None:
    """Reads the images that only int8 needs, and must have."""
    if precision != "int8":
        check(
            images is None and not sensitivity,
            "`calibration_images` and `sensitivity` are for int8.",
            precision=precision,
        )
        return None
    check(
        images is not None,
        "int8 needs `calibration_images`: a hundred real images are usual.",
        calibration_images=images,
    )
    checked = check_set(model.output.shape[-1], images)
    return calibration_views(checked.views(model))


def _converter(
    models: Mapping[str, keras.Model], folder: Path
) -> tf.lite.TFLiteConverter:
    """Goes by way of a SavedModel, which freezes the weights into the graph."""

    def answers_of(model):
        def answer(pixels):
            logits = model(pixels, training=False)
            return {"logits": logits, "probabilities": tf.nn.softmax(logits)}

        return answer

    archive = keras.export.ExportArchive()
    for signature, model in models.items():
        spec = tf.TensorSpec((1, *input_size(model), 3), tf.float32, "pixels")
        archive.add_endpoint(signature, answers_of(model), input_signature=[spec])
    archive.write_out(folder, verbose=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    return converter


def _convert(
    converter, precision, ranges, models, sensitivity
) -> tuple[bytes, list[LayerError]]:
    """Makes the file; with `sensitivity` also measures what int8 does to its layers."""
    if precision == "int8":
        calibrated = calibrate(converter, ranges, models)
        errors = []
        if sensitivity:
            layers = {layer.name for layer in models[DEFAULT]._flatten_layers()}
            errors = layer_errors(calibrated, ranges[:SENSITIVITY_IMAGES], layers)
        return compact(quantize(calibrated)), errors
    if precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    return compact(converter.convert()), []


def _check_weights(content: bytes, model: keras.Model, precision: str) -> None:
    """Refuses a file that cannot hold the weights: they were not frozen into it."""
    least = model.count_params() * BYTES_OF_A_WEIGHT[precision] // 2
    if len(content) < least:
        raise RuntimeError(
            "The file is too small to hold the weights of the model. Received: "
            f"bytes={len(content)}, at least {least} are expected."
        )


def _trials(
    content: bytes,
    models: Mapping[str, keras.Model],
    checked: CheckSet,
    timed: bool,
    progress: bool,
) -> dict[str, Trial]:
    interpreter = Interpreter(model_content=content, num_threads=os.cpu_count())

    def run_of(signature):
        runner = interpreter.get_signature_runner(signature)
        dtype = runner.get_input_details()["pixels"]["dtype"]

        def run(pixels):
            answer = runner(pixels=pixels.astype(dtype))
            probabilities = tf.nn.softmax(answer["logits"])
            if not np.allclose(answer["probabilities"], probabilities, atol=0.01):
                return np.full_like(answer["logits"], np.nan)  # fails the certificate
            return answer["logits"]

        return run

    return {
        signature: try_signature(
            model,
            run_of(signature),
            checked,
            batch_size=1,
            keep_rate=keep_rate_of(signature),
            timed=timed,
            progress=progress,
        )
        for signature, model in models.items()
    }


def _facts(content, models, checked: CheckSet, ranges: np.ndarray | None) -> dict:
    """What the certificate records of a file beside its trials."""
    views = checked.views(models[DEFAULT])
    facts = {
        "operators": builtin_operators(content),
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "num_threads": os.cpu_count(),
        "token_selection_agreement": selection_agreement(content, models, views),
    }
    if ranges is not None:
        facts["calibration_images"] = len(ranges)
    return facts
