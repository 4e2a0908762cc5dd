"""What happens beside the steps of a run."""

import math
from pathlib import Path

import keras

from keras_deit._files import replacing


def save_model(model: keras.Model, path: Path) -> None:
    """Saves a model so that `path` is never a half-written file."""
    with replacing(path) as partial:
        model.save(partial)


class SaveStudent(keras.callbacks.Callback):
    """Saves the student after each epoch: the last one, and the best so far.

    Args:
        directory: Where `last.keras` and `best.keras` go.
        monitor: Name of the reported number that is best when largest.
    """

    def __init__(self, directory: Path, monitor: str):
        super().__init__()
        self.directory = directory
        self.monitor = monitor
        self.best = -math.inf
        self.best_epoch = None

    def on_epoch_end(self, epoch, logs=None):
        student = self.model.student
        save_model(student, self.directory / "last.keras")
        if logs[self.monitor] > self.best:
            self.best, self.best_epoch = logs[self.monitor], epoch
            save_model(student, self.directory / "best.keras")


class StopIfNotFinite(keras.callbacks.Callback):
    """Ends the run when the loss is not a number any more.

    Raises:
        RuntimeError: Naming the epoch and the step.
    """

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if not math.isfinite(logs["loss"]):
            raise RuntimeError(
                f"The loss is {logs['loss']} in epoch {self.epoch + 1}, step "
                f"{batch + 1}. Try a smaller learning rate, a longer warm-up, or "
                "float32; last.keras holds the weights of the epoch before, if any."
            )
