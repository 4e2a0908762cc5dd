"""The plan of `benchmark --what=inference`: one model in one engine after another."""

import sys
from dataclasses import asdict
from pathlib import Path

import keras
import numpy as np

from keras_deit._checks import check_choice
from keras_deit.models.complexity import count_macs
from keras_deit.models.inference import inference_model, input_size
from keras_deit.models.preprocessing import preprocessing_of
from keras_deit.models.reorganization import with_keep_rate
from keras_deit.models.variants import VARIANTS
from keras_deit.models.vision_transformer import ViTConfig
from keras_deit.weights.create import create_model
from trainers._benchmark_engines import ENGINES, NUM_COMPARED, Engine, official
from trainers._contest import Contestant, Plan, cores_of_ours, reason_of
from trainers._contestants import MODULES
from trainers._peers import left_out_by, peer_python

NUM_CLASSES = 1000
NOISE = 0.02  # of biases: a graph optimizer drops those that are 0, and what they cost


def plan(values, settings: dict, folder: Path) -> Plan:
    """Plans the contest: makes the models and their artifacts.

    Args:
        values: The flags.
        settings: The numbers of this run.
        folder: A folder for the artifacts.
    """
    python = peer_python(values)
    engines = settings["engines"] or list(ENGINES)
    for name, chosen, known in (
        ("variants", settings["variants"], VARIANTS),
        ("engines", engines, ENGINES),
    ):
        for one in chosen:
            check_choice(name, one, known)
    left_out = left_out_by(values, {name: ENGINES[name].peers for name in engines})
    engines = [name for name in engines if name not in left_out]
    cases, of_engines, errors = _cases(settings, engines, folder)
    all_cores = values.cores == "all"
    num_threads = len(cores_of_ours()) if all_cores else 1
    return Plan(
        f"Inference on {'all cores' if all_cores else 'one core'}",
        "seconds" if all_cores else "cpu_seconds",
        tuple(
            Contestant(
                name,
                MODULES / ENGINES[name].module,
                {**ENGINES[name].how, "cases": mine, "num_threads": num_threads},
                python if ENGINES[name].is_theirs else sys.executable,
                ENGINES[name].peers,
            )
            for name, mine in of_engines.items()
        ),
        facts={"cases": cases},
        all_cores=all_cores,
        left_out=left_out,
        errors=errors,
    )


def _cases(
    settings: dict, engines: list[str], folder: Path
) -> tuple[dict, dict, dict[str, str]]:
    """What is to be measured, what of it each engine takes part in, what failed."""
    cases: dict[str, dict] = {}
    errors: dict[str, str] = {}
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
            try:
                mine = _made(ENGINES[engine], models[variant], model, named, path)
            except Exception as error:  # of any kind: it is named, the others go on
                errors[f"{engine}: {variant}, keep {keep_rate:g}"] = reason_of(error)
            else:
                of_engines[engine].update(mine)
    return cases, of_engines, errors


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
    return {
        "variant": variant,
        "keep_rate": keep_rate,
        "gmacs": count_macs(one_head) / 1e9,
        "mean": preprocessing.mean,
        "std": preprocessing.std,
        "encoder": encoder_of(variant),
        "image_size": input_size(model),
        **files,
    }


def encoder_of(variant: str) -> dict | None:
    """What a peer that makes its own model must know; None for other than a ViT."""
    config = VARIANTS[variant].config
    if not isinstance(config, ViTConfig):
        return None
    return {**asdict(config.encoder), "patch_size": config.patch_size}


def _made(
    engine: Engine, model: keras.Model, dialed: keras.Model, cases: dict, path: Path
) -> dict:
    """The cases that an engine takes part in, with the file that it runs."""
    keep_rate = next(iter(cases.values()))["keep_rate"]
    if engine.is_theirs and keep_rate != 1:
        return {}
    mine = {
        name: case
        for name, case in cases.items()
        if case["batch_size"] == 1 or not engine.one_image
    }
    if not mine or engine.make is None:
        return mine
    one_head = model if engine.make is official else inference_model(dialed)
    try:
        file = engine.make(one_head, path)
    except ImportError:  # its contestant says what is not installed
        file = None
    return {name: {**case, "file": str(file)} for name, case in mine.items()}
