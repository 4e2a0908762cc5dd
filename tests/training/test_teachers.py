"""What a recipe says of a teacher becomes one."""

import json
from dataclasses import asdict, fields, replace

import numpy as np
import pytest

from keras_deit import create_model
from keras_deit.training.recipe import Recipe
from keras_deit.training.teachers import load_teacher, view_size, views_of
from tests.training.small_recipes import RECIPE, teacher_of

TEN = tuple("0123456789")
BLACK = np.zeros((1, 32, 32, 3))


def test_the_size_of_the_views_is_the_recipes_or_the_variants():
    assert view_size(RECIPE) == (32, 32)
    assert view_size(replace(RECIPE, image_size=40)) == (40, 40)
    assert view_size(replace(RECIPE, variant="deit_tiny_patch16_224")) == (224, 224)
    other = replace(RECIPE, variant="keras:MobileNet", model_overrides={})
    assert view_size(other) == (224, 224)


# What a cache is good for: exactly what decides views and batches.
DECIDING = {
    "image_size": 40,
    "crop_area": (0.5, 1.0),
    "crop_aspect_ratio": (0.9, 1.1),
    "flip": False,
    "rand_augment": "rand-m5-mstd0.5-inc1",
    "erasing": 0.5,
    "mixup": 0.1,
    "cutmix": 0.1,
    "mix_probability": 0.5,
    "mix_switch_probability": 0.1,
    "repeats": 2,
    "batch_size": 100,
    "seed": 7,
}
# Others that decide views only together with one of these, or say where images are.
BESIDE = {"augment", "color_jitter", "dataset"}


@pytest.mark.parametrize("name", sorted(DECIDING))
def test_what_decides_views_is_in_their_record(name):
    changed = replace(RECIPE, **{name: DECIDING[name]})
    assert views_of(changed) != views_of(RECIPE)


def test_nothing_else_is_in_their_record():
    others = {
        "variant": "deit_micro_distilled_patch4_32",
        "model_overrides": {},
        "weights": "pretrained",
        "train_mode": False,
        "head_epochs": 1,
        "label_smoothing": 0.0,
        "epochs": 30,
        "accumulate_steps": 2,
        "gradient_checkpointing": False,
        "precision": "mixed_float16",
        "jit_compile": True,
        "optimizer": "sgd",
        "momentum": 0.5,
        "learning_rate": 1e-3,
        "learning_rate_batch": None,
        "schedule": "epochs",
        "warmup_epochs": 1,
        "warmup_learning_rate": 0.0,
        "min_learning_rate": 0.0,
        "cooldown_epochs": 1,
        "weight_decay": 0.1,
        "layer_decay": 0.5,
        "clip_norm": 1.0,
        "ema_decay": 0.9,
        "early_stop_epochs": 3,
        "keep_rate_start_epoch": 1,
        "keep_rate_ramp_epochs": 1,
        "keep_rate_stages": 2,
        "kind": "hard",
        "alpha": 0.1,
        "temperature": 3.0,
        "reduction": "numel",
        "teacher": "a.keras",
        "teacher_weights": None,
        "teacher_image_size": 48,
        "teacher_precision": "mixed_bfloat16",
        "teacher_from_logits": False,
        "teacher_signature": "serve",
        "teacher_shares": None,
        "teacher_mean": "logits",
        "teacher_classes": (1, 2),
        "teacher_cache": "folder",
        "train_teacher": False,
        "teacher_learning_rate": None,
    }
    known = {f.name for f in fields(Recipe)}
    assert set(others) | set(DECIDING) | BESIDE == known
    changed = replace(RECIPE, **others | {"kind": "soft"})
    assert views_of(changed) == views_of(RECIPE)


def test_what_has_no_effect_is_left_out_of_their_record():
    unmixed = replace(RECIPE, mixup=0.0, cutmix=0.0)
    assert views_of(unmixed) == views_of(replace(unmixed, mix_probability=0.3))
    drawn = replace(RECIPE, rand_augment="rand-m9-mstd0.5-inc1")
    assert views_of(drawn) != views_of(replace(drawn, augment="keras-cv"))
    jittered = replace(RECIPE, color_jitter=0.3)
    assert views_of(jittered) != views_of(RECIPE)


def test_their_record_is_json():
    views = views_of(RECIPE)
    assert json.loads(json.dumps(views)) == views
    assert len(views) > len(asdict(RECIPE.augmentation))


def test_several_teachers_are_an_ensemble(tmp_path):
    recipes = []
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        recipes.append(teacher_of(folder, 10 + 2 * number))
    paths = tuple(recipe.teacher for recipe in recipes)
    table = (11, *range(9))  # of twelve classes; the first has ten
    with pytest.raises(ValueError, match="must be indices of the teacher's 10 classes"):
        load_teacher(replace(RECIPE, teacher=paths, teacher_classes=table), TEN)
    twice = replace(RECIPE, teacher=paths[1:] * 2, teacher_classes=table)
    weighed = replace(twice, teacher_shares=(3.0, 1.0), teacher_mean="probabilities")
    for recipe in (twice, weighed):
        assert np.argmax(load_teacher(recipe, TEN)(BLACK)) == 0
    assert load_teacher(twice, TEN).digest != load_teacher(weighed, TEN).digest


def test_a_teacher_is_used_at_another_size(tmp_path):
    path = str(tmp_path / "teacher.keras")
    create_model("regnety_micro_32", num_classes=10).save(path)
    recipe = replace(RECIPE, teacher=path, teacher_image_size=48)
    assert load_teacher(recipe, TEN).image_size == (48, 48)


def test_the_names_beside_a_saved_model_are_found(tmp_path):
    model = create_model("regnety_micro_32", num_classes=12)
    folder = tmp_path / "teacher"
    model.export(folder, verbose=False)
    (folder / "assets").mkdir(exist_ok=True)
    names = ["x", *"0123456978", "y"]
    (folder / "assets" / "labels.txt").write_text("\n".join(names) + "\n")
    teacher = load_teacher(replace(RECIPE, teacher=str(folder)), TEN)
    assert teacher.classes == [1, 2, 3, 4, 5, 6, 7, 9, 10, 8]


def test_a_variant_is_a_teacher_with_its_weights_or_learns_the_classes(tmp_path):
    path = tmp_path / "weights.keras"
    create_model("regnety_micro_32", num_classes=1000).save(path)
    recipe = replace(RECIPE, teacher="regnety_micro_32", teacher_weights=str(path))
    table = tuple(range(990, 1000))
    teacher = load_teacher(replace(recipe, teacher_classes=table), TEN)
    assert teacher.classes == list(table)
    with pytest.raises(ValueError, match="needs all of its weights"):
        load_teacher(recipe, TEN)  # which has a thousand classes
    ours = tmp_path / "ours.keras"
    create_model("regnety_micro_32", num_classes=10).save(ours)
    assert load_teacher(replace(recipe, teacher_weights=str(ours)), TEN).classes is None
    learns = replace(recipe, train_teacher="head")
    assert load_teacher(learns, TEN).num_classes == 10
    fresh = replace(recipe, train_teacher=True, teacher_weights="random")
    assert load_teacher(fresh, TEN).num_classes == 10
