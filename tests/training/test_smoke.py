from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_deit.data.sources import load_source
from keras_deit.training.recipe import Recipe
from keras_deit.training.smoke import smoke
from keras_deit.weights.create import create_model

LARGE = Recipe(
    variant="deit_base_patch16_224",
    dataset="imagenet2012",
    model_overrides={"drop_path_rate": 0.1},
    repeats=3,
    schedule="late_epochs",
    ema_decay=0.99996,
    layer_decay=0.7,
    clip_norm=1.0,
    crop_area=(0.3, 0.9),
    kind="soft",
    alpha=0.1,
    temperature=3.0,
    teacher="large.keras",
)


load_once = cache(load_source)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """The digits are decompressed once for all tests."""
    monkeypatch.setattr("keras_deit.training.smoke.load_source", load_once)


def changes(before, after):
    before, after = asdict(before), asdict(after)
    return {name: after[name] for name in before if after[name] != before[name]}


def test_a_recipe_becomes_small_and_does_the_same(tmp_path):
    # The peak was 5e-4 x 1024 / 512.
    assert changes(LARGE, smoke(LARGE, tmp_path)) == {
        "variant": "deit_micro_patch4_32",
        "dataset": str(tmp_path / "digits"),
        "image_size": 32,
        "model_overrides": {"depth": 2, "drop_path_rate": 0.1},
        "epochs": 3,
        "batch_size": 48,
        "learning_rate": 1e-3,
        "learning_rate_batch": None,
        "warmup_epochs": 1,
        "teacher": str(tmp_path / "teacher.keras"),
    }


@pytest.mark.parametrize(
    ("variant", "overrides", "small", "features"),
    [
        ("evit_tiny_patch16_224", {}, "deit_micro_patch4_32", {"keep_rate": 0.7}),
        (
            "deit_small_distilled_patch16_224",
            {"keep_rate": 0.5, "reorganize_at": (3, 9), "fuse": False},
            "deit_micro_patch4_32",
            {"distilled": True, "keep_rate": 0.5, "fuse": False},
        ),
        ("vit_base_patch32_384", {"drop_rate": 0.1}, "deit_micro_patch4_32", None),
        ("t2t_vit_14", {"distilled": True}, "t2t_vit_micro_32", None),
        ("t2t_vit_t_24", {}, "t2t_vit_micro_32", {"attention": "transformer"}),
        ("regnety_160", {"dtype": "mixed_bfloat16"}, "regnety_micro_32", None),
    ],
)
def test_what_a_model_does_stays_and_its_size_goes(
    variant, overrides, small, features, tmp_path
):
    recipe = Recipe(variant, "cifar10", model_overrides=overrides)
    shrunk = smoke(recipe, tmp_path)
    features = overrides if features is None else features
    assert shrunk.variant == small
    assert shrunk.model_overrides == {"depth": 2, **features}
    create_model(shrunk.variant, 10, shrunk.image_size, **shrunk.model_overrides)


def test_a_network_of_keras_becomes_its_smallest(tmp_path):
    shrunk = smoke(Recipe("keras:ResNet50", "cifar10", image_size=224), tmp_path)
    assert (shrunk.variant, shrunk.image_size) == ("keras:MobileNet", 32)
    assert shrunk.model_overrides == {}


def test_a_phase_that_there_is_lasts_an_epoch_at_most(tmp_path):
    recipe = Recipe(
        "evit_small_patch16_224",
        "cifar10",
        weights="pretrained",
        head_epochs=20,
        warmup_epochs=0.5,
        cooldown_epochs=10,
        keep_rate_start_epoch=30,
        keep_rate_ramp_epochs=100,
    )
    shrunk = smoke(recipe, tmp_path)
    assert (shrunk.head_epochs, shrunk.warmup_epochs) == (1, 0.5)
    assert shrunk.cooldown_epochs == 1
    assert (shrunk.keep_rate_start_epoch, shrunk.keep_rate_ramp_epochs) == (1, 1)
    none = smoke(Recipe("evit_small_patch16_224", "cifar10"), tmp_path)
    assert (none.head_epochs, none.cooldown_epochs) == (0, 0)
    assert (none.keep_rate_start_epoch, none.keep_rate_ramp_epochs) == (0, 0)


def test_a_rate_that_never_falls_is_possible_still(tmp_path):
    recipe = Recipe(
        "deit_base_patch16_224",
        "cifar10",
        batch_size=512,
        learning_rate=5e-6,
        min_learning_rate=5e-6,
    )
    shrunk = smoke(recipe, tmp_path)
    assert shrunk.peak_learning_rate == shrunk.min_learning_rate == 5e-6


