"""Files of OpenVINO and ONNX: other engines, under the same certificate."""

import warnings
from collections.abc import Callable
from functools import cache, partial
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

import keras
import numpy as np

from keras_deit._checks import check, check_choice
from keras_deit._files import unfinished
from keras_deit.export.certificate import certify, check_labels, limits_of
from keras_deit.export.trials import check_set, try_signature
from keras_deit.layers.gelu import written_with_erf
from keras_deit.models.inference import float32_model, inference_model, input_size
from keras_deit.models.reorganization import with_keep_rate

HINTS = {"float32": "f32", "bfloat16": "bf16"}  # OpenVINO's names of precisions
NO_OPERATORS = {"Constant", "Parameter", "Result"}  # of OpenVINO: what is not computed
OPSET = 18  # of ONNX, the newest that tf2onnx writes
PACKAGES = {"OpenVINO": ("openvino",), "ONNX": ("onnx", "onnxruntime", "tf2onnx")}
HINT = "INFERENCE_PRECISION_HINT"


def openvino(
    model: keras.Model,
    path: str | Path,
    precision: str = "float32",
    labels=None,
    images=None,
    image_labels=None,
    head: str = "fused",
    keep_rate: float | None = None,
    min_agreement: float | None = None,
    timed: bool = True,
    verbose: bool = True,
) -> Path:
    """Exports a model as an OpenVINO file, for any batch size.

    It takes `pixels`, float32 (B, H, W, 3) in [0, 255], and returns `logits`, float32
    (B, Y). Weights are constants in `<name>.bin`: float32 for "float32", and float16
    for "bfloat16", which halves the file.

    What OpenVINO computes in is not in the file: whoever compiles it says so, by
    `{"INFERENCE_PRECISION_HINT": "f32"}` or `"bf16"`. Without the hint a CPU that knows
    bfloat16 takes it, for a "float32" file too. One that does not know it computes in
    float32 whatever the hint; the certificate's `computed_in` says what it was tried
    in.

    Beside the file lie `<name>.bin`, `<name>.labels.txt` and `<name>.certificate.json`,
    the proof that it equals the model on real images. If it does not, nothing is left
    behind, and what was there stays.

    Args:
        model: A one-head or a distilled model of known input size, of any dtype policy.
        path: The file to write, ending in `.xml`.
        precision: "float32" or "bfloat16".
        labels: Name of each class, in the order of the logits; None numbers them.
        images: Real images to check on, uint8 RGB, each of any size; None takes
            embedded handwritten digits.
        image_labels: The class of each image, for the accuracy; None if not known.
        head: Which head answers, as in `inference_model`.
        keep_rate: Share of the patch tokens that stay at each reorganization, as in
            `with_keep_rate`; None takes the model's own.
        min_agreement: Smallest share of the images with the same best class, in [0, 1];
            None takes the precision's.
        timed: Whether to measure how fast it is as well: some seconds.
        verbose: Whether to print the certificate as a table.

    Returns:
        The file.

    Raises:
        ValueError: If an argument is refused.
        ImportError: If OpenVINO is not installed.
        RuntimeError: If the file differs from the model.
        OSError: If `path` cannot be written.
    """
    check_choice("precision", precision, HINTS)
    limits = limits_of(precision, min_agreement)
    return _export(
        model,
        Path(path),
        partial(_make_openvino, precision=precision),
        kind="OpenVINO",
        suffix=".xml",
        proof={"precision": precision, "limits": limits, "verbose": verbose},
        labels=labels,
        images=images,
        image_labels=image_labels,
        head=head,
        keep_rate=keep_rate,
        timed=timed,
    )


def onnx(
    model: keras.Model,
    path: str | Path,
    labels=None,
    images=None,
    image_labels=None,
    head: str = "fused",
    keep_rate: float | None = None,
    min_agreement: float | None = None,
    timed: bool = True,
    verbose: bool = True,
) -> Path:
    """Exports a model as an ONNX file in float32, for any batch size.

    It takes `pixels`, float32 (B, H, W, 3) in [0, 255], and returns `logits`, float32
    (B, Y). All operators are of the standard; it was tried in ONNX Runtime.

    Beside the file lie `<name>.labels.txt` and `<name>.certificate.json`, the proof
    that it equals the model on real images. If it does not, nothing is left behind, and
    what was there stays.

    Args:
        model: A one-head or a distilled model of known input size, of any dtype policy.
        path: The file to write, ending in `.onnx`.
        labels: Name of each class, in the order of the logits; None numbers them.
        images: Real images to check on, uint8 RGB, each of any size; None takes
            embedded handwritten digits.
        image_labels: The class of each image, for the accuracy; None if not known.
        head: Which head answers, as in `inference_model`.
        keep_rate: Share of the patch tokens that stay at each reorganization, as in
            `with_keep_rate`; None takes the model's own.
        min_agreement: Smallest share of the images with the same best class, in [0, 1];
            None takes that of float32.
        timed: Whether to measure how fast it is as well: some seconds.
        verbose: Whether to print the certificate as a table.

    Returns:
        The file.

    Raises:
        ValueError: If an argument is refused.
        ImportError: If ONNX, ONNX Runtime or tf2onnx is not installed.
        RuntimeError: If the file differs from the model, or needs an operator that is
            not of the standard.
        OSError: If `path` cannot be written.
    """
    limits = limits_of("float32", min_agreement)
    return _export(
        model,
        Path(path),
        _make_onnx,
        kind="ONNX",
        suffix=".onnx",
        proof={"precision": "float32", "limits": limits, "verbose": verbose},
        labels=labels,
        images=images,
        image_labels=image_labels,
        head=head,
        keep_rate=keep_rate,
        timed=timed,
    )


