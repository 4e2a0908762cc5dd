"""The plan of `benchmark --what=train`: the training step, whoever takes it."""

from dataclasses import dataclass
from itertools import product
from pathlib import Path

import tensorflow as tf

from keras_deit._checks import check, check_choice
from keras_deit.models.factory import options_of
from keras_deit.models.variants import VARIANTS
from keras_deit.training.recipe_rules import PRECISIONS
from trainers._benchmark_input import fill_with_images
from trainers._contest import Contestant, Plan
from trainers._contestants import MODULES
from trainers._peers import peer_python
from trainers.recipes._papers import DEIT

NO_TEACHER = "none"
NUM_CLASSES = 1000


@dataclass(frozen=True)
class Manner:
    """In what manner a step is taken, whatever it computes.

    Attributes:
        precision: See `Recipe`.
        gradient_checkpointing: See `Recipe`.
        compiled: Whether XLA, or PyTorch's compiler, compiles it.
        replicas: How many devices share a batch.
        accumulate_steps: See `Recipe`.
    """

    precision: str
    gradient_checkpointing: bool = False
    compiled: bool = False
    replicas: int = 1
    accumulate_steps: int = 1

    def named(self, engine: str) -> str:
        """What the table calls an engine that takes its steps so."""
        words = [f"{engine}_{self.precision.removeprefix('mixed_')}"]
        words += ["checkpointing"] * self.gradient_checkpointing
        words += ["compiled"] * self.compiled
        words += [f"{self.replicas} replicas"] * (self.replicas > 1)
        words += [f"{self.accumulate_steps} parts"] * (self.accumulate_steps > 1)
        return ", ".join(words)


def plan(values, settings: dict, folder: Path) -> Plan:
    """Plans the contest of training steps.

    Args:
        values: The flags.
        settings: The numbers of this run.
        folder: A folder for what the contestants read.
    """
    python = peer_python(values)
    device = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    _check(settings, device)
    photographs, images = folder / "photographs", folder / "images"
    photographs.mkdir()
    told = fill_with_images(values.dataset, settings["batch_size"], photographs)
    deal(photographs, images, max(NUM_CLASSES, settings["batch_size"]))
    cases = cases_of(settings["teacher"])
    all_cores = settings["cores"] == "all"
    around = {"device": device, "num_threads": None if all_cores else 1}
    where = "all cores" if all_cores else "one core"
    return Plan(
        f"A training step of {settings['student']} on "
        f"{'GPUs' if device == 'GPU' else where}, batches of "
        f"{settings['batch_size']}; files: {told}",
        "seconds" if all_cores or device == "GPU" else "cpu_seconds",
        (
            *_ours(settings, images, cases, around),
            *_timms(settings, cases, around, python),
        ),
        facts={"cases": cases, "device": device},
        all_cores=all_cores,
    )


def cases_of(teacher: str) -> dict[str, dict]:
    """What is computed: `teacher`, a variant or None, and `feed`, by name of the task.

    Input from files is measured with the step that a run would take.
    """
    cases = {"no teacher": {"teacher": None, "feed": "memory"}}
    if teacher != NO_TEACHER:
        cases["teacher"] = {"teacher": teacher, "feed": "memory"}
    last, case = list(cases.items())[-1]
    return {**cases, f"{last}, files": {**case, "feed": "files"}}


def deal(photographs: Path, folder: Path, number: int) -> None:
    """Deals so many links to photographs to as many classes as ImageNet has."""
    files = sorted(photographs.rglob("*.jpg"))
    for index in range(number):
        link = folder / "train" / f"{index % NUM_CLASSES:03}" / f"{index}.jpg"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(files[index % len(files)])
    (folder / "val").symlink_to("train")


def _check(settings: dict, device: str) -> None:
    """Refuses models, precisions and numbers that do not fit together."""
    check_choice("student", settings["student"], VARIANTS)
    check_choice("teacher", settings["teacher"], (*VARIANTS, NO_TEACHER))
    for precision in settings["precisions"]:
        check_choice("precisions", precision, PRECISIONS)
    for replicas, steps in product(settings["replicas"], settings["accumulate_steps"]):
        check(
            settings["batch_size"] % (replicas * steps) == 0,
            "`batch_size` must be a multiple of `replicas` times `accumulate_steps`.",
            batch_size=settings["batch_size"],
            replicas=replicas,
            accumulate_steps=steps,
        )
    num_gpus = len(tf.config.list_physical_devices("GPU"))
    check(
        device == "CPU" or max(settings["replicas"]) <= num_gpus,
        "`replicas` must be at most the number of GPUs.",
        replicas=max(settings["replicas"]),
        gpus=num_gpus,
    )


def _manners(settings: dict, *more: str) -> list[Manner]:
    """The product of what was chosen, and of `more`: fields with several values."""
    return [
        Manner(*values)
        for values in product(
            settings["precisions"],
            [False, True] if settings["gradient_checkpointing"] else [False],
            [False, True] if settings["compiled"] else [False],
            *(settings[name] for name in more),
        )
    ]


def _ours(settings: dict, images: Path, cases: dict, around: dict):
    """Our contestants, in each manner."""
    config = VARIANTS[settings["student"]].config
    kept = options_of(config).keys() & DEIT.model_overrides
    recipe = {
        "variant": settings["student"],
        "dataset": str(images),
        "batch_size": settings["batch_size"],
        "model_overrides": {name: DEIT.model_overrides[name] for name in kept},
    }
    for manner in _manners(settings, "replicas", "accumulate_steps"):
        on_cpu = around["device"] == "CPU"
        if manner.compiled and on_cpu and manner.precision == "mixed_bfloat16":
            continue  # a recipe refuses it
        more = {
            "precision": manner.precision,
            "gradient_checkpointing": manner.gradient_checkpointing,
            "jit_compile": manner.compiled,
            "accumulate_steps": manner.accumulate_steps,
        }
        yield Contestant(
            manner.named("keras"),
            MODULES / "keras_train.py",
            {
                "recipe": {**recipe, **more},
                "cases": cases,
                "replicas": manner.replicas,
                **around,
            },
        )


def _timms(settings: dict, cases: dict, around: dict, python: str):
    """Those of timm: on one device, out of memory."""
    how = {
        "student": settings["student"],
        "drop_path_rate": DEIT.model_overrides["drop_path_rate"],
        "batch_size": settings["batch_size"],
        "image_size": VARIANTS[settings["student"]].config.image_size,
    }
    mine = {
        name: {"teacher": case["teacher"]}
        for name, case in cases.items()
        if case["feed"] == "memory"
    }
    for manner in _manners(settings):
        more = {
            name: getattr(manner, name)
            for name in ("precision", "gradient_checkpointing", "compiled")
        }
        yield Contestant(
            manner.named("timm"),
            MODULES / "timm_train.py",
            {"how": {**how, **more}, "cases": mine, **around},
            python,
            ("timm",),
        )
