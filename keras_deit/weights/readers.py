"""Tensors of checkpoint files, by their official names."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np

from keras_deit._checks import check
from keras_deit._files import existing_file, replacing
from keras_deit.weights.torch_pickle import read_torch
from keras_deit.weights.torch_zip import MAX_INDEX_BYTES

CHECKPOINT_SUFFIXES = (".safetensors", ".pth", ".pth.tar")
# Where training loops put the state dict, the one to be preferred first: T2T-ViT keeps
# the averaged weights beside the others, and publishes those.
WRAPPERS = ("state_dict_ema", "state_dict", "model", "model_ema", "net")
PREFIX = "module."  # of PyTorch's DataParallel
SAFE_DTYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds.

    Attributes:
        path: The file that was read.
        tensors: By official name, with the dtype of the file. They are read-only views
            of the file, which must stay as it is while they are in use.
        choice: Under which key of the file they lie; None where there is no such key.
        others: The other keys beside it, which were not read.
        metadata: Texts of a `.safetensors` file, by name; else empty.
    """

    path: Path
    tensors: dict[str, np.ndarray]
    choice: str | None
    others: list[str]
    metadata: dict[str, str]


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Reads the tensors of a file, without PyTorch and without running its code.

    The state dict of a `.pth` file is the dict under the first key of `WRAPPERS` that
    has one, or else the whole file. If all of its names begin with `module.`, they are
    given without it.

    Args:
        path: A file ending in `.safetensors`, `.pth` or `.pth.tar`.

    Returns:
        The tensors, and what was not read.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the ending is another one, or the file is damaged, or holds other
            things than tensors where these should be.
    """
    path = existing_file(path)
    check(
        path.name.endswith(CHECKPOINT_SUFFIXES),
        f"`path` must end in one of {list(CHECKPOINT_SUFFIXES)}.",
        path=str(path),
    )
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    content = read_torch(path)
    check(type(content) is dict, "`path` must hold a dict of tensors.", path=str(path))
    wrappers = [key for key in WRAPPERS if type(content.get(key)) is dict]
    choice = wrappers[0] if wrappers else None
    others = [str(key) for key in content if key != choice] if wrappers else []
    tensors = content[choice] if wrappers else content
    _check_tensors(tensors, choice, path)
    if all(name.startswith(PREFIX) for name in tensors):
        tensors = {name.removeprefix(PREFIX): tensors[name] for name in tensors}
    return Checkpoint(path, tensors, choice, others, metadata={})


def _check_tensors(tensors: dict, choice: str | None, path: Path) -> None:
    place = f"under {choice!r}" if choice else f"alone or under one of {list(WRAPPERS)}"
    faults = [
        f"{name!r:.100} is of type {type(value).__name__}"
        for name, value in tensors.items()
        if not (type(name) is str and isinstance(value, np.ndarray))
    ]
    fault = ", ".join(faults[:5]) if tensors else "there are none"
    rule = f"`path` must hold named tensors {place}, but: {fault}."
    check(bool(tensors) and not faults, rule, path=str(path))


def _read_safetensors(path: Path) -> Checkpoint:
    """Has the library check the file, and maps the tensors, which it would copy."""
    from safetensors import SafetensorError, safe_open

    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
        if length > MAX_INDEX_BYTES:
            raise ValueError(f"header too large: {length} bytes")
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
        mapped = np.memmap(path, np.uint8, "r")
        end = 8 + length
        header = json.loads(mapped[8:end].tobytes())
        header.pop("__metadata__", None)
        tensors = {
            name: _map_tensor(name, entry, mapped, end)
            for name, entry in header.items()
        }
    except (SafetensorError, ValueError) as error:
        raise ValueError(
            f"`path` must be a whole .safetensors file, but: {error!s:.300}. "
            f"Received: path={str(path)!r}."
        ) from error
    _check_tensors(tensors, None, path)
    return Checkpoint(path, tensors, None, [], metadata)


def _map_tensor(name: str, entry: dict, mapped: np.ndarray, end: int) -> np.ndarray:
    dtype = entry["dtype"]
    if dtype not in SAFE_DTYPES:
        raise ValueError(f"{name!r:.100} is of type {dtype}, which is not read")
    place = end + entry["data_offsets"][0]
    return np.ndarray(entry["shape"], SAFE_DTYPES[dtype], mapped, place)


def write_safetensors(
    path: Path, tensors: Mapping[str, np.ndarray], metadata: dict[str, str]
) -> None:
    """Writes tensors to a `.safetensors` file, which is whole or not there.

    Args:
        path: The file to make or replace; its folder must be there.
        tensors: Arrays of any memory layout, by name.
        metadata: Texts to keep with them, by name.

    Raises:
        ValueError: If an array is of a type that `read_checkpoint` does not read.
        OSError: If the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    faults = [
        f"{name!r} is {array.dtype}"
        for name, array in tensors.items()
        if array.dtype.newbyteorder("=") not in SAFE_DTYPES.values()
    ]
    rule = f"`tensors` must be of {sorted(SAFE_DTYPES)}, but {', '.join(faults)}."
    check(not faults, rule, path=str(path))
    # The library writes the bytes as they lie in memory, and takes them for C order.
    plain = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    with replacing(path) as partial:
        try:
            save_file(plain, partial, metadata)
        except SafetensorError as error:
            raise OSError(f"{str(path)!r} cannot be written: {error}") from error
