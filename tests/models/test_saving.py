import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_deit.models.factory import build_model
from keras_deit.models.inference import inference_model
from keras_deit.models.reorganization import with_keep_rate, with_kept_patches

ROOT = Path(__file__).parents[2]
LOAD_AND_RUN = """
import sys
from pathlib import Path

import keras
import numpy as np

import keras_deit  # registers the layers

folder = Path(sys.argv[1])
images = np.load(folder / "images.npy")
for path in folder.glob("*.keras"):
    outputs = keras.tree.flatten_with_path(keras.models.load_model(path)(images))
    np.savez(path.with_suffix(".npz"), **{f"at {k}": np.array(v) for k, v in outputs})
"""


def models_to_save():
    deit, t2t = "deit_micro_distilled_patch4_32", "t2t_vit_micro_32"
    small = {"num_classes": 5, "depth": 2}
    student = build_model(deit, **small, drop_path_rate=0.1)
    evit = build_model(deit, **small, keep_rate=0.7)
    return {
        "distilled": student,
        "fused": inference_model(student),
        "fused_softmax": inference_model(student, "fused_softmax"),
        "regnet": build_model("regnety_micro_32", **small),
        "performer": build_model(t2t, **small),
        "transformer": build_model(t2t, **small, attention="transformer"),
        "evit": evit,
        "dialled": with_keep_rate(evit, 0.4),
        "kept_patches": with_kept_patches(evit),
        "half": build_model("deit_micro_patch4_32", **small, dtype="mixed_bfloat16"),
    }


@pytest.fixture(scope="module")
def saved_and_loaded(tmp_path_factory):
    """For each model its outputs here, and those in a process that loads its file."""
    folder = tmp_path_factory.mktemp("models")
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    np.save(folder / "images.npy", images)
    here = {}
    for name, model in models_to_save().items():
        model.save(folder / f"{name}.keras")
        outputs = keras.tree.flatten_with_path(model(images))
        here[name] = {f"at {place}": x.numpy() for place, x in outputs}
    process = subprocess.run(
        [sys.executable, "-c", LOAD_AND_RUN, str(folder)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    return here, {name: np.load(folder / f"{name}.npz") for name in here}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "num_outputs"),
    [
        ("distilled", 2),
        ("fused", 1),
        ("fused_softmax", 1),
        ("regnet", 1),
        ("performer", 1),
        ("transformer", 1),
        ("evit", 2),
        ("dialled", 2),
        ("kept_patches", 2 + 2),
        ("half", 1),
    ],
)
def test_a_saved_model_says_the_same_in_a_new_process(
    name, num_outputs, saved_and_loaded
):
    here, there = (outputs[name] for outputs in saved_and_loaded)
    assert list(here) == list(there)
    assert len(here) == num_outputs
    for place in here:
        np.testing.assert_array_equal(here[place], there[place])