def _export(
    model: keras.Model,
    path: Path,
    make: Callable,
    kind: str,
    suffix: str,
    proof: dict,
    labels,
    images,
    image_labels,
    head: str,
    keep_rate: float | None,
    timed: bool,
) -> Path:
    """Makes the files by `make(model, file)`, tries them, and puts them in place.

    `make` returns what the file is run by, and the facts of its certificate.
    """
    check(path.suffix == suffix, f"`path` must end in {suffix}.", path=str(path))
    check_installed(kind)
    one_head = float32_model(inference_model(model, head))
    num_classes = one_head.output.shape[-1]
    names = check_labels(labels, num_classes)
    checked = check_set(num_classes, images, image_labels)
    if keep_rate is not None:
        one_head = with_keep_rate(one_head, keep_rate)
    with unfinished(path.parent) as workshop:
        files = workshop / "files"
        files.mkdir()
        run, facts = make(one_head, files / path.name)
        made = sorted(files.iterdir())
        facts["bytes"] = sum(file.stat().st_size for file in made)
        facts["sha256"] = {f.name: sha256(f.read_bytes()).hexdigest() for f in made}
        trial = try_signature(
            one_head,
            run,
            checked,
            keep_rate=keep_rate,
            timed=timed,
            progress=proof["verbose"],
        )
        trials = {"serving_default": trial}
        proof_file = files / f"{path.stem}.certificate.json"
        certify(proof_file, one_head, kind, trials=trials, **proof, **facts)
        labels_file = files / f"{path.stem}.labels.txt"
        labels_file.write_text("\n".join(names) + "\n", encoding="utf-8")
        # The model last, as it is complete with what it reads and its proof only.
        for file in sorted(files.iterdir(), key=lambda file: file.name == path.name):
            file.rename(path.parent / file.name)
    return path


def check_installed(kind: str) -> None:
    """Raises `ImportError` unless what a kind of file needs is installed."""
    missing = [name for name in PACKAGES[kind] if find_spec(name) is None]
    if missing:
        raise ImportError(
            f"An {kind} file needs {', '.join(missing)}: pip install "
            "'keras-deit[engines]'"
        )


def _write(model: keras.Model, file: Path, kind: str, **options) -> None:
    """Writes the file that Keras makes, with our names of input and output."""
    shape = (None, *input_size(model), 3)
    keras.Model(model.inputs[0], {"logits": model.output}).export(
        str(file),
        format=kind,
        verbose=False,
        input_signature=[keras.InputSpec("float32", shape, name="pixels")],
        **options,
    )


def _make_openvino(model: keras.Model, file: Path, precision: str) -> tuple:
    import openvino as ov

    whole = file.parent.parent / "whole.xml"
    with written_with_erf():
        _write(model, whole, "openvino")
    core, in_half = ov.Core(), precision == "bfloat16"
    ov.save_model(core.read_model(whole), file, compress_to_fp16=in_half)
    graph = core.read_model(file)
    compiled = core.compile_model(graph, "CPU", {HINT: HINTS[precision]})
    operators = {operation.get_type_name() for operation in graph.get_ops()}

    def run(pixels):
        return compiled(pixels.astype(np.float32))["logits"]

    return run, {
        "operators": sorted(operators - NO_OPERATORS),
        "computed_in": compiled.get_property(HINT).to_string(),
    }


def _make_onnx(model: keras.Model, file: Path) -> tuple:
    import onnx
    from onnxruntime import InferenceSession

    _teach_erfc()
    with warnings.catch_warnings():
        # Of NumPy, since Keras looks for `np.object`, which tf2onnx asks for.
        warnings.simplefilter("ignore", FutureWarning)
        _write(model, file, "onnx", opset_version=OPSET)
    content = onnx.load(file)
    nodes = content.graph.node
    foreign = {x.op_type for x in nodes if not onnx.defs.has(x.op_type, x.domain)}
    if foreign:
        raise RuntimeError(
            "An ONNX file must have operators of the standard only. Received: "
            f"{', '.join(sorted(foreign))}."
        )
    for value in (*content.graph.input, *content.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"  # for people
    onnx.save(content, file)
    session = InferenceSession(file, providers=["CPUExecutionProvider"])

    def run(pixels):
        return session.run(["logits"], {"pixels": pixels.astype(np.float32)})[0]

    return run, {"operators": sorted({x.op_type for x in nodes}), "opset": OPSET}


@cache
def _teach_erfc() -> None:
    """Teaches tf2onnx `erfc(x) = 1 - erf(x)`, which TensorFlow's exact GELU has."""
    from tf2onnx.handler import tf_op

    @tf_op("Erfc")
    class Erfc:
        @classmethod
        def version_9(cls, graph, node, **_):
            one = graph.make_const(f"{node.name}_one", np.array(1, np.float32))
            erf = graph.make_node("Erf", list(node.input))
            graph.replace_inputs(node, [one.output[0], erf.output[0]])
            node.type = "Sub"
