"""The state of a run at a step, in files that are whole or not there."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import keras
import numpy as np

from keras_deit._checks import check
from keras_deit.weights.readers import read_checkpoint, write_safetensors

FOLDER = "checkpoints"
UNFINISHED = ".partial-*"  # what a process that was killed may leave, see `replacing`


class Checkpoints(keras.callbacks.Callback):
    """Saves everything that the next step depends on, every few steps.

    A checkpoint is a `.safetensors` file named after the epoch and the number of its
    steps that were done. It holds the weights, the state of every seed, of the
    optimizer, of the averaged weights and of the reported means.

    Args:
        directory: The folder of the run; its `checkpoints/` is used.
        state: The variables to save, by group; read when a checkpoint is saved.
        steps_per_epoch: Steps in an epoch.
        every: Steps of the run from one checkpoint to the next; each epoch ends with
            one too.
        keep: How many of the last ones stay.
        writes: Whether this process writes them. Of several all have to read the
            variables, some of which are sums over all processes.
    """

    def __init__(
        self,
        directory: Path,
        state: Callable[[], Mapping[str, Sequence]],
        steps_per_epoch: int,
        every: int,
        keep: int = 2,
        writes: bool = True,
    ):
        super().__init__()
        self.folder = directory / FOLDER
        self.state = state
        self.steps_per_epoch = steps_per_epoch
        self.every = every
        self.keep = keep
        self.writes = writes
        self.epoch = 0
        self.first_step = 0
        self._restored_means = None

    def latest(self) -> tuple[int, int] | None:
        """Loads the newest whole checkpoint into the variables.

        Returns:
            The epoch to go on with, and how many of its steps are done; None if there
            is no checkpoint.

        Raises:
            ValueError: If it is not one of this model and optimizer.
        """
        for path in sorted(self.folder.glob("epoch-*.safetensors"), reverse=True):
            try:
                checkpoint = read_checkpoint(path)
            except (OSError, ValueError) as error:
                print(f"{path} is left aside: {error}", file=sys.stderr)
                continue
            self._load(path, checkpoint.tensors)
            self.epoch, self.first_step = _position(path)
            if not self.first_step:  # those of an epoch that ended
                self._restored_means = None
            return self.epoch, self.first_step
        return None

    def _load(self, path: Path, tensors: Mapping[str, np.ndarray]) -> None:
        variables = self._named()
        shapes = {name: tuple(variable.shape) for name, variable in variables.items()}
        found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        check(
            shapes == found,
            "A checkpoint must hold the variables of this model and optimizer, but "
            f"{len(shapes.items() ^ found.items())} entries differ.",
            path=str(path),
        )
        for name, variable in variables.items():
            variable.assign(tensors[name].astype(variable.dtype))
        self._restored_means = {
            name: keras.ops.convert_to_numpy(variable)
            for name, variable in variables.items()
            if name.startswith("means/")
        }

    def _named(self) -> dict[str, object]:
        return {
            f"{group}/{index:05}": variable
            for group, variables in self.state().items()
            for index, variable in enumerate(variables)
        }

    def _save(self, epoch: int, step: int) -> None:
        arrays = {}
        for name, variable in self._named().items():
            array = keras.ops.convert_to_numpy(variable)
            # Seeds are unsigned, which the reader of weights does not know.
            arrays[name] = array.astype(np.int64) if array.dtype.kind == "u" else array
        floats = [array for array in arrays.values() if array.dtype.kind == "f"]
        if not all(np.isfinite(array).all() for array in floats):
            return  # nobody could go on from here; the one before is still there
        if not self.writes:
            return
        self.folder.mkdir(exist_ok=True)
        path = self.folder / f"epoch-{epoch:05}-step-{step:07}.safetensors"
        write_safetensors(path, arrays, {"epoch": str(epoch), "step": str(step)})
        for old in sorted(self.folder.glob("epoch-*.safetensors"))[: -self.keep]:
            old.unlink()

    def on_epoch_begin(self, epoch, logs=None):
        # `fit` has just reset the means; an epoch that was begun goes on with its own.
        self.epoch = epoch
        if self._restored_means is not None:
            variables = self._named()
            for name, value in self._restored_means.items():
                variables[name].assign(value)
            self._restored_means = None

    def on_train_batch_end(self, batch, logs=None):
        step = self.first_step + batch + 1
        is_due = (self.epoch * self.steps_per_epoch + step) % self.every == 0
        if is_due and step < self.steps_per_epoch:  # else once the epoch is recorded
            self._save(self.epoch, step)

    def on_epoch_end(self, epoch, logs=None):
        self.first_step = 0
        self._save(epoch + 1, 0)


def _position(path: Path) -> tuple[int, int]:
    """Epoch and step of a checkpoint, from its name."""
    _, epoch, _, step = path.stem.split("-")
    return int(epoch), int(step)


def sweep(directory: Path) -> None:
    """Removes half-written files that a killed process left in the folder of a run."""
    for folder in (directory, directory / FOLDER):
        for leftover in folder.glob(UNFINISHED):
            leftover.unlink()
