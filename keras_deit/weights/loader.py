"""Weights from a file into a model, with a report of what became of each."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from zipfile import BadZipFile, is_zipfile

import keras
import numpy as np

from keras_deit._checks import check
from keras_deit._files import existing_file
from keras_deit.weights.h5_layout import layout_faults
from keras_deit.weights.key_maps import from_official, official_names, official_shape
from keras_deit.weights.position_resampling import resample_positions, token_grid
from keras_deit.weights.readers import CHECKPOINT_SUFFIXES, Checkpoint, read_checkpoint

SUFFIXES = (".keras", ".weights.h5", *CHECKPOINT_SUFFIXES)
POSITIONS = "position_embedding/embedding"
NOT_WEIGHTS = "num_batches_tracked"  # PyTorch's batch norms count their batches


@dataclass(frozen=True)
class LoadReport:
    """What became of each weight, by its path in the model or its name in the file.

    Attributes:
        path: The file that was read.
        loaded: Weights taken from the file as they are.
        resampled: Position embeddings taken from the file and brought to another grid.
        fresh: Weights of the model that were not filled: heads for another number of
            classes, frozen positions of another grid, and, when not strict, whatever
            the file lacks or has in another shape.
        unused: Weights of the file that the model has no use for.
        choice: Under which key of the file the weights were; None if it has no keys.
        others: The other keys of the file, which were not read.
    """

    path: Path
    loaded: list[str] = field(default_factory=list)
    resampled: list[str] = field(default_factory=list)
    fresh: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    choice: str | None = None
    others: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """Says in one line what was loaded, and names everything else."""
        rest = {
            "resampled": self.resampled,
            "left fresh": self.fresh,
            "unused": self.unused,
            "not read": self.others,
        }
        chosen = f" from {self.choice!r}" if self.choice else ""
        parts = [f"{what}: {', '.join(names)}" for what, names in rest.items() if names]
        first = f"{self.path}: {len(self.loaded)} weights loaded{chosen}"
        return "; ".join([first, *parts])


@dataclass(frozen=True)
class _Source:
    """The weights of a file as the loader sees them.

    Attributes:
        values: By their name in the file.
        names: Name in the file of each weight of the model.
        shape: `shape(path, shape)`: shape in the file of a weight of the model.
        convert: `convert(path, value)`: value of the file in the model's layout.
        class_axis: Axis of a head's kernel that counts the classes.
        grid: Rows and columns of the patches that the positions stand for, if known.
    """

    values: Mapping[str, object]
    names: Mapping[str, str]
    shape: Callable
    convert: Callable
    class_axis: int
    grid: tuple[int, int] | None


def load_model(path: str | Path) -> keras.Model:
    """Loads a model from a `.keras` file.

    Args:
        path: The file.

    Returns:
        The model, not compiled.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no whole `.keras` file, or holds something unknown.
    """
    path = existing_file(path)
    check(
        path.suffix == ".keras" and is_zipfile(path),
        "A model must be a whole .keras file, as `model.save` writes it.",
        path=str(path),
    )
    try:
        return keras.models.load_model(path, compile=False)
    except (ValueError, TypeError, KeyError, OSError, BadZipFile) as error:
        raise ValueError(f"{str(path)!r} holds no model: {str(error)[:500]}") from error


def load_weights(
    model: keras.Model, path: str | Path, strict: bool = True
) -> LoadReport:
    """Loads the weights of a file into a model of the same architecture.

    Weights are matched by name and shape; what does not fit is refused, all of it in
    one error, and then nothing is changed. Two things may differ, unless the file is a
    `.weights.h5`: a head for another number of classes is left as it is, and positions
    of another grid of patches are resampled (learned ones) or left (frozen ones).

    Args:
        model: The model to fill; changed in place.
        path: A file ending in `.keras` or `.weights.h5`, or an official checkpoint:
            `.safetensors`, `.pth` or `.pth.tar`. Of the latter no code is run.
        strict: Whether a weight that is missing, superfluous or of another shape is an
            error. If not, the report names it under `fresh` or `unused`. A
            `.weights.h5` file is always strict.

    Returns:
        What was loaded, resampled, left fresh and unused.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the ending is another one, the file is damaged, or the weights do
            not fit.
    """
    path = existing_file(path)
    check(
        path.name.endswith(SUFFIXES),
        f"`path` must end in one of {list(SUFFIXES)}.",
        path=str(path),
    )
    if path.name.endswith(".weights.h5"):
        _check_fits(layout_faults(path, model), path, model)
        model.load_weights(path)
        return LoadReport(path, loaded=[weight.path for weight in model.weights])
    if path.suffix == ".keras":
        return _transfer(_of_model(load_model(path)), model, LoadReport(path), strict)
    checkpoint = read_checkpoint(path)
    report = LoadReport(path, choice=checkpoint.choice, others=checkpoint.others)
    return _transfer(_of_checkpoint(checkpoint, model), model, report, strict)


def _of_model(source: keras.Model) -> _Source:
    values = {weight.path: weight for weight in source.weights}
    return _Source(
        values,
        names={path: path for path in values},
        shape=lambda path, shape: tuple(shape),
        convert=lambda path, value: keras.ops.convert_to_numpy(value),
        class_axis=-1,
        grid=token_grid(source),
    )


def _of_checkpoint(checkpoint: Checkpoint, model: keras.Model) -> _Source:
    values = {
        name: value
        for name, value in checkpoint.tensors.items()
        if not name.endswith(NOT_WEIGHTS)
    }
    integers = [n for n, value in values.items() if value.dtype.kind in "iub"]
    rule = f"`path` must hold floating-point weights, but {integers[:5]} are not."
    check(not integers, rule, path=str(checkpoint.path))
    names = official_names(weight.path for weight in model.weights)
    side = r"([1-9]\d{0,5})"
    grid = re.fullmatch(f"{side}x{side}", checkpoint.metadata.get("grid", ""))
    return _Source(
        values,
        names,
        official_shape,
        from_official,
        class_axis=0,
        grid=tuple(map(int, grid.groups())) if grid else None,
    )


def _check_fits(faults: list[str], path: Path, model: keras.Model) -> None:
    rule = f"`path` must hold the weights of {model.name!r}, but: {'; '.join(faults)}."
    check(not faults, rule, path=str(path))


def _transfer(
    source: _Source, model: keras.Model, report: LoadReport, strict: bool
) -> LoadReport:
    """Decides the fate of each weight, reports all faults together, then assigns."""
    faults, superfluous = [], dict.fromkeys(source.values)
    for weight in model.weights:
        name = source.names.get(weight.path, weight.path)
        found = source.values.get(name)
        fate = _fate(weight, found, source, model)
        if fate is not None:
            getattr(report, fate).append(weight.path)
            superfluous.pop(name, None)
        else:
            shape = source.shape(weight.path, weight.shape)
            there = "absent" if found is None else tuple(found.shape)
            faults.append(f"{name} {shape}: {there} in the file")
            if not strict:
                report.fresh.append(weight.path)
            elif found is not None:
                del superfluous[name]
    faults += [f"{name}: not in the model" for name in superfluous]
    if strict:
        _check_fits(faults, report.path, model)
    report.unused.extend(superfluous)
    _assign(source, model, report)
    return report


def _fate(weight, found, source: _Source, model: keras.Model) -> str | None:
    """What becomes of a weight: a field of the report, or None if it does not fit."""
    if found is None:
        return None
    expected, shape = source.shape(weight.path, weight.shape), tuple(found.shape)
    if weight.path == POSITIONS and token_grid(model):
        return _fate_of_positions(weight, shape, source, model)
    if shape == expected:
        return "loaded"
    if "_head/" in weight.path and len(shape) == len(expected):
        rest = [np.delete(sizes, source.class_axis) for sizes in (shape, expected)]
        agree = np.array_equal(*rest) and _is_one_head(weight.path, source)
        return "fresh" if agree else None
    return None


def _is_one_head(path: str, source: _Source) -> bool:
    """Whether kernel and bias of a file's head are for the same number of classes."""
    layer = path.rpartition("/")[0]
    names = [source.names.get(f"{layer}/{leaf}") for leaf in ("kernel", "bias")]
    if not all(name in source.values for name in names):
        return False
    kernel, bias = (tuple(source.values[name].shape) for name in names)
    return bias == kernel[source.class_axis :][:1]


