"""The plan of `benchmark --what=inference`: one model in one engine after another."""

import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import keras
import numpy as np

from keras_deit import export
from keras_deit._checks import check_choice
from keras_deit._files import existing_file
from keras_deit.models.complexity import count_macs
from keras_deit.models.inference import inference_model, input_size
from keras_deit.models.preprocessing import preprocessing_of
from keras_deit.models.reorganization import with_keep_rate
from keras_deit.models.variants import VARIANTS
from keras_deit.models.vision_transformer import ViTConfig
from keras_deit.weights.create import create_model
from keras_deit.weights.saver import save_weights
from trainers._contest import Contestant, Plan
from trainers._contestants import MODULES

NUM_CLASSES = 1000
NUM_COMPARED = 2  # images that every engine answers before it is timed
NOISE = 0.02  # of biases: a graph optimizer drops those that are 0, and what they cost


def _keras(model: keras.Model, path: Path) -> Path:
    model.save(path.with_suffix(".keras"))
    return path.with_suffix(".keras")


def _official(model: keras.Model, path: Path) -> Path:
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


@dataclass(frozen=True)
class Engine:
    """Who runs a model.

    Attributes:
        module: Its module in `_contestants`.
        make: Called with (model, path without ending); makes the file that it runs, and
            returns where that is. None for an engine that makes its own model.
        how: More arguments of the module's `tasks`.
        is_peer: Whether it lives in the others' Python, and has no keep rate.
        one_image: Whether it takes one image at a time only.
    """

    module: str
    make: Callable | None
    how: dict
    is_peer: bool = False
    one_image: bool = False


KERAS, TFLITE, OPENVINO, TIMM = (
    f"{name}_inference.py" for name in ("keras", "tflite", "openvino", "timm")
)
ENGINES = {
    "timm_float32": Engine(TIMM, _official, {"precision": "float32"}, is_peer=True),
    "timm_bfloat16": Engine(TIMM, _official, {"precision": "bfloat16"}, is_peer=True),
    "keras_hub": Engine("keras_hub_inference.py", None, {}, is_peer=True),
    "keras_predict": Engine(KERAS, _keras, {"how": "predict"}),
    "keras_function": Engine(KERAS, _keras, {"how": "function"}),
    "saved_model_float32": Engine(
        KERAS, _exported(export.saved_model, ""), {"how": "saved_model"}
    ),
    "saved_model_bfloat16": Engine(
        KERAS,
        _exported(export.saved_model, "-bfloat16", precision="bfloat16"),
        {"how": "saved_model"},
    ),
    "tflite_float32": Engine(
        TFLITE,
        _exported(export.tflite, ".tflite", precision="float32"),
        {},
        one_image=True,
    ),
    "tflite_dynamic_int8": Engine(
        TFLITE,
        _exported(export.tflite, "-int8.tflite", precision="dynamic_int8"),
        {},
        one_image=True,
    ),
    "openvino_float32": Engine(
        OPENVINO, _exported(export.openvino, ".xml"), {"precision": "f32"}
    ),
    "openvino_bfloat16": Engine(
        OPENVINO,
        _exported(export.openvino, "-bfloat16.xml", precision="bfloat16"),
        {"precision": "bf16"},
    ),
    "onnx_float32": Engine("onnx_inference.py", _exported(export.onnx, ".onnx"), {}),
}


def plan(values, settings: dict, folder: Path) -> Plan:
    """Plans the contest: makes the models and their artifacts.

    Args:
        values: The flags.
        settings: The numbers of this run.
        folder: A folder for the artifacts.
    """
    python = str(existing_file(Path(values.peer_python or sys.executable).expanduser()))
    engines = settings["engines"] or list(ENGINES)
    for name, chosen, known in (
        ("variants", settings["variants"], VARIANTS),
        ("engines", engines, ENGINES),
    ):
        for one in chosen:
            check_choice(name, one, known)
    cases, of_engines = _cases(settings, engines, folder)
    all_cores = values.cores == "all"
    num_threads = len(os.sched_getaffinity(0)) if all_cores else 1
    return Plan(
        f"Inference on {'all cores' if all_cores else 'one core'}",
        "seconds" if all_cores else "cpu_seconds",
        tuple(
            Contestant(
                name,
                MODULES / ENGINES[name].module,
                {**ENGINES[name].how, "cases": mine, "num_threads": num_threads},
                python if ENGINES[name].is_peer else sys.executable,
            )
            for name, mine in of_engines.items()
        ),
        facts={"cases": cases},
        all_cores=all_cores,
    )


