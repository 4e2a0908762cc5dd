"""The plan of `benchmark --what=distillation`: what a teacher costs a step."""

from pathlib import Path

from keras_deit._checks import check_choice
from keras_deit.models.variants import VARIANTS
from trainers._contest import Contestant, Plan
from trainers._contestants import MODULES

TEACHING = {
    "no teacher": "none",
    "live teacher": "live",
    "cached, all": "all",
    "cached, 16": 16,
    "cached, hard": "hard",
}


def plan(values, settings: dict, folder: Path) -> Plan:
    """Plans the contest of the kinds of teaching.

    Args:
        values: The flags.
        settings: The numbers of this run.
        folder: A folder for the caches.
    """
    models = {name: settings[name] for name in ("student", "teacher")}
    for name, variant in models.items():
        check_choice(name, variant, VARIANTS)
    small = values.quick and values.student is None and values.teacher is None
    task = {**models, "batch_size": settings["batch_size"]}
    return Plan(
        f"A training step on one core, batches of {settings['batch_size']}"
        f"{', small models' if small else ''}: {models['student']} taught by "
        f"{models['teacher']}",
        "cpu_seconds",
        tuple(
            Contestant(
                name,
                MODULES / "distillation.py",
                {**task, "folder": str(folder / str(kept)), "teaching": kept},
            )
            for name, kept in TEACHING.items()
        ),
    )
