import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from keras_deit.models.factory import build_model
from keras_deit.models.inference import inference_model

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
    outputs = keras.models.load_model(path)(images)
    outputs = outputs if isinstance(outputs, dict) else {"logits": outputs}
    np.savez(path.with_suffix(".npz"), **{k: np.array(v) for k, v in outputs.items()})
"""


def models_to_save():
    student = build_model(
        "deit_micro_distilled_patch4_32", num_classes=5, drop_path_rate=0.1
    )
    return {
        "distilled": student,
        "fused": inference_model(student),
        "fused_softmax": inference_model(student, "fused_softmax"),
        "regnet": build_model("regnety_micro_32", num_classes=5),
        "half": build_model("deit_micro_patch4_32", 5, dtype="mixed_bfloat16"),
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
        outputs = model(images)
        outputs = outputs if isinstance(outputs, dict) else {"logits": outputs}
        here[name] = {head: x.numpy() for head, x in outputs.items()}
    process = subprocess.run(
        [sys.executable, "-c", LOAD_AND_RUN, str(folder)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    return here, {name: np.load(folder / f"{name}.npz") for name in here}


@pytest.mark.parametrize(
    "name", ["distilled", "fused", "fused_softmax", "regnet", "half"]
)
def test_a_saved_model_says_the_same_in_a_new_process(name, saved_and_loaded):
    here, there = (outputs[name] for outputs in saved_and_loaded)
    assert list(here) == list(there)
    for head in here:
        np.testing.assert_array_equal(here[head], there[head])
