"""Full int8 for a TFLite file: what becomes integer, what stays float."""

import warnings
from collections.abc import Iterable

import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from tensorflow.lite.python.convert import mlir_quantize

from keras_deit.export.tflite_file import connected, parse

BLACK, WHITE = 0, 255

# Attention, and the ranking of tokens by it.
FLOAT_OPERATORS = ["BATCH_MATMUL", "SOFTMAX", "TOPK_V2"]
# What becomes of sums, scales, exponentials and moves of tokens in a file; the stream
# of tokens is all of them that hang together with one of its sources.
STREAM = {
    "ADD", "SUB", "MUL", "DIV", "NEG", "EXP", "RSQRT", "MEAN", "SUM", "SQUARE",
    "SQUARED_DIFFERENCE", "RESHAPE", "GATHER", "STRIDED_SLICE", "CONCATENATION",
}  # fmt: skip
SOURCES = {"RSQRT", "EXP", "DIV", "TOPK_V2"}


def calibration_views(views: np.ndarray) -> np.ndarray:
    """Makes the images that the ranges of int8 are measured on.

    A black and a white corner make the range of the pixels [0, 255] in each, so that
    one step of the integers is one step of a pixel.

    Args:
        views: Real images as the model sees them, uint8 (n, H, W, 3).

    Returns:
        The images as float32 (n, H, W, 3).
    """
    views = views.astype(np.float32)
    views[:, 0, 0], views[:, -1, -1] = BLACK, WHITE
    return views


def calibrate(
    converter: tf.lite.TFLiteConverter, views: np.ndarray, signatures: Iterable[str]
) -> bytes:
    """Converts a model to float32 with the range of each tensor written into it.

    Args:
        converter: The converter of a SavedModel.
        views: The images of `calibration_views`.
        signatures: Names of the signatures; each sees every image.

    Returns:
        A TFLite file for `quantize`.
    """

    def examples():
        for signature in signatures:
            for view in views:
                yield signature, {"pixels": view[None]}

    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = examples
    converter._experimental_calibrate_only = True
    with warnings.catch_warnings():
        # TensorFlow calibrates with its old interpreter, and warns of it.
        warnings.simplefilter("ignore", UserWarning)
        return converter.convert()


def quantize(calibrated: bytes, for_debugging: bool = False) -> bytes:
    """Makes a model integer where that is of use.

    Layers with weights compute in int8: 8-bit weights, a scale for each channel, and
    8-bit activations, one scale each, as measured. In float32 stay:

    - attention, and the ranking of tokens by it: products of tokens, softmax, `top_k`;
    - the stream of tokens with its normalizations, see `stream_tensors`.

    Args:
        calibrated: A file of `calibrate`.
        for_debugging: Whether each integer operator has a float one beside it, as
            TensorFlow's `QuantizationDebugger` expects. It takes float pixels then.

    Returns:
        The file; its signatures take `pixels` as uint8, and return float32.

    Raises:
        RuntimeError: If it does not take pixels as they are.
    """
    content = mlir_quantize(
        calibrated,
        input_data_type=tf.float32 if for_debugging else tf.uint8,
        enable_numeric_verify=for_debugging,
        denylisted_ops=FLOAT_OPERATORS,
        denylisted_nodes=stream_tensors(calibrated),
    )
    if not for_debugging:
        _check_pixels(content)
    return content


def _check_pixels(content: bytes) -> None:
    interpreter = Interpreter(model_content=content)
    for signature in interpreter.get_signature_list():
        runner = interpreter.get_signature_runner(signature)
        details = runner.get_input_details()["pixels"]
        if details["dtype"] is not np.uint8 or details["quantization"] != (1.0, 0):
            raise RuntimeError(
                "An int8 file must take raw uint8 pixels: scale 1, zero point 0. "
                f"Received: signature={signature!r}, dtype={details['dtype']}, "
                f"(scale, zero point)={details['quantization']}."
            )


def stream_tensors(calibrated: bytes) -> list[str]:
    """Lists the tensors of the stream of tokens: residual sums and what is around them.

    One scale for a tensor cannot hold the few large channels of the stream and the many
    small ones, nor the exponentials of Performers. So this is every sum, product or
    move of tokens that hangs together with a normalization (a reciprocal root), a
    quotient, an exponential or a ranking.

    Args:
        calibrated: A file of `calibrate`.

    Returns:
        Their names.
    """
    model = parse(calibrated)
    names = set()
    for graph in model.subgraphs:
        for operator in connected(model, graph, SOURCES, STREAM):
            names.update(graph.tensors[t].name.decode() for t in operator.outputs)
    return sorted(names)
