import re
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_deit import create_model, list_variants

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


@pytest.mark.slow
def test_the_quickstart_runs_as_it_stands_but_for_its_epochs(tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    code, changes = re.subn(r'"epochs": \d+', '"epochs": 1', code)
    assert changes == 2
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    assert {"fused_accuracy", "val_fused_agreement"} <= set(
        names["distiller"].history.history
    )
    served = tf.saved_model.load("saved_models/quickstart/1").signatures["pixels"]
    answer = served(pixels=tf.zeros((1, 32, 32, 3), tf.uint8))
    assert answer["top_k_labels"].shape == (1, 5)


def test_a_distilled_model_compiles_in_plain_keras_as_the_readme_says():
    model = create_model("deit_micro_distilled_patch4_32", num_classes=3)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss={"class": loss, "distillation": None})
    x = np.zeros((4, 32, 32, 3), "float32")
    with pytest.warns(UserWarning, match="distillation_head"):
        history = model.fit(x, np.eye(3, dtype="float32")[[0, 1, 2, 0]], verbose=0)
    assert np.isfinite(history.history["loss"][0])


@pytest.mark.parametrize("page", ["README.md", "BUILD.md", "docs/ARCHITECTURE.md"])
def test_what_a_page_names_exists(page):
    text = (ROOT / page).read_text()
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        if not link.startswith("http"):
            assert ((ROOT / page).parent / link).exists(), link
    recipes = {path.stem for path in (ROOT / "trainers/recipes").glob("*.py")}
    assert set(re.findall(r"--recipe=(\w+)(?![\w/])\s", text)) <= recipes
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"`?make ([a-z-]+)`", text)) <= targets
    for name in re.findall(r"\b(?:deit|evit|vit|t2t_vit|regnety)_\w*\d\b", text):
        assert name in list_variants(), name
