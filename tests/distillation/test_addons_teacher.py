"""A teacher of TensorFlow Addons, which ended with Keras 2, teaches a student of today.

The other environment is that of KERAS_DEIT_ADDONS_PYTHON, a Python with tensorflow
2.15.1 and tensorflow-addons 0.23; without that variable it is made here, once, in
pytest's cache (`make clean` removes it).
"""

import csv
import json
import os
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from keras_deit import Distiller, Teacher, create_model
from keras_deit.data.sources import load_source
from keras_deit.training.run import train
from trainers.recipes.digits_distilled import RECIPE

pytestmark = pytest.mark.addons

SCRIPT = Path(__file__).parents[2] / "examples" / "addons_teacher.py"
PACKAGES = ("tensorflow-cpu==2.15.1", "tensorflow-addons==0.23.0", "numpy<2")
PYTHONS = ("python3.11", "python3.10")  # the newest that have these packages
EPOCHS = 16


@pytest.fixture(scope="module")
def addons_python(request):
    """The Python of the other environment, which is made if it has to be."""
    named = os.environ.get("KERAS_DEIT_ADDONS_PYTHON")
    if named is not None:
        return named
    folder = request.config.cache.mkdir("addons-environment")
    python, ready = folder / "bin" / "python", folder / "ready"
    if not ready.is_file():
        for command in (
            (_any_python(), "-m", "venv", "--clear", folder),
            (python, "-m", "pip", "install", "--quiet", *PACKAGES),
        ):
            said = _outcome(*command)
            if said.returncode:
                pytest.skip(f"cannot install {PACKAGES}: {_last_line(said.stderr)}")
        ready.touch()
    return python


def _any_python() -> str:
    """One that runs: what pyenv puts on the path may only say that it does not."""
    for path in filter(None, map(shutil.which, PYTHONS)):
        if not _outcome(path, "-c", "import ensurepip, venv").returncode:
            return path
    return pytest.skip(f"none of {PYTHONS} is here: set KERAS_DEIT_ADDONS_PYTHON")


def _outcome(*command):
    return subprocess.run(command, capture_output=True, text=True)


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[-1]


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """The digits as the script takes them: its file and what is in it."""
    arrays = {}
    for split in ("train", "validation"):
        examples = list(load_source("digits", split).in_order().as_numpy_iterator())
        arrays[f"{split}_pixels"] = np.stack([e["image"] for e in examples])
        arrays[f"{split}_labels"] = np.stack([e["label"] for e in examples])
    path = tmp_path_factory.mktemp("digits") / "digits.npz"
    np.savez(path, **arrays)
    return path, arrays


@pytest.fixture(scope="module")
def taught(addons_python, digits, tmp_path_factory):
    """The teacher's folder, its logits over there, and what the script said."""
    folder = tmp_path_factory.mktemp("addons") / "teacher"
    start = time.monotonic()
    # Isolated: neither this package nor PYTHONPATH is to be seen over there.
    said = _outcome(addons_python, "-I", SCRIPT, digits[0], folder)
    assert said.returncode == 0, said.stderr
    print(f"{_last_line(said.stdout)}, {time.monotonic() - start:.0f} s")
    return folder, np.load(folder.with_suffix(".npz"))["logits"], said.stdout


@pytest.fixture(scope="module")
def run(taught, tmp_path_factory):
    """A run whose recipe names the teacher's folder."""
    output = tmp_path_factory.mktemp("runs") / "student"
    start = time.monotonic()
    result = train(replace(RECIPE.over(EPOCHS), teacher=str(taught[0])), output)
    print(f"{result.scores}, {time.monotonic() - start:.0f} s")
    return result


def test_its_logits_are_those_that_it_had_over_there(taught, digits):
    folder, logits, _ = taught
    teacher = Teacher(folder)
    assert teacher.num_classes == 10
    assert teacher.model is None
    answers = teacher(digits[1]["validation_pixels"])  # uint8 here, float32 there
    assert answers.dtype == tf.float32
    print(f"largest difference: {np.abs(answers - logits).max():.1e}")
    np.testing.assert_allclose(answers, logits, rtol=0, atol=1e-4)


def test_it_knows_most_of_the_held_out_digits(taught, digits):
    folder, _, said = taught
    guesses = np.argmax(Teacher(folder)(digits[1]["validation_pixels"]), axis=-1)
    accuracy = np.mean(guesses == digits[1]["validation_labels"])
    assert accuracy > 0.95
    assert _last_line(said) == f"validation accuracy: {accuracy:.4f}"


def test_an_image_gets_the_same_answer_again_and_in_any_batch(taught, digits):
    # So nothing is dropped at random, and nothing depends on the other images.
    teacher, pixels = Teacher(taught[0]), digits[1]["validation_pixels"][:4]
    together = teacher(pixels)
    np.testing.assert_array_equal(teacher(pixels), together)
    alone = np.concatenate([teacher(pixels[i : i + 1]) for i in range(4)])
    np.testing.assert_allclose(alone, together, rtol=0, atol=1e-4)


def test_a_student_comes_to_agree_with_it(run):
    facts = json.loads((run.directory / "run.json").read_text())["teacher"]
    with (run.directory / "history.csv").open() as file:
        agreements = [float(r["val_fused_agreement"]) for r in csv.DictReader(file)]
    print(f"agreement: {facts['agreement']:.3f} at first, then {agreements}")
    assert facts["accuracy"] > 0.95
    assert facts["agreement"] < 0.3 < 0.7 < agreements[-1]
    assert agreements[0] < agreements[-1]


def test_the_student_knows_most_of_the_held_out_digits(run):
    assert all(scores["top1"] > 0.7 for scores in run.scores.values())


def test_it_teaches_two_replicas_and_stays_as_it_is(taught, digits, two_replicas):
    pixels, labels = (digits[1][f"train_{name}"][:64] for name in ("pixels", "labels"))
    teacher = Teacher(taught[0])
    with two_replicas.scope():
        student = create_model("deit_micro_distilled_patch4_32", num_classes=10)
        distiller = Distiller(student, teacher, kind="hard")
        distiller.compile("adamw")
    before = teacher(pixels)
    history = distiller.fit(pixels, labels, batch_size=32, verbose=0).history
    assert np.isfinite(history["distillation_loss"]).all()
    np.testing.assert_array_equal(teacher(pixels), before)