@pytest.mark.parametrize(
    ("variant", "image_size", "shrunk"),
    [
        ("deit_base_patch16_224", None, 32),
        ("deit_base_patch16_224", 224, 32),
        ("deit_base_patch16_224", 384, 40),
        ("deit_base_patch16_384", 384, 32),
        ("keras:MobileNetV2", None, 32),
        ("keras:MobileNetV2", 96, 40),
    ],
)
def test_a_size_that_is_not_the_variants_stays_another_one(
    variant, image_size, shrunk, tmp_path
):
    recipe = Recipe(variant, "cifar10", image_size=image_size)
    assert smoke(recipe, tmp_path).image_size == shrunk


def test_the_images_are_a_few_of_the_digits(tmp_path):
    dataset = smoke(LARGE, tmp_path).dataset
    train, validation = (load_source(dataset, s) for s in ("train", "validation"))
    assert (train.num_examples, validation.num_examples) == (160, 40)
    assert train.class_names == tuple("0123456789")
    first = next(iter(load_source("digits", "all").in_order()))
    label = int(first["label"])
    path = Path(dataset) / str(label) / "00.png"
    picture = keras.utils.img_to_array(keras.utils.load_img(path))
    np.testing.assert_array_equal(picture, first["image"])


def test_weights_to_start_from_are_random_ones_of_the_plain_variant(tmp_path, capsys):
    recipe = Recipe(
        "deit_small_patch16_224",
        "imagenet2012",
        image_size=384,
        model_overrides={"keep_rate": 0.7},
        weights="pretrained",
    )
    shrunk = smoke(recipe, tmp_path)
    assert shrunk.weights == str(tmp_path / "start.keras")
    start = keras.models.load_model(shrunk.weights, compile=False)
    assert start.output_shape == (None, 20)
    assert start.get_layer("block_1").reorganization is None or (
        start.get_layer("block_1").reorganization.keep_rate == 1
    )
    student = create_model(
        shrunk.variant,
        10,
        shrunk.image_size,
        weights=shrunk.weights,
        **shrunk.model_overrides,
    )
    report = capsys.readouterr().err
    assert "resampled: position_embedding" in report
    assert "left fresh: class_head/kernel, class_head/bias\n" in report
    layers = (m.get_layer("block_0").mlp.fc1 for m in (student, start))
    kernels = [keras.ops.convert_to_numpy(layer.kernel) for layer in layers]
    np.testing.assert_array_equal(*kernels)


def test_without_weights_and_teacher_there_are_none(tmp_path):
    shrunk = smoke(replace(LARGE, kind="none", temperature=1.0, teacher=None), tmp_path)
    assert shrunk.weights is None
    assert shrunk.teacher is None
    assert {path.name for path in tmp_path.iterdir()} == {"digits"}


@pytest.mark.parametrize(
    "recipe",
    [replace(LARGE, teacher=None), replace(LARGE, kind="none", temperature=1.0)],
)
def test_there_is_a_teacher_if_one_is_needed_or_given(recipe, tmp_path):
    shrunk = smoke(recipe, tmp_path / "new" / "folder")
    teacher = keras.models.load_model(shrunk.teacher, compile=False)
    assert teacher.name == "regnety_micro_32"
    assert teacher.output_shape == (None, 10)
    assert shrunk.teacher_classes is None


def test_a_table_of_classes_stays_one(tmp_path):
    shrunk = smoke(replace(LARGE, teacher_classes=("tench", "goldfish")), tmp_path)
    assert shrunk.teacher_classes == tuple(range(10))
    teacher = keras.models.load_model(shrunk.teacher, compile=False)
    assert teacher.output_shape == (None, 12)


def test_is_the_same_each_time_and_says_nothing(tmp_path, capfd):
    recipe = replace(LARGE, weights="pretrained", seed=7)
    first = smoke(recipe, tmp_path)
    kept = {}
    for name in ("start.keras", "teacher.keras"):
        model = keras.models.load_model(tmp_path / name, compile=False)
        kept[name] = model.get_weights()
    keras.utils.set_random_seed(1)
    assert smoke(recipe, tmp_path) == first
    for name, weights in kept.items():
        model = keras.models.load_model(tmp_path / name, compile=False)
        for ours, theirs in zip(model.get_weights(), weights, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert capfd.readouterr() == ("", "")