def _cases(settings: dict, engines: list[str], folder: Path) -> tuple[dict, dict]:
    """What is to be measured, and what of it each engine takes part in."""
    cases: dict[str, dict] = {}
    of_engines: dict[str, dict] = {engine: {} for engine in engines}
    sizes = settings["batch_sizes"]
    models = {variant: seeded_model(variant) for variant in settings["variants"]}
    dialed = {
        (variant, keep_rate): at_keep_rate(model, keep_rate)
        for variant, model in models.items()
        for keep_rate in settings["keep_rates"]
    }
    for (variant, keep_rate), model in dialed.items():
        path = folder / f"{variant}-{keep_rate:g}".replace(".", "_")
        facts = _facts(model, variant, keep_rate, path, max(sizes))
        named = {
            f"{variant}, keep {keep_rate:g}, batch {size}": {
                **facts,
                "batch_size": size,
            }
            for size in sizes
        }
        cases.update(named)
        for engine in engines:
            told = f"Making what {engine} runs: {variant}, keep {keep_rate:g} ..."
            print(told, file=sys.stderr, flush=True)
            mine = _made(ENGINES[engine], models[variant], model, named, path)
            of_engines[engine].update(mine)
    return cases, of_engines


def seeded_model(variant: str) -> keras.Model:
    """Builds a variant with random weights, always the same; no bias is 0."""
    keras.utils.set_random_seed(0)
    model = create_model(variant, num_classes=NUM_CLASSES)
    random = np.random.default_rng(0)
    for weight in model.trainable_weights:
        if len(weight.shape) == 1:
            weight.assign(weight + NOISE * random.normal(size=weight.shape))
    return model


def at_keep_rate(model: keras.Model, keep_rate: float) -> keras.Model:
    """Sets the keep rate of a model; one that cannot reorganize tokens has only 1."""
    blocks = (getattr(layer, "reorganization", None) for layer in model.layers)
    if keep_rate == 1 and all(block is None for block in blocks):
        return model
    return with_keep_rate(model, keep_rate)


def _facts(
    model: keras.Model, variant: str, keep_rate: float, path: Path, most_images: int
) -> dict:
    """What a contestant is told of a model, with what it should answer."""
    preprocessing = preprocessing_of(model)
    shape = (most_images, *input_size(model), 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    one_head = inference_model(model)
    files = {name: f"{path}-{name}.npy" for name in ("pixels", "expected")}
    np.save(files["pixels"], pixels)
    np.save(files["expected"], one_head(pixels[:NUM_COMPARED], training=False))
    config = VARIANTS[variant].config
    encoder = None  # what a peer that makes its own model must know
    if isinstance(config, ViTConfig):
        encoder = {**asdict(config.encoder), "patch_size": config.patch_size}
    return {
        "variant": variant,
        "keep_rate": keep_rate,
        "gmacs": count_macs(one_head) / 1e9,
        "mean": preprocessing.mean,
        "std": preprocessing.std,
        "encoder": encoder,
        **files,
    }


def _made(
    engine: Engine, model: keras.Model, dialed: keras.Model, cases: dict, path: Path
) -> dict:
    """The cases that an engine takes part in, with the file that it runs."""
    keep_rate = next(iter(cases.values()))["keep_rate"]
    if engine.is_peer and keep_rate != 1:
        return {}
    mine = {
        name: case
        for name, case in cases.items()
        if case["batch_size"] == 1 or not engine.one_image
    }
    if not mine or engine.make is None:
        return mine
    one_head = model if engine.make is _official else inference_model(dialed)
    try:
        file = engine.make(one_head, path)
    except ImportError:  # its contestant says what is not installed
        file = None
    return {name: {**case, "file": str(file)} for name, case in mine.items()}
