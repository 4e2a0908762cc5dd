"""The epochs of a run, and what happens beside them."""

import sys
from pathlib import Path

import keras

from keras_deit._checks import check
from keras_deit.data.pipeline import batch_ids
from keras_deit.training.callbacks import (
    AverageWeights,
    Phases,
    Progress,
    SaveModels,
    StopEarly,
    StopIfNotFinite,
)
from keras_deit.training.checkpoints import Checkpoints, sweep
from keras_deit.training.history import History
from keras_deit.training.parts import Parts


class Loop:
    """The epochs of a run, from wherever it stands.

    Args:
        parts: What is trained.
        output: Folder of the run.
        checkpoint_steps: Steps from one checkpoint to the next.
        resume: Whether it goes on from the last checkpoint there.

    Attributes:
        monitor: Name of the accuracy that decides which epoch is best.
        average: The averaged weights, or None.
        history: The numbers of all epochs.

    Raises:
        ValueError: If the checkpoint does not fit the recipe.
    """

    def __init__(self, parts: Parts, output: Path, checkpoint_steps: int, resume: bool):
        self.parts = parts
        recipe, distiller = parts.recipe, parts.distiller
        self.monitor = f"val_{accuracy_name(distiller)}"
        self.average = None
        if recipe.ema_decay is not None:
            with parts.workers.strategy.scope():
                self.average = AverageWeights(
                    parts.student,
                    recipe.ema_decay,
                    parts.validation,
                    self.monitor.replace("val_", "val_average_"),
                    parts.workers.gather,
                )
        self.checkpoints = Checkpoints(
            output,
            self._state,
            parts.steps_per_epoch,
            checkpoint_steps,
            writes=parts.workers.is_chief,
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

        models = self._other_models()
        saving = SaveModels(self.output, self.history, self.monitor, models)
        shown = ("loss", self.monitor.removeprefix("val_"), "val_loss", self.monitor)
        return [
            StopIfNotFinite(self.output, self.step, ids),
            self.phases,
            *([self.average] if self.average else []),
            self.history,
            *([saving] if parts.workers.is_chief else []),
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
            validation_data=self.parts.validation_of_all,
            shuffle=False,  # the views are in their epoch's order already
            verbose=1 if self.parts.workers.is_chief and sys.stdout.isatty() else 0,
            callbacks=callbacks,
        )


def accuracy_name(model: keras.Model) -> str:
    """Names the accuracy that counts: of the fused heads, or of the only one."""
    names = [metric.name for metric in model.metrics]
    return "fused_accuracy" if "fused_accuracy" in names else "accuracy"
