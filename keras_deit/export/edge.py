"""A TFLite file with built-in operators only, for the edge."""

import hashlib
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_deit._checks import check, check_choice
from keras_deit._files import unfinished
from keras_deit.data.geometry import evaluation_view
from keras_deit.export.certificate import certify, check_images, check_labels, compare
from keras_deit.models.inference import (
    float32_model,
    inference_model,
    input_size,
)
from keras_deit.models.preprocessing import preprocessing_of

PRECISIONS = ("float32",)


def tflite(
    model: keras.Model,
    path: str | Path,
    precision: str = "float32",
    labels=None,
    images=None,
    head: str = "fused",
) -> Path:
    """Exports a model as a TFLite file for one image at a time.

    Its signature `serving_default` takes `pixels`, float32 (1, H, W, 3) in [0, 255],
    and returns `logits` and `probabilities`, each (1, Y). All operators are built in.

    Beside the file lie `<name>.labels.txt` and `<name>.certificate.json`, the proof
    that it equals the model on real images. If it does not, nothing is left behind, and
    what was there stays.

    Args:
        model: A one-head or a distilled model of known input size. The artifact
            computes in float32, whatever the model's dtype policy.
        path: The file to write, ending in `.tflite`.
        precision: "float32".
        labels: Name of each class, in the order of the logits; None numbers them.
        images: Real images to check on, uint8 RGB, each of any size; None takes
            embedded handwritten digits.
        head: Which head answers, as in `inference_model`.

    Returns:
        The file.

    Raises:
        ValueError: If an argument is refused.
        RuntimeError: If the file differs from the model, or needs an operator that is
            not built in.
        OSError: If `path` cannot be written.
    """
    path = Path(path)
    check(path.suffix == ".tflite", "`path` must end in .tflite.", path=str(path))
    check_choice("precision", precision, PRECISIONS)
    one_head = float32_model(inference_model(model, head))
    names = check_labels(labels, one_head.output.shape[-1])
    images = check_images(images)
    with unfinished(path.parent) as workshop:
        content = _convert(one_head, workshop / "saved_model")
        files = {
            suffix: workshop / f"{path.stem}{suffix}"
            for suffix in (".labels.txt", ".certificate.json", ".tflite")
        }
        files[".tflite"].write_bytes(content)
        files[".labels.txt"].write_text("\n".join(names) + "\n")
        certify(
            files[".certificate.json"],
            one_head,
            {"serving_default": _comparison(content, one_head, images)},
            kind="TFLite",
            crop_ratio=preprocessing_of(one_head).crop_ratio,
            precision=precision,
            operators=builtin_operators(content),
            bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
        )
        for file in files.values():  # the model last; its proof holds its hash
            file.rename(path.parent / file.name)
    return path


def _convert(model: keras.Model, folder: Path) -> bytes:
    """Converts by way of a SavedModel, which freezes the weights into the graph."""

    def answer(pixels):
        logits = model(pixels, training=False)
        return {"logits": logits, "probabilities": tf.nn.softmax(logits)}

    shape = (1, *input_size(model), 3)
    archive = keras.export.ExportArchive()
    archive.add_endpoint(
        "serving_default",
        answer,
        input_signature=[tf.TensorSpec(shape, tf.float32, "pixels")],
    )
    archive.write_out(folder, verbose=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    return converter.convert()


def builtin_operators(content: bytes) -> list[str]:
    """Lists the operators of a TFLite file.

    Args:
        content: The file.

    Returns:
        Their names, in alphabetical order.

    Raises:
        RuntimeError: If one is not built in.
    """
    from ai_edge_litert import schema_py_generated as schema

    names = {
        code: name
        for name, code in vars(schema.BuiltinOperator).items()
        if isinstance(code, int)
    }
    model = schema.Model.GetRootAs(content)
    codes = (model.OperatorCodes(i) for i in range(model.OperatorCodesLength()))
    operators = []
    for code in codes:
        name = names[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
        if name == "CUSTOM":
            raise RuntimeError(
                "A TFLite file must have built-in operators only. Received: "
                f"{code.CustomCode().decode()}."
            )
        operators.append(name)
    return sorted(set(operators))


def _comparison(content: bytes, model: keras.Model, images: list[np.ndarray]):
    from ai_edge_litert.interpreter import Interpreter

    run = Interpreter(model_content=content).get_signature_runner("serving_default")
    size, crop_ratio = input_size(model), preprocessing_of(model).crop_ratio
    pixels = np.stack([evaluation_view(i, size, crop_ratio) for i in images])
    pixels = pixels.astype(np.float32)
    received = [run(pixels=image[None])["logits"][0] for image in pixels]
    return compare(model(pixels, training=False), received)