def _fate_of_positions(weight, shape, source: _Source, model) -> str | None:
    if len(shape) != 3 or shape[::2] != weight.shape[::2]:
        return None
    new_grid = token_grid(model)
    num_prefix_tokens = weight.shape[1] - math.prod(new_grid)
    old_grid = _grid_of(shape[1] - num_prefix_tokens, source.grid)
    if shape == weight.shape and old_grid in (None, new_grid):
        return "loaded"
    if old_grid is None:
        return None
    is_table = model.get_layer("position_embedding").sinusoidal
    return "fresh" if is_table else "resampled"


def _grid_of(num_patches: int, known: tuple[int, int] | None):
    """Rows and columns of the patches of a file: what it says, or else a square."""
    if known and math.prod(known) == num_patches:
        return known
    side = math.isqrt(max(num_patches, 0))
    return (side, side) if side and side * side == num_patches else None


def _assign(source: _Source, model: keras.Model, report: LoadReport) -> None:
    weights = {weight.path: weight for weight in model.weights}
    for path in (*report.loaded, *report.resampled):
        weight = weights[path]
        value = source.convert(path, source.values[source.names[path]])
        if path in report.resampled:
            grid = token_grid(model)
            num_prefix_tokens = weight.shape[1] - math.prod(grid)
            old_grid = _grid_of(value.shape[1] - num_prefix_tokens, source.grid)
            value = resample_positions(value, old_grid, grid)
        weight.assign(value)
