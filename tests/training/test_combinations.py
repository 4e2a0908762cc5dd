"""The papers' ideas together: each trains, is saved, goes on, and is exported."""

from dataclasses import replace

import keras
import numpy as np
import pytest

import keras_deit
from keras_deit import create_model
from keras_deit.data.sources import load_source
from keras_deit.training.history import CSV
from keras_deit.training.report import read_history
from keras_deit.training.run import train
from tests.training.small_recipes import RECIPE
from tests.training.test_resume import KilledError, killed_after

pytestmark = pytest.mark.slow

SMALL = replace(
    RECIPE,
    variant="deit_micro_distilled_patch4_32",
    mixup=0.0,
    cutmix=0.0,
    epochs=2,
    warmup_epochs=1,
    batch_size=240,  # five steps an epoch
    kind="hard",
)
T2T = {"variant": "t2t_vit_micro_32"}
SIZE = {"depth": 2, "drop_path_rate": 0.1}
KEEP = {"keep_rate": 0.7, "reorganize_at": [0]}
TOKEN = {"distilled": True}

COMBINATIONS = {
    "token and EViT": {"model_overrides": SIZE | KEEP},
    "token and T2T": T2T | {"model_overrides": SIZE | TOKEN},
    "EViT and T2T": T2T | {"model_overrides": SIZE | KEEP, "kind": "none"},
    "token, EViT and T2T": T2T | {"model_overrides": SIZE | KEEP | TOKEN},
    "one head, hard": {"variant": "deit_micro_patch4_32", "model_overrides": SIZE},
    "one head, soft": {
        "variant": "deit_micro_patch4_32",
        "model_overrides": SIZE,
        "kind": "soft",
        "temperature": 3.0,
    },
    "two teachers": {"model_overrides": SIZE, "teacher_mean": "probabilities"},
    "a teacher that learns": {"model_overrides": SIZE, "train_teacher": True},
    "a head that learns": {"model_overrides": SIZE, "train_teacher": "head"},
}


def one(teachers):
    return teachers[0]


TEACHERS = {"EViT and T2T": lambda teachers: None, "two teachers": lambda both: both}


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    folder, paths = tmp_path_factory.mktemp("teachers"), []
    for seed in (1, 2):
        keras.utils.set_random_seed(seed)
        paths.append(str(folder / f"{seed}.keras"))
        create_model("regnety_micro_32", num_classes=10).save(paths[-1])
    return tuple(paths)


@pytest.fixture(scope="module")
def digits():
    examples = load_source("digits", "validation").in_order().take(8)
    pixels = np.stack([e["image"] for e in examples.as_numpy_iterator()])
    return keras.ops.image.resize(pixels, (32, 32)).numpy().round().astype("uint8")


@pytest.mark.parametrize("name", COMBINATIONS)
def test_together_they_train_go_on_and_are_exported(
    tmp_path, monkeypatch, capsys, teachers, digits, name
):
    fields = COMBINATIONS[name]
    recipe = replace(SMALL, teacher=TEACHERS.get(name, one)(teachers), **fields)
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        killed_after(patch, 7)
        train(recipe, tmp_path / "run", checkpoint_steps=2)
    result = train(recipe, tmp_path / "run")
    assert "Going on with epoch 2, step 2." in capsys.readouterr().out
    for column, values in read_history(tmp_path / "run" / CSV).items():
        assert len(values) == 2, column
        assert np.isfinite(values).all(), column
    assert (tmp_path / "run" / "teacher.keras").exists() is bool(recipe.train_teacher)

    model = keras.models.load_model(tmp_path / "run" / "last.keras")
    heads = {"class", "distillation", "fused"}
    assert set(result.scores) == (
        heads if isinstance(model.output, dict) else {"class"}
    )
    keras_deit.export.saved_model(model, tmp_path / "served", images=digits)
    keras_deit.export.tflite(model, tmp_path / "edge.tflite", images=digits)
    assert (tmp_path / "edge.tflite").exists()


@pytest.mark.parametrize("teacher_image_size", [None, 40])
def test_a_distilled_student_is_fine_tuned_at_another_size(
    tmp_path, teachers, teacher_image_size
):
    """The paper's way from 224 to 384, which the official code refuses."""
    start = create_model("deit_micro_distilled_patch4_32", num_classes=10, **SIZE)
    start.save(tmp_path / "start.keras")
    recipe = replace(
        SMALL,
        model_overrides=SIZE,
        weights=str(tmp_path / "start.keras"),
        image_size=40,
        train_mode=False,
        epochs=1,
        warmup_epochs=0,
        teacher=teachers[0],
        teacher_image_size=teacher_image_size,
    )
    result = train(recipe, tmp_path / "run")
    positions = result.model.get_layer("position_embedding")
    assert tuple(positions.weights[0].shape) == (1, 2 + 100, 64)
    history = (tmp_path / "run" / "history.csv").read_text().splitlines()
    values = dict(zip(history[0].split(","), history[1].split(","), strict=True))
    assert np.isfinite(float(values["distillation_loss"]))
    assert float(values["val_fused_agreement"]) > 0
