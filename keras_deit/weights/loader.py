"""Weights from a file into a model, with a report of what became of each."""

from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import is_zipfile

import h5py
import keras

from keras_deit._checks import check

KERAS_SUFFIXES = (".keras", ".weights.h5")


@dataclass(frozen=True)
class LoadReport:
    """What became of each weight, by its path in the model or in the file.

    Attributes:
        path: The file that was read.
        loaded: Weights taken from the file as they are.
        resampled: Weights taken from the file and brought to another size.
        fresh: Weights of the model that the file could not fill: heads for another
            number of classes.
        unused: Weights of the file that the model has no use for.
    """

    path: Path
    loaded: list[str] = field(default_factory=list)
    resampled: list[str] = field(default_factory=list)
    fresh: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """Says in one line what was loaded, and names everything else."""
        rest = {
            "resampled": self.resampled,
            "left fresh": self.fresh,
            "unused": self.unused,
        }
        parts = [f"{what}: {', '.join(names)}" for what, names in rest.items() if names]
        return "; ".join([f"{self.path}: {len(self.loaded)} weights loaded", *parts])


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
    path = _existing(path)
    check(
        path.suffix == ".keras" and is_zipfile(path),
        "A model must be a whole .keras file, as `model.save` writes it.",
        path=str(path),
    )
    try:
        return keras.models.load_model(path, compile=False)
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise ValueError(f"{str(path)!r} holds no model: {str(error)[:500]}") from error


def _existing(path: str | Path) -> Path:
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no file {str(path)!r}.")
    return Path(path)


def load_weights(model: keras.Model, path: str | Path) -> LoadReport:
    """Loads the weights of a file into a model of the same architecture.

    Weights are matched by name and shape; what does not fit is refused, all of it in
    one error, and then nothing is changed. There is one exception: from a `.keras`
    file, a head for another number of classes is left as it is, and the report says so.

    Args:
        model: The model to fill; changed in place.
        path: A file ending in `.keras` or `.weights.h5`.

    Returns:
        What was loaded, left fresh and unused.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the ending is another one, or the weights do not fit.
    """
    path = _existing(path)
    check(
        path.name.endswith(KERAS_SUFFIXES),
        f"`path` must end in one of {list(KERAS_SUFFIXES)}.",
        path=str(path),
    )
    if path.suffix == ".keras":
        return _transfer(load_model(path), model, path)
    _check_layout(path, model)
    model.load_weights(path)
    return LoadReport(path, loaded=[weight.path for weight in model.weights])


def _check_layout(path: Path, model: keras.Model) -> None:
    """Refuses a `.weights.h5` file that is not laid out as the model's own would be."""
    theirs = _layout(path)
    with TemporaryDirectory() as folder:
        own_path = Path(folder) / "own.weights.h5"
        model.save_weights(own_path)
        ours = _layout(own_path)
    faults = [
        f"{name} {ours.get(name, 'absent')}: {theirs.get(name, 'absent')} in the file"
        for name in sorted(ours.keys() | theirs.keys())
        if ours.get(name) != theirs.get(name)
    ]
    _check_no_faults(faults, path, model)


def _layout(path: Path) -> dict[str, tuple]:
    """Shape of each weight of the model in a `.weights.h5` file, by its place."""
    shapes = {}

    def note(name, item):
        of_model = not name.startswith("optimizer/") and "seed_generator" not in name
        if isinstance(item, h5py.Dataset) and of_model:
            shapes[name] = item.shape

    try:
        with h5py.File(path) as file:
            file.visititems(note)
    except OSError as error:
        raise ValueError(f"{str(path)!r} is no HDF5 file: {error}.") from error
    return shapes


def _check_no_faults(faults: list[str], path: Path, model: keras.Model) -> None:
    rule = f"`path` must hold the weights of {model.name!r}, but: {'; '.join(faults)}."
    check(not faults, rule, path=str(path))


def _transfer(source: keras.Model, model: keras.Model, path: Path) -> LoadReport:
    """Copies weights by their paths; all differences are reported together."""
    theirs = {weight.path: weight for weight in source.weights}
    ours = {weight.path: weight for weight in model.weights}
    report = LoadReport(path)
    faults = [f"{name}: not in the model" for name in theirs if name not in ours]
    for weight in model.weights:
        found = theirs.get(weight.path)
        if found is not None and found.shape == weight.shape:
            report.loaded.append(weight.path)
        elif found is not None and "_head/" in weight.path:
            report.fresh.append(weight.path)
        else:
            shape = "absent" if found is None else tuple(found.shape)
            faults.append(f"{weight.path} {tuple(weight.shape)}: {shape} in the file")
    _check_no_faults(faults, path, model)
    for name in report.loaded:
        ours[name].assign(theirs[name])
    return report
