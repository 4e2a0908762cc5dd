"""The folder of a comparison: what is there, and making what is not."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

import keras

from keras_deit._checks import check
from keras_deit._files import replacing
from keras_deit.data.pipeline import evaluation_batches
from keras_deit.data.sources import load_source
from keras_deit.distillation.cache_index import INDEX, read_index, whole_epochs
from keras_deit.distillation.teacher import Teacher
from keras_deit.models.inference import input_size
from keras_deit.models.preprocessing import preprocessing_of
from keras_deit.training.caching import cache_teacher
from keras_deit.training.callbacks import duration
from keras_deit.training.evaluation import compare
from keras_deit.training.recipe import Recipe
from keras_deit.training.report_record import read_run
from keras_deit.training.run import train
from keras_deit.training.run_folder import RECIPE, RESULT, write_json
from keras_deit.weights.loader import load_model
from trainers._comparison_table import Record, page, total_time
from trainers._comparisons import BY_NAME, CACHE, RUNS, Run, teacher_file

JOURNAL = "compare.json"  # what the folders of the runs do not say


class Comparison:
    """The runs in a folder.

    Args:
        output: The folder.
        recipes: Of each run, by name.
        download: Whether a dataset of TensorFlow Datasets may be downloaded.

    Raises:
        ValueError: If there is a run of another recipe; the differences are named.
    """

    def __init__(self, output: Path, recipes: dict[str, Recipe], download: bool):
        self.output = output
        self.recipes = recipes
        self.download = download
        for name in recipes:
            self._refuse_another(name)
        # Seconds of each attempt, by run, and of the cache; shares by run and teacher.
        self.journal = {"attempts": {}, "agreements": {}}
        if (output / JOURNAL).is_file():
            self.journal = json.loads((output / JOURNAL).read_text())

    def _refuse_another(self, name: str) -> None:
        path = self.output / name / RECIPE
        if not path.is_file():
            return
        before = json.loads(path.read_text())
        now = json.loads(self.recipes[name].to_json())
        changes = [
            f"{field}: {before.get(field)!r}, now {now.get(field)!r}"
            for field in dict.fromkeys((*before, *now))
            if before.get(field) != now.get(field)
        ]
        check(
            not changes,
            f"{self.output / name} holds a run of another recipe: choose another "
            f"--output, or delete it. What differs: {'; '.join(changes)}.",
            output=str(self.output),
        )

    def is_finished(self, name: str) -> bool:
        """Whether a run came to its end."""
        return (self.output / name / RESULT).is_file()

    def make(self, run: Run) -> None:
        """Makes a run, or what is left of it, and before it the cache that it needs."""
        if run.from_cache:
            self._make_cache(run)
        folder = self.output / run.name
        self.journal["agreements"].pop(run.name, None)
        recipe = self.recipes[run.name]
        self._timed(folder, train, recipe, folder, download=self.download)

    def _make_cache(self, run: Run) -> None:
        """Asks a teacher about the views of all students, if it was not all asked."""
        folder, file = self.output / CACHE, teacher_file(self.output, run.teacher)
        if self._cached_epochs() >= self.recipes[run.name].epochs:
            check(
                read_index(folder)["header"]["teacher"]["digest"]
                == Teacher(file).digest,
                "The cache must be of the CNN that is there: delete it, and the runs "
                "that learned from it.",
                cache=str(folder),
                teacher=file,
            )
            return
        recipe = replace(self.recipes[run.name], teacher=file, teacher_cache=None)
        self._timed(folder, cache_teacher, recipe, folder, download=self.download)

    def _cached_epochs(self) -> int:
        folder = self.output / CACHE
        if not (folder / INDEX).is_file():
            return 0
        index = read_index(folder)
        return whole_epochs(index["header"], index["shards"])

    def _timed(self, folder: Path, function: Callable, *arguments, **options) -> None:
        """Makes what goes into a folder, and notes how long it took, or was tried."""
        keras.backend.clear_session()
        if not folder.exists():
            self.journal["attempts"].pop(folder.name, None)
        attempts = self.journal["attempts"].setdefault(folder.name, [])
        attempts.append(None)  # stays if the process is killed
        write_json(self.output / JOURNAL, self.journal)
        start = time.monotonic()
        try:
            function(*arguments, **options)
        finally:
            attempts[-1] = time.monotonic() - start
            write_json(self.output / JOURNAL, self.journal)

    def compare_with_teachers(self, run: Run) -> None:
        """Measures how often a student decides like the CNN, and like its teacher."""
        known = self.journal["agreements"].setdefault(run.name, {})
        for teacher in sorted({"cnn", run.teacher} - {None, run.name} - known.keys()):
            if self.is_finished(teacher):
                known[teacher] = self._agreement(run.name, teacher)
                write_json(self.output / JOURNAL, self.journal)

    def _agreement(self, student: str, teacher: str) -> float:
        keras.backend.clear_session()
        recipe = self.recipes[student]
        model = load_model(teacher_file(self.output, student))
        batches = evaluation_batches(
            load_source(recipe.dataset, "validation", self.download),
            input_size(model),
            recipe.batch_size,
            preprocessing_of(model).crop_ratio,
        )
        _, share = compare(Teacher(teacher_file(self.output, teacher)), model, batches)
        return share

    def time_left(self, runs: Sequence[Run]) -> str:
        """Says how long runs will take by what others took, where that is known."""
        taken = [
            sum(seconds)
            for name, seconds in self.journal["attempts"].items()
            if name in BY_NAME and self.is_finished(name) and None not in seconds
        ]
        if not taken:
            return "How long it will take is known after the first run."
        left = sum(not self.is_finished(run.name) for run in runs)
        return f"About {duration(left * sum(taken) / len(taken))} left."

    def write(self, table: Path, command: str, note: str | None) -> None:
        """Writes the table of the runs that came to their end; of none, nothing.

        Args:
            table: The Markdown file.
            command: What was asked for.
            note: A line about the dataset, or None.
        """
        records = self._records()
        if not records:
            return
        table.parent.mkdir(parents=True, exist_ok=True)
        with replacing(table) as partial:
            partial.write_text(page(records, self._facts(records, command, note)))

    def _records(self) -> dict[str, Record]:
        records = {}
        for run in RUNS:
            if not self.is_finished(run.name):
                continue
            read = read_run(self.output / run.name)
            records[run.name] = Record(
                read.facts["parameters"],
                read.facts["macs"],
                {head: score["top1"] for head, score in read.scores.items()},
                self.journal["agreements"].get(run.name, {}),
                self.journal["attempts"].get(run.name, [None]),
            )
        return records

    def _facts(self, records, command: str, note: str | None) -> list[str]:
        """Date, command, epochs, dataset, cache, time and versions, each a line."""
        facts = read_run(self.output / next(iter(records))).facts
        dataset, today = facts["dataset"], date.today()
        student, teacher = self.recipes["deit"], self.recipes["cnn"]
        attempts = self.journal["attempts"].get(CACHE, [])
        epochs, cached = self._cached_epochs(), []
        if epochs:
            files = (self.output / CACHE).glob("*.tfrecord")
            size = sum(file.stat().st_size for file in files) / 1e6
            cached = [
                f"Teacher cache: all logits of {epochs} epochs of views, "
                f"{size:,.1f} MB, made in {total_time({}, attempts)}"
            ]
        return [
            f"{today.day} {today:%B %Y}",
            f"`{command}`",
            f"Epochs: {student.epochs} of each student, {teacher.epochs} of the CNN; "
            f"batches of {student.batch_size}; seed {student.seed}",
            f"{dataset['name']}: {dataset['train_examples']:,} training and "
            f"{dataset['validation_examples']:,} validation images",
            *([note] if note else []),
            *cached,
            f"Time of all runs and of the cache: {total_time(records, attempts)}",
            ", ".join(f"{name} {text}" for name, text in facts["versions"].items()),
        ]
