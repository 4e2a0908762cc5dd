"""What the folder of a run says, read for people to look at."""

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path

from keras_deit._checks import check
from keras_deit.training.recipe import Recipe
from keras_deit.training.report import read_history

# What a run leaves beside its recipe, and what is not known without it.
FILES = {
    "history.csv": "the numbers of each epoch: no epoch has ended",
    "result.json": "the final scores: the run is still going on, or it died",
    "run.json": "the dataset, the model's size and the versions",
    "per_class.csv": "the accuracy of each class",
    "views.png": "the training views",
}
HEADS = ("class", "distillation", "fused")


@dataclass(frozen=True)
class ClassAccuracy:
    """A row of `per_class.csv`.

    Attributes:
        name: The class.
        images: How many validation images it has.
        top1: Share of them that was known; None where there are none.
        mistaken_for: What they were taken for most often, when not for themselves; ""
            where that never happened.
    """

    name: str
    images: int
    top1: float | None
    mistaken_for: str


@dataclass(frozen=True)
class RunRecord:
    """What the folder of a run says.

    Attributes:
        path: The folder, absolute.
        recipe: The fields of `recipe.json`, perhaps of an older or newer version.
        history: The columns of `history.csv`; without the file {}.
        result: `result.json`, or {}.
        facts: `run.json`, or {}.
        classes: The rows of `per_class.csv`, or none.
        views: The PNG of the training views, or None.
        missing: Which of `FILES` are not there.
    """

    path: Path
    recipe: dict
    history: dict[str, list[float]]
    result: dict
    facts: dict
    classes: list[ClassAccuracy]
    views: bytes | None
    missing: list[str]

    @property
    def epochs(self) -> list[float]:
        """The epochs that have ended, from 1."""
        return [epoch + 1 for epoch in self.history.get("epoch", ())]

    @property
    def scores(self) -> dict[str, dict[str, float]]:
        """Top-1 (and top-5) by head: of the result, or of the last epoch so far."""
        return self.result.get("scores") or self._so_far("")

    @property
    def average_scores(self) -> dict[str, dict[str, float]]:
        """The same of the averaged weights; {} where none were kept."""
        return self.result.get("average_scores") or self._so_far("average_")

    def _so_far(self, weights: str) -> dict[str, dict[str, float]]:
        columns = {head: f"val_{weights}{head}_accuracy" for head in HEADS}
        if not columns.values() & self.history.keys():  # a model with one head
            columns = {"class": f"val_{weights}accuracy"}
        last = {
            head: [v for v in self.history.get(name, []) if math.isfinite(v)][-1:]
            for head, name in columns.items()
        }
        return {head: {"top1": values[0]} for head, values in last.items() if values}


def read_run(folder: Path) -> RunRecord:
    """Reads the folder of a run, also of one that goes on or died.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it holds no run, or a file of it cannot be read.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {str(folder)!r}.")
    check(
        (folder / "recipe.json").is_file(),
        "A run must be a folder with a recipe.json.",
        run=str(folder),
    )
    there = {name: (folder / name).is_file() for name in FILES}
    return RunRecord(
        path=folder.resolve(),
        recipe=_read_json(folder / "recipe.json"),
        history=read_history(folder / "history.csv") if there["history.csv"] else {},
        result=_read_json(folder / "result.json") if there["result.json"] else {},
        facts=_read_json(folder / "run.json") if there["run.json"] else {},
        classes=_read_classes(folder / "per_class.csv")
        if there["per_class.csv"]
        else [],
        views=(folder / "views.png").read_bytes() if there["views.png"] else None,
        missing=[name for name, found in there.items() if not found],
    )


def _read_json(path: Path) -> dict:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # also of bytes that are no text
        raise ValueError(f"{path} must be JSON: {error}.") from error
    check(isinstance(values, dict), "The file must hold a JSON object.", path=str(path))
    return values


def _read_classes(path: Path) -> list[ClassAccuracy]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [
                ClassAccuracy(
                    row["class"],
                    int(row["images"]),
                    float(row["top1"]) if row["top1"] else None,
                    row["mistaken_for"],
                )
                for row in csv.DictReader(file)
            ]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} must have the columns class, images, top1, mistaken_for: {error}."
        ) from error


def run_names(folders: Sequence[Path]) -> list[str]:
    """Names runs by their folders, with more of the path where two are alike.

    Example:
    >>> run_names([Path("/a/plain"), Path("/b/plain"), Path("/b/distilled")])
    ['a/plain', 'b/plain', 'distilled']
    """
    parts = [folder.parts for folder in folders]
    names = []
    for own in parts:
        length = next(
            n
            for n in range(1, len(own) + 1)
            if [other[-n:] for other in parts].count(own[-n:]) == 1 or n == len(own)
        )
        names.append(str(Path(*own[-length:])))
    return names


def default_values() -> dict[str, object]:
    """The defaults of a recipe's fields, as JSON has them; two fields have none."""
    fallbacks = {
        f.name: f.default if f.default_factory is MISSING else f.default_factory()
        for f in fields(Recipe)
        if (f.default, f.default_factory) != (MISSING, MISSING)
    }
    return json.loads(json.dumps(fallbacks))


def flat(values: dict, before: str = "") -> dict[str, object]:
    """Writes nested objects as one, their names in words.

    Example:
    >>> flat({"macs": 2, "teacher": {"path": "a"}, "view_format": 1})
    {'macs': 2, 'teacher path': 'a', 'view format': 1}
    """
    pairs = {}
    for key, value in values.items():
        name = before + key.replace("_", " ")
        inner = flat(value, f"{name} ") if isinstance(value, dict) else {name: value}
        pairs.update(inner)
    return pairs
