import runpy
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_deit.data.sources import load_source
from keras_deit.models.inference import head_logits

EXAMPLES = Path(__file__).parents[2] / "examples"
ARTIFACTS = {"classify_saved_model.py": "1", "classify_tflite.py": "digits.tflite"}


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Two digits as PNG files in a folder, and their pixels."""
    folder = tmp_path_factory.mktemp("digits")
    examples = load_source("digits", "validation").in_order().take(2)
    pixels = np.stack([example["image"].numpy() for example in examples])
    for index, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{index}.png")
    return folder, pixels


def classified(script, *arguments):
    """Runs an example in a process of its own: (file, label, probability) of each."""
    command = [sys.executable, "-I", EXAMPLES / script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [line.split("\t") for line in done.stdout.splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("script", ARTIFACTS)
def test_an_example_says_what_the_model_says(script, artifacts, student, digits):
    folder, pixels = digits
    artifact = artifacts.folder / ARTIFACTS[script]
    # More images than the example takes in one batch.
    rows = classified(script, artifact, *[folder] * 33, folder / "0.png")
    files = [folder / "0.png", folder / "1.png"] * 33 + [folder / "0.png"]
    assert [Path(row[0]) for row in rows] == files
    model = keras.models.load_model(student.folder / "last.keras", compile=False)
    logits = head_logits(model(pixels.astype("float32"), training=False), "fused")
    probabilities = tf.nn.softmax(logits).numpy()
    for file, (_, label, probability) in zip(files, rows, strict=True):
        index = int(file.stem)
        assert label == str(probabilities[index].argmax())
        best = probabilities[index].max()
        assert float(probability) == pytest.approx(best, abs=1e-3)


@pytest.mark.parametrize("script", ARTIFACTS)
def test_an_example_knows_nothing_of_ours(script):
    text = (EXAMPLES / script).read_text()
    assert "import keras" not in text
    assert "from keras" not in text


@pytest.mark.parametrize("script", ARTIFACTS)
def test_without_an_image_an_example_says_how_it_is_used(script, monkeypatch):
    monkeypatch.setattr(sys, "argv", [script, "model"])
    with pytest.raises(SystemExit, match=rf"Usage: python {script} saved_models/NAME"):
        runpy.run_path(str(EXAMPLES / script), run_name="__main__")
