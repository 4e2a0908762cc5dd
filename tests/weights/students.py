"""A small distilled student, and its weights in every kind of file."""

import numpy as np

from keras_deit.models.factory import build_model
from keras_deit.weights.readers import read_checkpoint
from keras_deit.weights.saver import save_weights
from tests.weights.torch_files import tensor, write_torch

STUDENT = "deit_micro_distilled_patch4_32"
SIZES = {"depth": 1, "embed_dim": 24, "num_heads": 2}
MATCHED = ["student.keras", "student.safetensors", "student.pth"]  # by name and shape
FILES = [*MATCHED, "student.weights.h5"]


def build_student(num_classes=5, **arguments):
    return build_model(STUDENT, num_classes, **{**SIZES, **arguments})


def write_pth(path, state_dicts, **others):
    """Writes a file of PyTorch with a state dict under each key."""
    content, storages = dict(others), {}
    for key, tensors in state_dicts.items():
        content[key] = {}
        for name, value in tensors.items():
            strides = [int(np.prod(value.shape[i + 1 :])) for i in range(value.ndim)]
            place = {"key": str(len(storages)), "numel": value.size}
            content[key][name] = tensor(value.shape, tuple(strides), **place)
            storages[place["key"]] = value.astype("<f4").tobytes()
    return write_torch(path, content, storages)


def save_student(model, folder):
    """Writes all `FILES`."""
    model.save(folder / "student.keras")
    model.save_weights(folder / "student.weights.h5")
    save_weights(model, folder / "student.safetensors")
    write_pth(folder / "student.pth", {"model": tensors_of(folder)}, epoch=3)


def tensors_of(folder):
    """The official tensors of a student, to be changed."""
    return dict(read_checkpoint(folder / "student.safetensors").tensors)


def assert_unchanged(model, before):
    for now, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)
