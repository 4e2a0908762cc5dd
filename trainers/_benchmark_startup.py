"""The plan of `benchmark --what=startup`: import a library, build a model, be ready."""

import sys
from pathlib import Path

import numpy as np

from keras_deit import create_model, export
from keras_deit._files import existing_file
from keras_deit.models.inference import inference_model, input_size
from keras_deit.models.variants import VARIANTS
from trainers._contest import Contestant, Plan
from trainers._contestants import MODULES
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
    python = str(existing_file(Path(values.peer_python or sys.executable).expanduser()))
    all_cores = values.cores == "all"

    def contestant(name, **how):
        return {"name": name, "module": SCRIPT, "arguments": {"library": name, **how}}

    named = {"variant": VARIANT}
    peers = {"timm": named, "keras_hub": {"numbers": keras_hub_numbers(VARIANT)}}
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


def keras_hub_numbers(variant: str) -> dict:
    """The numbers of a distilled DeiT in the words of KerasHub."""
    config = VARIANTS[variant].config
    encoder = config.encoder
    return {
        "image_shape": (*config.image_size, 3),
        "patch_size": config.patch_size,
        "num_layers": encoder.depth,
        "num_heads": encoder.num_heads,
        "hidden_dim": encoder.embed_dim,
        "intermediate_dim": int(encoder.embed_dim * encoder.mlp_ratio),
    }


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
