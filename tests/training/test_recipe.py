import json
import re
from dataclasses import fields, replace

import pytest

from keras_deit.training.recipe import Recipe, recipe_from_dict, recipe_from_json
from keras_deit.training.recipe_rules import RULES

VARIANT = "deit_micro_patch4_32"


def recipe(**changes):
    return Recipe(**{"variant": VARIANT, "dataset": "digits", **changes})


def test_the_peak_is_the_rate_scaled_to_the_batch():
    # 5e-4 for 512 images are 1e-3 for 1024.
    assert recipe(batch_size=1024).peak_learning_rate == pytest.approx(1e-3)
    assert recipe(batch_size=128).peak_learning_rate == pytest.approx(1.25e-4)


def test_without_a_batch_to_scale_to_the_peak_is_the_rate():
    unscaled = recipe(batch_size=128, learning_rate_batch=None)
    assert unscaled.peak_learning_rate == 5e-4


def test_a_recipe_is_written_and_read_as_json():
    written = recipe(
        crop_area=(0.5, 1.0),
        flip=False,
        model_overrides={"depth": 2, "drop_path_rate": 0.1},
        kind="soft",
        temperature=3.0,
        teacher="teacher.keras",
        learning_rate_batch=None,
    )
    text = written.to_json()
    assert text.endswith("}\n")
    assert list(json.loads(text)) == [field.name for field in fields(Recipe)]
    read = recipe_from_json(text)
    assert read == written
    assert read.crop_area == (0.5, 1.0)  # a tuple again
    assert isinstance(read.crop_aspect_ratio, tuple)


def test_what_is_not_said_has_the_defaults_of_the_paper():
    read = recipe_from_json(f'{{"variant": "{VARIANT}", "dataset": "digits"}}')
    assert read == recipe()
    assert (read.epochs, read.batch_size, read.weight_decay) == (300, 1024, 0.05)
    assert (read.label_smoothing, read.warmup_epochs, read.kind) == (0.1, 5, "none")


def test_every_field_has_a_rule():
    assert set(RULES) == {field.name for field in fields(Recipe)}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("variant", "deit_micro"),
        ("dataset", ""),
        ("dataset", 3),
        ("image_size", 0),
        ("image_size", 32.0),
        ("crop_area", (0.0, 1.0)),
        ("crop_area", (0.9, 0.5)),
        ("crop_area", (0.5, 1.1)),
        ("crop_area", (0.5,)),
        ("crop_area", 0.5),
        ("crop_aspect_ratio", (0.0, 1.0)),
        ("crop_aspect_ratio", (2.0, 1.0)),
        ("flip", 1),
        ("rand_augment", ""),
        ("rand_augment", 9),
        ("color_jitter", "much"),
        ("erasing", 1.5),
        ("erasing", None),
        ("augment", 3),
        ("mixup", -0.1),
        ("cutmix", "1"),
        ("mix_probability", 1.1),
        ("mix_switch_probability", -0.1),
        ("repeats", 0),
        ("optimizer", "adam"),
        ("momentum", 1.0),
        ("schedule", "step"),
        ("layer_decay", 0.0),
        ("clip_norm", 0.0),
        ("ema_decay", 1.0),
        ("early_stop_epochs", 0),
        ("weights", ""),
        ("train_mode", 1),
        ("head_epochs", -1),
        ("cooldown_epochs", -1),
        ("keep_rate_start_epoch", -1),
        ("keep_rate_ramp_epochs", 0.5),
        ("keep_rate_stages", 0),
        ("teacher", ""),
        ("teacher_classes", ()),
        ("teacher_classes", (0.5,)),
        ("label_smoothing", -0.1),
        ("label_smoothing", "much"),
        ("model_overrides", [3]),
        ("epochs", 0),
        ("epochs", True),
        ("epochs", 1.5),
        ("batch_size", 0),
        ("batch_size", "32"),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("learning_rate_batch", 0),
        ("warmup_epochs", -1),
        ("warmup_learning_rate", -1e-6),
        ("min_learning_rate", -1e-6),
        ("weight_decay", -0.05),
        ("kind", "medium"),
        ("kind", []),
        ("alpha", 1.5),
        ("temperature", 0),
        ("reduction", "mean"),
        ("seed", 0.5),
    ],
)
def test_a_value_that_is_no_good_is_refused(name, value):
    message = f"^`{name}` must be .*\\. Received: {name}={re.escape(repr(value))}\\.$"
    with pytest.raises(ValueError, match=message):
        recipe(**{name: value})


