"""Writes what a model of each family answers, on the backend of $KERAS_BACKEND.

Used by `test_backends.py`, each time in a process of its own:
  python backend_outputs.py OUTPUT.npz
"""

import sys

import keras
import numpy as np

import keras_deit

CASES = {
    "deit": ("deit_micro_patch4_32", {}),
    "distilled": ("deit_micro_distilled_patch4_32", {}),
    "evit": ("deit_micro_patch4_32", {"keep_rate": 0.7}),
    "evit_unfused": ("deit_micro_patch4_32", {"keep_rate": 0.7, "fuse": False}),
    "evit_distilled": ("deit_micro_distilled_patch4_32", {"keep_rate": 0.5}),
    "performer": ("t2t_vit_micro_32", {"image_size": (32, 48)}),
    "transformer": ("t2t_vit_micro_32", {"attention": "transformer"}),
    "regnety": ("regnety_micro_32", {}),
}


def outputs_of(name: str, overrides: dict) -> list[np.ndarray]:
    """The answers of a model whose weights come from NumPy, the same on any backend."""
    random = np.random.default_rng(0)
    model = keras_deit.create_model(name, 7, **overrides)
    for weight in model.weights:
        value = random.normal(0.0, 0.05, weight.shape)
        if weight.path.endswith(("gamma", "moving_variance")):
            value = 1.0 + np.abs(value)
        weight.assign(value.astype("float32"))
    pixels = random.integers(0, 256, (2, *model.input_shape[1:])).astype("float32")
    outputs = model(pixels, training=False)
    return [keras.ops.convert_to_numpy(x) for x in keras.tree.flatten(outputs)]


def main(path: str) -> None:
    """Writes the answers of all cases."""
    answers = {}
    for case, (name, overrides) in CASES.items():
        for index, output in enumerate(outputs_of(name, overrides)):
            answers[f"{case}_{index}"] = output
    np.savez(path, backend=keras.backend.backend(), **answers)


if __name__ == "__main__":
    main(sys.argv[1])
