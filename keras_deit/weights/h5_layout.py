"""What lies where in a `.weights.h5` file, compared with what a model would write."""

from pathlib import Path
from tempfile import TemporaryDirectory

import h5py
import keras


def layout_faults(path: Path, model: keras.Model) -> list[str]:
    """Names the places where a file is not laid out as the model's own would be.

    Args:
        path: The `.weights.h5` file.
        model: The model that is to be filled.

    Returns:
        A text for each place that is missing, superfluous, or of another shape.

    Raises:
        ValueError: If it is no HDF5 file.
    """
    theirs = _layout(path)
    with TemporaryDirectory() as folder:
        own_path = Path(folder) / "own.weights.h5"
        model.save_weights(own_path)
        ours = _layout(own_path)
    return [
        f"{name} {ours.get(name, 'absent')}: {theirs.get(name, 'absent')} in the file"
        for name in sorted(ours.keys() | theirs.keys())
        if ours.get(name) != theirs.get(name)
    ]


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
