"""A run: a recipe in, weights and a record out."""

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import keras

from keras_deit._checks import check
from keras_deit.data.image_folder import naming_unreadable_images
from keras_deit.data.pipeline import batch_ids
from keras_deit.distillation.teacher import Teacher
from keras_deit.distillation.teacher_cache import naming_damaged_shards
from keras_deit.training.announcement import announce
from keras_deit.training.callbacks import (
    AverageWeights,
    Phases,
    Progress,
    SaveModels,
    StopEarly,
    StopIfNotFinite,
)
from keras_deit.training.checkpoints import FOLDER, Checkpoints, sweep
from keras_deit.training.evaluation import evaluate
from keras_deit.training.history import CSV, History, best_row
from keras_deit.training.parts import Parts, build
from keras_deit.training.recipe import Recipe
from keras_deit.training.report import (
    plot_curves,
    print_scores,
    read_history,
    write_per_class,
    write_views,
)
from keras_deit.training.report_page import write_report
from keras_deit.training.run_folder import (
    RESULT,
    begin,
    can_go_on,
    check_output,
    facts_of,
    held,
    write_json,
)


@dataclass(frozen=True)
class Result:
    """What a run came to.

    Attributes:
        directory: Where its files are.
        model: The trained model, with the weights of the last epoch.
        scores: For each head `top1` and `top5` on the validation split, in [0, 1], with
            these weights. (The best epoch is chosen on the same images, so its score
            would flatter.)
        average_scores: The same of the averaged weights; None without an average.
    """

    directory: Path
    model: keras.Model
    scores: dict[str, dict[str, float]]
    average_scores: dict[str, dict[str, float]] | None = None


def train(
    recipe: Recipe,
    output: str | Path,
    overwrite: bool = False,
    download: bool = False,
    unreadable: str = "refuse",
    checkpoint_steps: int = 500,
    force_resume: bool = False,
    teacher: Teacher | None = None,
) -> Result:
    """Trains a model and leaves a record of it, or goes on where an earlier run died.

    In `output` lie at the end `recipe.json`, `run.json`, `labels.txt`, `history.csv`,
    `history.jsonl`, `tensorboard/`, `views.png`, `curves.png`, `per_class.csv`,
    `report.html`, `last.keras`, `best.keras`, perhaps `average.keras` and
    `teacher.keras`, and `result.json`.

    A run that was interrupted, at whatever moment, goes on from its last checkpoint
    when it is started again: with the same batches, random numbers, optimizer, averages
    and reported numbers as if nothing had happened.

    Args:
        recipe: What to compute.
        output: Folder of the run. One that died before its first checkpoint is
            replaced.
        overwrite: Whether an earlier run in `output` is replaced, also one that could
            go on.
        download: Whether a dataset of TensorFlow Datasets may be downloaded.
        unreadable: "refuse" or "skip": what to do with image files that cannot be
            decoded.
        checkpoint_steps: Steps from one checkpoint to the next, at least 1.
        force_resume: Whether to go on even if recipe, dataset, teacher or the format of
            the views changed since.
        teacher: In place of the recipe's: what a recipe cannot name, such as a function
            (with a `version`). It must answer in the classes of the dataset.

    Returns:
        The result; its scores are also in `result.json`.

    Raises:
        ValueError: If recipe, dataset and teacher do not fit together, an image is
            unreadable, or `output` holds something else.
        FileNotFoundError: If the dataset, the teacher or the weights cannot be found.
        OSError: If `output` cannot be written.
        RuntimeError: If the loss is not finite.
    """
    output = Path(output)
    check_output(output, overwrite, recipe)
    rule = "`checkpoint_steps` must be at least 1."
    check(checkpoint_steps >= 1, rule, checkpoint_steps=checkpoint_steps)
    parts = build(recipe, download, unreadable, teacher)
    with (
        naming_unreadable_images(*parts.sources),
        naming_damaged_shards(parts.cache),
        held(output),
    ):
        facts = facts_of(
            parts.sources, parts.teacher_digest, parts.parameters, parts.macs
        )
        resume = can_go_on(output, recipe, facts, overwrite, force_resume)
        announcement = announce(parts, resume)
        if not resume:
            begin(output, recipe, facts | announcement, parts.class_names)
            write_views(*_first_views(parts), parts.class_names, output / "views.png")
        loop = _Loop(parts, output, checkpoint_steps, resume)
        loop.run()
        return _finish(parts, output, loop)


def _first_views(parts: Parts):
    images, y, _ = next(iter(parts.training(0, 0).take(1)))
    labels = y if parts.cache is None else y["label"]
    return images.numpy(), labels.numpy()


