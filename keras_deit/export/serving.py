"""A SavedModel that TF Serving loads: image bytes in, labels out."""

from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

import keras
from tensorflow.core.protobuf import saved_model_pb2

from keras_deit._checks import check, check_choice
from keras_deit._files import unfinished
from keras_deit.data.bounded import MAX_BYTES, MAX_PIXELS
from keras_deit.export.certificate import certify, check_labels, limits_of
from keras_deit.export.dial import DEFAULT, dial
from keras_deit.export.serving_trials import Samples, check_outputs, try_out
from keras_deit.export.signatures import EXPLAIN, ServedModel
from keras_deit.export.trials import (
    check_set,
)
from keras_deit.export.warmup import write_warmup_requests
from keras_deit.models.explanation import explanation_model
from keras_deit.models.inference import float32_model, inference_model
from keras_deit.training.compiled import PRECISIONS, frozen

LABELS = "labels.txt"


def saved_model(
    model: keras.Model,
    path: str | Path,
    labels=None,
    images=None,
    image_labels=None,
    head: str = "fused",
    top_k: int = 5,
    precision: str = "float32",
    keep_rates: Sequence[float] = (),
    explain: bool = False,
    max_bytes: int = MAX_BYTES,
    max_pixels: int = MAX_PIXELS,
    min_agreement: float | None = None,
    timed: bool = True,
    verbose: bool = True,
) -> Path:
    """Exports a model in the layout of TF Serving, `path/<version>/`.

    Its signatures, each for any batch size:

    - `serving_default`: `image_bytes`, strings (B,), each a file: JPEG, PNG, BMP, WebP
      that is not animated, or the first frame of a GIF; it is decoded, resized and
      cropped as in evaluation.
    - `keep_70` and the like, one for each of `keep_rates`: the same, with fewer tokens.
    - `pixels`: `pixels`, uint8 (B, H, W, 3), at the model's size.
    - `float`: `pixels`, float32 (B, H, W, 3), in [0, 255].
    - `explain`, if it is asked for: `image_bytes` in, and out what
      `models.explanation.explanation_model` returns, and `status`.

    All but the last return `logits` (B, Y), `probabilities` (B, Y), and the best
    classes, best first: `top_k_classes` int32, `top_k_scores` float32 (probabilities)
    and `top_k_labels` string, each (B, k). Those that take files also return `status`,
    strings (B,): "ok", or why there is no answer: "too_many_bytes", "too_many_pixels"
    or "not_decodable". Such an image fails no other: it gets zeros, the classes -1 and
    no labels. Size and pixel count are checked before anything is decoded.

    The labels are an asset, `assets/labels.txt`, and `assets.extra` holds warm-up
    requests. The artifact is loaded again, and each signature must equal the model on
    real images; the proof is `certificate.json` in the version's folder. If one does
    not, nothing is left behind.

    Args:
        model: A one-head or a distilled model of known input size.
        path: The base folder; the next whole number becomes the version.
        labels: Name of each class, in the order of the logits; None numbers them.
        images: Real images to check on, uint8 RGB, each of any size; None takes
            embedded handwritten digits.
        image_labels: The class of each image; None if it is not known.
        head: Which head answers, as in `inference_model`.
        top_k: How many of the best classes are named, at least 1; all if there are
            fewer.
        precision: "float32", whatever the model's dtype policy, or "bfloat16": mixed,
            with weights frozen into the graph, half the size, and faster where the
            processor multiplies in bfloat16.
        keep_rates: The dial: shares of the patch tokens that stay at each
            reorganization, each a whole percent. All share one copy of the weights,
            so there is no dial in bfloat16, where weights are part of the graph.
        explain: Whether there is a signature `explain`; for transformers, in float32.
        max_bytes: Most bytes of a file.
        max_pixels: Most pixels of an image, as it is and as it is resized.
        min_agreement: Smallest share of the images on which the best class must be the
            model's, in [0, 1]; None takes that of the precision (`certificate.LIMITS`).
        timed: Whether to measure how fast it is as well: some seconds for each
            signature.
        verbose: Whether to print the certificate.

    Returns:
        The folder of the new version.

    Raises:
        ValueError: If an argument is refused.
        RuntimeError: If the artifact differs from the model.
        OSError: If `path` cannot be written.
    """
    check_choice("precision", precision, PRECISIONS)
    bounds = {"top_k": top_k, "max_bytes": max_bytes, "max_pixels": max_pixels}
    _check_options(precision, keep_rates, explain, bounds)
    limits = limits_of(precision, min_agreement)
    exact = float32_model(model)
    models = dial(inference_model(exact, head), keep_rates)
    num_classes = models[DEFAULT].output.shape[-1]
    names = check_labels(labels, num_classes)
    checked = check_set(num_classes, images, image_labels)
    samples = Samples(checked, models[DEFAULT])
    functions = {id(one): _logits_of(one) for one in models.values()}
    answers = {name: functions[id(one)] for name, one in models.items()}
    if precision == "bfloat16":
        answers = {DEFAULT: frozen(models[DEFAULT], precision)}
    explanation = explanation_model(exact) if explain else None
    if explain:
        models[EXPLAIN] = inference_model(exact, "fused")
    base = Path(path)
    with unfinished(base) as workshop:
        labels_file = workshop / LABELS
        labels_file.write_text("".join(f"{n}\n" for n in names), encoding="utf-8")
        artifact = workshop / "artifact"
        served = ServedModel(models[DEFAULT], labels_file, **bounds)
        signatures = served.write(artifact, answers, explanation)
        requests = {name: samples.of(name, 1) for name in signatures}
        write_warmup_requests(artifact, base.absolute().name, requests)
        check_outputs(artifact, samples, signatures, names, explanation)
        trials = try_out(artifact, models, samples, signatures, timed, verbose)
        certify(
            artifact / "certificate.json",
            models[DEFAULT],
            "SavedModel",
            precision,
            trials,
            limits,
            verbose,
            operators=_operators(artifact),
            **_contents(artifact),
            **bounds,
        )
        return artifact.rename(base / str(_next_version(base)))


def _check_options(precision: str, keep_rates, explain: bool, bounds: dict) -> None:
    check(
        precision == "float32" or not (keep_rates or explain),
        "`keep_rates` and `explain` need precision='float32': weights that are frozen "
        "into a graph cannot be shared.",
        precision=precision,
        keep_rates=keep_rates,
        explain=explain,
    )
    for name, value in bounds.items():
        check(
            isinstance(value, int) and 1 <= value < 2**31,
            f"`{name}` must be a whole number in [1, 2^31).",
            **{name: value},
        )


def _logits_of(model: keras.Model) -> Callable:
    return lambda pixels: model(pixels, training=False)


def _operators(artifact: Path) -> list[str]:
    """Lists the operators of a SavedModel, in alphabetical order."""
    content = (artifact / "saved_model.pb").read_bytes()
    graph = saved_model_pb2.SavedModel.FromString(content).meta_graphs[0].graph_def
    nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
    called = {function.signature.name for function in graph.library.function}
    return sorted({node.op for node in nodes} - called)


def _contents(artifact: Path) -> dict:
    """The size of all files together, and the hash of each."""
    files = sorted(path for path in artifact.rglob("*") if path.is_file())
    return {
        "bytes": sum(path.stat().st_size for path in files),
        "sha256": {
            str(path.relative_to(artifact)): sha256(path.read_bytes()).hexdigest()
            for path in files
        },
    }


def _next_version(base: Path) -> int:
    versions = [int(p.name) for p in base.iterdir() if p.name.isdecimal()]
    return max(versions, default=0) + 1
