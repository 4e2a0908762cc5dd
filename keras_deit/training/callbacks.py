"""What happens beside the steps of a run."""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import keras
import tensorflow as tf

from keras_deit._files import replacing
from keras_deit.models.reorganization import with_keep_rate
from keras_deit.training.evaluation import Evaluator
from keras_deit.training.history import History, best_row


def save_model(model: keras.Model, path: Path) -> None:
    """Saves a model so that `path` is never a half-written file."""
    with replacing(path) as partial:
        model.save(partial)


class SaveModels(keras.callbacks.Callback):
    """Saves models after each epoch: the last ones, and the best so far.

    Args:
        directory: Where `last.keras`, `best.keras` and the others go.
        history: Has the numbers of all epochs, the one that ends included.
        monitor: Name of the reported number that is best when largest.
        others: Further models that are saved after each epoch, by the name of the file.
    """

    def __init__(
        self,
        directory: Path,
        history: History,
        monitor: str,
        others: Mapping[str, keras.Model],
    ):
        super().__init__()
        self.directory = directory
        self.history = history
        self.monitor = monitor
        self.others = others

    def on_epoch_end(self, epoch, logs=None):
        save_model(self.model.student, self.directory / "last.keras")
        best = best_row(self.history.rows, self.monitor)
        if best is not None and best["epoch"] == epoch:
            save_model(self.model.student, self.directory / "best.keras")
        for name, model in self.others.items():
            save_model(model, self.directory / name)


class AverageWeights(keras.callbacks.Callback):
    """Keeps a moving average of all weights, and says how accurate it is.

    After step t, from 0, `average = d * average + (1 - d) * weights`, where
    `d = min(decay, (1 + t) / (10 + t))`: a short run is not an average of its random
    beginning.

    Args:
        student: The model whose weights, moving statistics included, are averaged.
        decay: In [0, 1).
        validation: Batches to measure the accuracy on after each epoch.
        name: What the accuracy is called among the numbers of the epoch.
        gather: See `Evaluator`.

    Reference:
        timm `ModelEmaV2`, without a warm-up; `tf.train.ExponentialMovingAverage`, whose
        warm-up this is. The official DeiT keeps an average and never evaluates it.
    """

    def __init__(
        self,
        student: keras.Model,
        decay: float,
        validation: tf.data.Dataset,
        name: str,
        gather: Callable = lambda value: [value],
    ):
        super().__init__()
        self.student = student
        self.average = keras.models.clone_model(student)
        self.average.set_weights(student.get_weights())
        self.decay = decay
        self.evaluator = Evaluator(self.average, gather)
        self.validation = validation
        self.name = name
        self.count = keras.Variable(0, dtype="int64", trainable=False, name="count")

    @property
    def variables(self) -> list:
        """What a checkpoint has to hold of it."""
        return [*self.average.weights, self.count]

    @tf.function(autograph=False)
    def _update(self):
        count = tf.cast(self.count.value, tf.float32)
        decay = tf.minimum(self.decay, (1 + count) / (10 + count))
        for average, weight in zip(
            self.average.weights, self.student.weights, strict=True
        ):
            share = tf.cast(1 - decay, weight.dtype)
            average.assign_add(share * (weight.value - average.value))
        self.count.assign_add(1)

    def on_train_batch_end(self, batch, logs=None):
        self._update()

    def on_epoch_end(self, epoch, logs=None):
        scores = self.evaluator(self.validation).scores
        logs[self.name] = list(scores.values())[-1]["top1"]


class Phases(keras.callbacks.Callback):
    """Changes how the student is trained at the epochs where that is due.

    First the heads alone, on the frozen network; then EViT's keep rates, one after the
    other. Each change is a new graph.

    Args:
        head_epochs: Epochs of the heads alone.
        train_mode: Whether the student is in training mode afterwards.
        stages: (first epoch, keep rate), rising; empty for a student without one.
    """

    def __init__(
        self, head_epochs: int, train_mode: bool, stages: Sequence[tuple[int, float]]
    ):
        super().__init__()
        self.head_epochs = head_epochs
        self.train_mode = train_mode
        self.stages = stages
        self._current = None

    def keep_rate(self, epoch: int) -> float | None:
        """The keep rate of an epoch; None without one."""
        rates = [rate for first, rate in self.stages if first <= epoch]
        return rates[-1] if rates else None

    def on_epoch_begin(self, epoch, logs=None):
        heads_only, rate = epoch < self.head_epochs, self.keep_rate(epoch)
        if (heads_only, rate) == self._current:
            return
        self._current = heads_only, rate
        student = self.model.student
        own_rate = self.stages[-1][1] if self.stages else None
        self.model.train_with(
            student if rate == own_rate else with_keep_rate(student, rate),
            training=self.train_mode and not heads_only,
            heads_only=heads_only,
        )
        if heads_only or self.head_epochs or len(self.stages) > 1:
            what = "the heads alone" if heads_only else "all weights"
            at_rate = "" if rate is None else f" at keep rate {rate:.3g}"
            print(f"Epoch {epoch + 1}: training {what}{at_rate}", flush=True)