def test_all_faults_are_listed_together():
    with pytest.raises(ValueError) as raised:
        recipe(epochs=0, alpha=2, kind="medium")
    assert str(raised.value).splitlines() == [
        "`epochs` must be a whole number of at least 1. Received: epochs=0.",
        "`kind` must be one of ['none', 'soft', 'hard']. Received: kind='medium'.",
        "`alpha` must be in [0, 1]. Received: alpha=2.",
    ]


def test_faults_of_the_views_are_among_them():
    with pytest.raises(ValueError) as raised:
        recipe(epochs=0, crop_area=(0.9, 0.5))
    names = [
        line.partition("`")[2].partition("`")[0]
        for line in str(raised.value).splitlines()
    ]
    assert sorted(names) == ["crop_area", "epochs"]


def test_an_augmentation_and_a_mixing_are_made_of_its_fields():
    made = recipe(crop_area=(0.5, 1.0), erasing=0.1, mixup=0.4, cutmix=0.0)
    assert made.augmentation.crop_area == (0.5, 1.0)
    assert made.augmentation.rand_augment == "rand-m9-mstd0.5-inc1"
    assert made.augmentation.erasing == 0.1
    assert (made.mixing.mixup, made.mixing.cutmix) == (0.4, 0.0)
    assert recipe(mixup=0.0, cutmix=0.0).mixing is None
    assert recipe(mix_probability=0.0).mixing is None


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"head_epochs": 300}, "`head_epochs` must be less than `epochs`."),
        (
            {"keep_rate_start_epoch": 200, "keep_rate_ramp_epochs": 100},
            "`keep_rate_start_epoch` + `keep_rate_ramp_epochs` must be less than",
        ),
        (
            {"warmup_epochs": 290, "cooldown_epochs": 10},
            "`warmup_epochs` + `cooldown_epochs` must be less than `epochs`.",
        ),
    ],
)
def test_phases_that_do_not_fit_into_the_epochs_are_refused(changes, rule):
    with pytest.raises(ValueError, match=re.escape(rule)):
        recipe(**changes)


def test_over_keeps_the_share_of_every_phase():
    long = recipe(head_epochs=30, keep_rate_start_epoch=60, keep_rate_ramp_epochs=150)
    short = long.over(10)
    assert (short.head_epochs, short.keep_rate_start_epoch) == (1, 2)
    assert short.keep_rate_ramp_epochs == 5
    one = long.over(1)
    assert (one.head_epochs, one.keep_rate_start_epoch) == (0, 0)
    assert one.keep_rate_ramp_epochs == 0


def test_networks_of_keras_are_variants_too():
    assert recipe(variant="keras:ResNet50").variant == "keras:ResNet50"
    with pytest.raises(ValueError, match="`variant` must be one of"):
        recipe(variant="keras:ResNet5")


def test_a_change_of_a_recipe_is_checked_too():
    with pytest.raises(ValueError, match="`epochs` must be a whole number"):
        replace(recipe(), epochs=0)


def test_unknown_and_missing_fields_are_listed_together():
    with pytest.raises(ValueError) as raised:
        recipe_from_dict({"variant": VARIANT, "epoch": 3, "xyzzy": 1})
    assert sorted(str(raised.value).splitlines()) == [
        "A recipe has no field 'epoch'. Did you mean 'epochs'?",
        "A recipe has no field 'xyzzy'.",
        "A recipe needs the field 'dataset'.",
    ]
    with pytest.raises(ValueError, match="needs the field 'variant'"):
        recipe_from_dict({"dataset": "digits"})


def test_a_refused_value_in_json_is_refused():
    text = json.dumps({"variant": VARIANT, "dataset": "digits", "crop_area": [1, 0]})
    with pytest.raises(ValueError, match=r"Received: crop_area=\(1, 0\)"):
        recipe_from_json(text)


def test_what_is_no_json_is_refused():
    with pytest.raises(ValueError, match=r"A recipe must be JSON: .* line 1 column 2"):
        recipe_from_json("{variant}")


@pytest.mark.parametrize("text", ['["variant"]', "3", "null"])
def test_json_that_is_no_object_is_refused(text):
    message = "A recipe must be a JSON object. Received: " + repr(text)
    with pytest.raises(ValueError, match=re.escape(message)):
        recipe_from_json(text)


def test_another_number_of_epochs_keeps_the_share_of_the_warm_up():
    recipe = Recipe("regnety_002", "digits", epochs=100, warmup_epochs=5)
    assert recipe.over(20) == replace(recipe, epochs=20, warmup_epochs=1)


@pytest.mark.parametrize("name", ["warmup_learning_rate", "min_learning_rate"])
def test_rates_above_the_peak_are_refused(name):
    rule = rf"`{name}` must be at most the peak learning rate\. Received: {name}=0\.1"
    with pytest.raises(ValueError, match=rule):
        Recipe("regnety_002", "digits", **{name: 0.1})