class _Loop:
    """The epochs of a run, from wherever it stands."""

    def __init__(self, parts: Parts, output: Path, checkpoint_steps: int, resume: bool):
        self.parts = parts
        recipe, distiller = parts.recipe, parts.distiller
        self.monitor = f"val_{accuracy_name(distiller)}"
        self.average = None
        if recipe.ema_decay is not None:
            self.average = AverageWeights(
                parts.student,
                recipe.ema_decay,
                parts.validation,
                self.monitor.replace("val_", "val_average_"),
            )
        self.checkpoints = Checkpoints(
            output, self._state, parts.steps_per_epoch, checkpoint_steps
        )
        sweep(output)
        self.epoch, self.step = (resume and self.checkpoints.latest()) or (0, 0)
        check(
            self.epoch <= recipe.epochs and self.step < parts.steps_per_epoch,
            "The checkpoint must lie within the epochs and steps of the recipe, which "
            "changed; pass --overwrite (overwrite=True) to begin anew.",
            epoch=self.epoch,
            step=self.step,
            epochs=recipe.epochs,
            steps_per_epoch=parts.steps_per_epoch,
        )
        if resume:
            print(f"Going on with epoch {self.epoch + 1}, step {self.step + 1}.")
        self.phases = Phases(recipe.head_epochs, recipe.train_mode, parts.stages)
        self.history = History(output, self.epoch, self._of_epoch)
        self.stop = None
        if recipe.early_stop_epochs is not None:
            self.stop = StopEarly(self.history, self.monitor, recipe.early_stop_epochs)
        self.output = output

    def _state(self) -> dict:
        distiller = self.parts.distiller
        tutor = distiller.tutor  # a teacher that is not trained stays as it is
        trains_teacher = tutor.training is not None
        return {
            "student": self.parts.student.variables,
            "optimizer": distiller.optimizer.variables,
            "teacher": distiller.teacher.model.variables if trains_teacher else [],
            "teacher_optimizer": tutor.optimizer.variables if trains_teacher else [],
            "means": [v for metric in distiller.metrics for v in metric.variables],
            "average": self.average.variables if self.average else [],
        }

    def _of_epoch(self, epoch: int) -> dict:
        """What the recipe says of an epoch: its last learning rate, its keep rate."""
        last_step = (epoch + 1) * self.parts.steps_per_epoch - 1
        numbers = {"learning_rate": float(self.parts.schedule(last_step))}
        rate = self.phases.keep_rate(epoch)
        return numbers if rate is None else numbers | {"keep_rate": rate}

    def _callbacks(self) -> list:
        parts, recipe = self.parts, self.parts.recipe

        def ids(epoch, step):
            source, _ = parts.sources
            of_batch = recipe.batch_size, recipe.seed, recipe.repeats
            return batch_ids(source, *of_batch, parts.epoch_of_views(epoch), step)

        shown = ("loss", self.monitor.removeprefix("val_"), "val_loss", self.monitor)
        return [
            StopIfNotFinite(self.output, self.step, ids),
            self.phases,
            *([self.average] if self.average else []),
            self.history,
            SaveModels(self.output, self.history, self.monitor, self._other_models()),
            *([self.stop] if self.stop else []),
            Progress(recipe.epochs, (*shown, self.average and self.average.name)),
            self.checkpoints,
        ]

    def _other_models(self) -> dict[str, keras.Model]:
        """What is saved beside the student, by the name of the file."""
        models = {}
        if self.average is not None:
            models["average.keras"] = self.average.average
        if self.parts.recipe.train_teacher:
            models["teacher.keras"] = self.parts.distiller.teacher.model
        return models

    def run(self) -> None:
        """Trains the epochs that are left, the rest of a begun one by itself."""
        callbacks = self._callbacks()
        epochs = self.parts.recipe.epochs
        if self.step:
            self._fit(callbacks, self.epoch, self.step, self.epoch + 1)
            self.epoch, self.step = self.epoch + 1, 0
        if self.epoch < epochs and not (self.stop and self.stop.is_over()):
            self._fit(callbacks, self.epoch, 0, epochs)

    def _fit(self, callbacks: list, epoch: int, step: int, end: int) -> None:
        self.parts.distiller.fit(
            self.parts.training(epoch, step),
            initial_epoch=epoch,
            epochs=end,
            steps_per_epoch=self.parts.steps_per_epoch - step,
            validation_data=self.parts.validation,
            shuffle=False,  # the views are in their epoch's order already
            verbose=1 if sys.stdout.isatty() else 0,
            callbacks=callbacks,
        )


def accuracy_name(model: keras.Model) -> str:
    """Names the accuracy that counts: of the fused heads, or of the only one."""
    names = [metric.name for metric in model.metrics]
    return "fused_accuracy" if "fused_accuracy" in names else "accuracy"


def _finish(parts: Parts, output: Path, loop: _Loop) -> Result:
    """Evaluates, draws, writes the result, and prints where everything is."""
    evaluation = evaluate(parts.student, parts.validation)
    average = loop.average and evaluate(loop.average.average, parts.validation).scores
    write_per_class(evaluation.confusion, parts.class_names, output / "per_class.csv")
    best = best_row(loop.history.rows, loop.monitor)
    record = {
        "scores": evaluation.scores,
        **({"average_scores": average} if average else {}),
        "best_epoch": best["epoch"] + 1,
        "best_accuracy": best[loop.monitor],
        "epochs": len(loop.history.rows),
        "graphs": parts.distiller.num_traces,
    }
    write_json(output / RESULT, record)
    plot_curves({output.name: read_history(output / CSV)}, output / "curves.png")
    write_report([output], output / "report.html")
    loop.history.close()
    shutil.rmtree(output / FOLDER, ignore_errors=True)
    title = f"{output}: weights of the last epoch, validation images"
    print_scores(title, evaluation.scores)
    if parts.recipe.train_teacher:
        accuracy = loop.history.rows[-1]["val_teacher_accuracy"]
        print(f"The teacher, trained as well (teacher.keras): {accuracy:.2%} top-1")
    if average:
        print_scores("The same with the averaged weights (average.keras)", average)
    print(
        f"The training step was traced {parts.distiller.num_traces} times.\n"
        f"Saved {output}/last.keras (best.keras: epoch {best['epoch'] + 1}), "
        "report.html, history.csv, tensorboard/."
    )
    return Result(output, parts.student, evaluation.scores, average)
