"""The folder of a run: what may be written to it, and whether the run can go on."""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from keras_deit._checks import check
from keras_deit._files import replacing
from keras_deit.data.source import Source
from keras_deit.data.views import VIEW_FORMAT
from keras_deit.training.checkpoints import FOLDER, sweep
from keras_deit.training.recipe import Recipe
from keras_deit.version import __version__

RECIPE, FACTS, RESULT, LAST = "recipe.json", "run.json", "result.json", "last.keras"
# What the batches and steps depend on, beside the recipe; another one is another run.
DECIDING = ("view_format", "dataset", "teacher_digest")
VERSIONS = ("tensorflow", "keras", "numpy")
OF_A_RUN = (
    FACTS,
    RESULT,
    LAST,
    "best.keras",
    "average.keras",
    "teacher.keras",
    "not_finite.json",
    "not_finite.keras",
    "history.csv",
    "history.jsonl",
    "per_class.csv",
    "views.png",
    "curves.png",
    "report.html",
)


def check_output(output: Path, overwrite: bool, recipe: Recipe) -> None:
    """Refuses an output that cannot be written, or that holds something else.

    Raises:
        OSError: If it cannot be written.
        ValueError: If it holds no run, one that came to its end and is not to be
            replaced, or what the recipe reads.
    """
    for name in ("teacher", "teacher_weights", "teacher_cache", "weights"):
        value = getattr(recipe, name)
        for path in value if isinstance(value, tuple) else [value]:
            check(
                path in (None, "pretrained", "random")
                or output.resolve() not in _resolved(path),
                f"`{name}` must lie outside of `output`, where files are replaced.",
                **{name: path},
                output=str(output),
            )
    parent = next(p for p in (output, *output.absolute().parents) if p.exists())
    if not (parent.is_dir() and os.access(parent, os.W_OK)):
        raise OSError(
            f"`output` must be a folder that can be written: {parent} is not."
        )
    if not output.is_dir() or all(p.name.startswith(".") for p in output.iterdir()):
        return
    check(
        (output / RECIPE).exists(),
        "`output` must be a new or empty folder, or an earlier run.",
        output=str(output),
    )
    check(
        overwrite or not (output / RESULT).exists(),
        "`output` holds a run that came to its end: choose another folder, or pass "
        "--overwrite (overwrite=True).",
        output=str(output),
    )


def _resolved(path: str) -> tuple[Path, ...]:
    """A path and the folders that it lies in."""
    resolved = Path(path).resolve()
    return (resolved, *resolved.parents)


def facts_of(
    sources: tuple[Source, Source],
    teacher_digest: str | None,
    parameters: int,
    macs: int,
) -> dict:
    """What `run.json` says of a run before its first step.

    Args:
        sources: The training and the validation images.
        teacher_digest: Of the teacher, or None.
        parameters: Of the model.
        macs: Multiply-adds of the model for an image.
    """
    train, validation = sources
    return {
        "view_format": VIEW_FORMAT,
        "dataset": {
            "name": train.name,
            "digest": f"{train.digest[:16]} {validation.digest[:16]}",
            "train_examples": train.num_examples,
            "validation_examples": validation.num_examples,
        },
        "teacher_digest": teacher_digest,
        "parameters": parameters,
        "macs": macs,
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """The versions of this package and of those that the numbers depend on."""
    return {
        "keras_deit": __version__,
        **{name: version(name) for name in VERSIONS},
    }


def can_go_on(
    output: Path, recipe: Recipe, facts: dict, overwrite: bool, force_resume: bool
) -> bool:
    """Whether the folder holds a run of the same kind that has not come to its end.

    If it is of another kind and `force_resume` is set, the record is changed to what is
    computed from now on, and `run.json` keeps the differences.

    Raises:
        ValueError: If it holds one of another kind, and neither `overwrite` nor
            `force_resume` is set; the differences are named.
    """
    if overwrite or not _has_checkpoints(output):
        return False
    then = json.loads((output / FACTS).read_text())
    before = json.loads((output / RECIPE).read_text())
    now = json.loads(recipe.to_json())
    differences = [
        f"{name}: {old!r}, now {new!r}"
        for name in dict.fromkeys((*before, *now))
        if (old := before.get(name)) != (new := now.get(name))
    ] + [
        f"{name}: {then.get(name)!r}, now {facts[name]!r}"
        for name in DECIDING
        if then.get(name) != facts[name]
    ]
    if not differences:
        return True
    if not force_resume:
        raise ValueError(
            f"{output} holds a run that stopped, but of another kind, so that going on "
            "would mix the two: pass --overwrite to begin anew, or --force_resume to "
            "go on nevertheless. What differs:\n" + "\n".join(differences)
        )
    changes = [*then.get("changes", []), differences]
    write_json(output / FACTS, then | facts | {"changes": changes})
    _write_text(output / RECIPE, recipe.to_json())
    return True


def _has_checkpoints(output: Path) -> bool:
    return (output / FACTS).exists() and any((output / FOLDER).glob("*.safetensors"))


def begin(output: Path, recipe: Recipe, facts: dict, class_names) -> None:
    """Makes the folder; what an earlier run left there is no longer true."""
    output.mkdir(parents=True, exist_ok=True)
    # First of all, since it makes a folder the folder of a run.
    _write_text(output / RECIPE, recipe.to_json())
    for entry in output.iterdir():
        if entry.is_dir() and entry.name in (FOLDER, "tensorboard"):
            shutil.rmtree(entry)
        elif entry.name in OF_A_RUN:
            entry.unlink()
    sweep(output)
    write_json(output / FACTS, facts)
    _write_text(output / "labels.txt", "\n".join(class_names) + "\n")


def write_json(path: Path, values: dict) -> None:
    """Writes a JSON file that is whole or not there."""
    _write_text(path, json.dumps(values, indent=2) + "\n")


def _write_text(path: Path, text: str) -> None:
    with replacing(path) as partial:
        # Names of classes may be names of folders, which need not be text.
        partial.write_text(text, encoding="utf-8", errors="surrogateescape")


@contextmanager
def held(output: Path) -> Iterator[None]:
    """Keeps other processes from running in the same folder.

    Raises:
        ValueError: If one does already.
    """
    output.mkdir(parents=True, exist_ok=True)
    path = output / ".lock"
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ValueError(
                f"Another process is training in `output`. Received: {output=!s}."
            ) from error
        try:
            yield
        finally:  # a process that is killed leaves the file, but not the lock
            path.unlink(missing_ok=True)