class StopEarly(keras.callbacks.Callback):
    """Ends the run when the best epoch lies too far back.

    Args:
        history: Has the numbers of all epochs, the one that ends included.
        monitor: Name of the number that is best when largest.
        patience: Epochs without a better one after which the run ends.
    """

    def __init__(self, history: History, monitor: str, patience: int):
        super().__init__()
        self.history = history
        self.monitor = monitor
        self.patience = patience

    def is_over(self) -> bool:
        """Whether the epochs so far end the run."""
        best = best_row(self.history.rows, self.monitor)
        rows = self.history.rows
        return best is not None and rows[-1]["epoch"] - best["epoch"] >= self.patience

    def on_epoch_end(self, epoch, logs=None):
        if self.is_over():
            print(f"Stopped early: {self.patience} epochs without a better one.")
            self.model.stop_training = True


class StopIfNotFinite(keras.callbacks.Callback):
    """Ends the run when the loss is not a number any more.

    The model as it is then is left as `not_finite.keras`, and `not_finite.json` says
    which examples were in the batch.

    Args:
        directory: The folder of the run.
        first_step: Steps of the first epoch that were done before.
        ids: Called with epoch and step, names the examples of that batch.

    Raises:
        RuntimeError: Naming the epoch, the step and the examples.
    """

    def __init__(
        self, directory: Path, first_step: int, ids: Callable[[int, int], list[int]]
    ):
        super().__init__()
        self.directory = directory
        self.first_step = first_step
        self.ids = ids

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if all(math.isfinite(logs.get(name, 0.0)) for name in ("loss", "teacher_loss")):
            return
        step = self.first_step + batch
        ids = self.ids(self.epoch, step)
        record = {
            "epoch": self.epoch,
            "step": step,
            "ids": ids,
            "loss": str(float(logs["loss"])),
        }
        with replacing(self.directory / "not_finite.json") as path:
            path.write_text(json.dumps(record) + "\n")
        save_model(self.model.student, self.directory / "not_finite.keras")
        shown = ", ".join(map(str, ids[:8])) + (", ..." if len(ids) > 8 else "")
        raise RuntimeError(
            f"The loss is {logs['loss']} in epoch {self.epoch + 1}, step {step + 1}, "
            f"on examples {shown} (all of them in {self.directory}/not_finite.json, "
            "the model in not_finite.keras). Try a smaller learning rate, a longer "
            "warm-up, clip_norm, or float32; last.keras holds the weights of the epoch "
            "before, if any."
        )

    def on_epoch_end(self, epoch, logs=None):
        self.first_step = 0


class Progress(keras.callbacks.Callback):
    """Prints a line after each epoch: its numbers, its time, and what is left.

    Args:
        epochs: Epochs of the whole run.
        shown: Names of the numbers to print, as far as there are such.
    """

    def __init__(self, epochs: int, shown: Sequence[str]):
        super().__init__()
        self.epochs = epochs
        self.shown = shown
        self._seconds: list[float] = []

    def on_epoch_begin(self, epoch, logs=None):
        self._start = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        seconds = time.monotonic() - self._start
        self._seconds.append(seconds)
        # The first epoch also traces the graph.
        typical = sorted(self._seconds[1:] or self._seconds)
        left = typical[len(typical) // 2] * (self.epochs - epoch - 1)
        numbers = " - ".join(
            f"{name} {logs[name]:.4f}" for name in self.shown if name in logs
        )
        print(
            f"Epoch {epoch + 1}/{self.epochs} - {numbers} - {duration(seconds)}"
            + (f", {duration(left)} left" if left else ""),
            flush=True,
        )


def duration(seconds: float) -> str:
    """Writes a time for people, for instance "45 s", "12 min" or "3 h 20 min"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return (
        f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
    )
