"""The plan of `benchmark --what=startup`: import a library, build a model, be ready."""

from pathlib import Path

import numpy as np

from keras_deit import create_model, export
from keras_deit.models.inference import inference_model, input_size
from keras_deit.models.variants import VARIANTS
from trainers._benchmark_inference import encoder_of
from trainers._contest import Contestant, Plan
from trainers._contestants import MODULES
from trainers._peers import peer_python
from trainers._startup import TASKS

VARIANT = "deit_tiny_distilled_patch16_224"
SCRIPT = MODULES / "start.py"


def plan(values, settings: dict, folder: Path) -> Plan:
    """Plans the contest of our start, KerasHub's, timm's, and that of LiteRT.

    Args:
        values: The flags.
        settings: The numbers of this run.
        folder: A folder for the file of LiteRT.
    """
    python = peer_python(values)
    all_cores = values.cores == "all"

    def contestant(name, **how):
        return {"name": name, "module": SCRIPT, "arguments": {"library": name, **how}}

    named = {"variant": VARIANT}
    size = VARIANTS[VARIANT].config.image_size
    of_keras_hub = {"encoder": encoder_of(VARIANT), "image_size": size}
    peers = {"timm": named, "keras_hub": of_keras_hub}
    file = str(_tflite_file(VARIANT, folder))
    return Plan(
        f"A fresh process that builds {VARIANT}, "
        f"{'all cores' if all_cores else 'one core'}",
        "seconds" if all_cores else "cpu_seconds",
        (
            Contestant(**contestant("keras_deit", **named)),
            *(
                Contestant(**contestant(name, **how), python=python, peers=(name,))
                for name, how in peers.items()
            ),
            Contestant(**contestant("litert", file=file)),
        ),
        facts={"tasks": dict.fromkeys(TASKS, 1), "with_memory": True},
        all_cores=all_cores,
        starts_anew=True,
    )


def _tflite_file(variant: str, folder: Path) -> Path:
    """The model in dynamic-range int8, with random weights."""
    model = create_model(variant, num_classes=1000)
    image = np.random.default_rng(0).integers(0, 256, (*input_size(model), 3), np.uint8)
    return export.tflite(
        inference_model(model),
        folder / "model.tflite",
        precision="dynamic_int8",
        images=[image],
        min_agreement=0.0,
        timed=False,
        verbose=False,
    )
