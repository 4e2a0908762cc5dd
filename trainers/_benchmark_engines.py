"""The engines of `benchmark --what=inference`, and the files that they run."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from keras_deit import export
from keras_deit.models.inference import input_size
from keras_deit.weights.saver import save_weights

NUM_COMPARED = 2  # images that every engine answers before it is timed


def _keras(model: keras.Model, path: Path) -> Path:
    model.save(path.with_suffix(".keras"))
    return path.with_suffix(".keras")


def official(model: keras.Model, path: Path) -> Path:
    save_weights(model, path.with_suffix(".safetensors"))
    return path.with_suffix(".safetensors")


def _exported(function: Callable, suffix: str, **options) -> Callable:
    """A maker of artifacts by one of the exports, which tries them on few images."""

    def make(model, path):
        shape = (NUM_COMPARED, *input_size(model), 3)
        images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        return function(
            model,
            path.with_name(path.name + suffix),
            images=list(images),
            min_agreement=0.0,  # best classes of random weights lie close together
            timed=False,  # the contest does that
            verbose=False,
            **options,
        )

    return make


def _quantized_onnx(model: keras.Model, path: Path) -> Path:
    """ONNX Runtime's own dynamic quantization of our file."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantized = path.with_name(path.name + "-int8.onnx")
    whole = path.with_name(path.name + ".onnx")
    if not whole.is_file():  # `onnx_float32` may have made it
        whole = _exported(export.onnx, ".onnx")(model, path)
    # Not the convolution, which integers make slower.
    operators = {"op_types_to_quantize": ["Gemm", "MatMul"]}
    quantize_dynamic(whole, quantized, weight_type=QuantType.QInt8, **operators)
    return quantized


@dataclass(frozen=True)
class Engine:
    """Who runs a model.

    Attributes:
        module: Its module in `_contestants`.
        make: Called with (model, path without ending); makes the file that it runs, and
            returns where that is. None for an engine that makes its own model.
        how: More arguments of the module's `tasks`.
        peers: Whom of `_peers.PEERS` it needs.
        is_theirs: Whether the model is the others', too: it lives in their Python, and
            has no keep rate.
        one_image: Whether it takes one image at a time only.
    """

    module: str
    make: Callable | None
    how: dict
    peers: tuple[str, ...] = ()
    is_theirs: bool = False
    one_image: bool = False


def _timm(precision: str, **how) -> Engine:
    module, peers = how.pop("module", "timm"), how.pop("peers", ("timm",))
    return Engine(
        f"{module}_inference.py",
        official,
        {"precision": precision, **how},
        peers,
        is_theirs=True,
    )


def _keras_engine(how: str, make: Callable = _keras) -> Engine:
    return Engine("keras_inference.py", make, {"how": how})


def _litert(make: Callable) -> Engine:
    return Engine("tflite_inference.py", make, {}, one_image=True)


def _openvino(hint: str, make: Callable) -> Engine:
    return Engine("openvino_inference.py", make, {"precision": hint}, ("openvino",))


def _onnxruntime(make: Callable) -> Engine:
    return Engine("onnx_inference.py", make, {}, ("onnxruntime",))


CONVERTED = {"module": "openvino_timm", "peers": ("timm", "openvino")}
ENGINES = {
    "timm_float32": _timm("float32", compiled=False),
    "timm_bfloat16": _timm("bfloat16", compiled=False),
    "timm_compile_float32": _timm("float32", compiled=True),
    "timm_compile_bfloat16": _timm("bfloat16", compiled=True),
    "keras_hub": Engine(
        "keras_hub_inference.py", None, {}, ("keras_hub",), is_theirs=True
    ),
    "keras_predict": _keras_engine("predict"),
    "keras_function": _keras_engine("function"),
    "keras_compiled_float32": _keras_engine("compiled_float32"),
    "keras_compiled_bfloat16": _keras_engine("compiled_bfloat16"),
    "saved_model_float32": _keras_engine(
        "saved_model", _exported(export.saved_model, "")
    ),
    "saved_model_bfloat16": _keras_engine(
        "saved_model", _exported(export.saved_model, "-bfloat16", precision="bfloat16")
    ),
    "tflite_float32": _litert(_exported(export.tflite, ".tflite", precision="float32")),
    "tflite_dynamic_int8": _litert(
        _exported(export.tflite, "-int8.tflite", precision="dynamic_int8")
    ),
    "openvino_float32": _openvino("f32", _exported(export.openvino, ".xml")),
    "openvino_bfloat16": _openvino(
        "bf16", _exported(export.openvino, "-bfloat16.xml", precision="bfloat16")
    ),
    "openvino_timm_float32": _timm("f32", **CONVERTED),
    "openvino_timm_bfloat16": _timm("bf16", **CONVERTED),
    "onnx_float32": _onnxruntime(_exported(export.onnx, ".onnx")),
    "onnx_dynamic_int8": _onnxruntime(_quantized_onnx),
}
