"""Weights of a model into a file that PyTorch colleagues can load."""

from pathlib import Path

import keras
import numpy as np

from keras_deit._checks import check
from keras_deit.weights.key_maps import has_official_names, official_names, to_official
from keras_deit.weights.position_resampling import token_grid
from keras_deit.weights.readers import write_safetensors


def save_weights(model: keras.Model, path: str | Path) -> None:
    """Saves the weights of a model under their official names.

    The file has the names and the layout of the official PyTorch code, in float32, so
    that `load_state_dict` takes it there; `load_weights` takes it here. Its metadata
    names the model and the grid of its patches. To save the model itself, and not its
    weights alone, use `model.save("....keras")`.

    Args:
        model: A model of `create_model`.
        path: The file, ending in `.safetensors`; replaced once the new one is whole.

    Raises:
        ValueError: If the ending is another one, or no official names are known for
            the model.
        OSError: If the file cannot be written.
    """
    path = Path(path)
    check(
        path.suffix == ".safetensors",
        "`path` must end in .safetensors.",
        path=str(path),
    )
    paths = [weight.path for weight in model.weights]
    check(
        has_official_names(paths),
        "Only models of `create_model` have official names; save others with "
        "`model.save`.",
        model=model.name,
    )
    names = official_names(paths)
    tensors = {}
    for weight in model.weights:
        value = keras.ops.convert_to_numpy(keras.ops.cast(weight, "float32"))
        name = names[weight.path]
        tensors[name] = to_official(weight.path, value)
        if name.endswith(".running_var"):  # a strict loader of PyTorch expects it
            counter = name.replace("running_var", "num_batches_tracked")
            tensors[counter] = np.zeros((), "int64")
    metadata = {"format": "pt", "model": model.name}
    grid = token_grid(model)
    if grid is not None:
        metadata["grid"] = "x".join(map(str, grid))
    write_safetensors(path, tensors, metadata)
