from dataclasses import FrozenInstanceError

import keras
import numpy as np
import pytest

from keras_deit.models.factory import build_model
from keras_deit.models.inference import inference_model
from keras_deit.models.preprocessing import (
    IMAGENET,
    WHOLE_IMAGE,
    Preprocessing,
    normalize_pixels,
    preprocessing_of,
)
from keras_deit.models.variants import VARIANTS


def test_imagenet_has_the_numbers_of_the_official_code():
    assert IMAGENET.mean == (0.485, 0.456, 0.406)
    assert IMAGENET.std == (0.229, 0.224, 0.225)
    assert IMAGENET.crop_ratio == 0.875


def test_a_whole_image_is_not_cropped():
    assert WHOLE_IMAGE.mean == WHOLE_IMAGE.std == (0.5, 0.5, 0.5)
    assert WHOLE_IMAGE.crop_ratio == 1.0


def published(name):
    """What the published weights of a variant expect; ours take small images whole."""
    if "micro" in name:
        return WHOLE_IMAGE
    if name.startswith("vit_") and "depth8" not in name:  # those of "augreg"
        crop_ratio = 1.0 if name.endswith("384") else 0.9
        return Preprocessing((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), crop_ratio)
    crop_ratio = 0.875
    if name.startswith("t2t_") or "depth8" in name:
        crop_ratio = 0.9
    if name in ("regnety_032", "regnety_040", "regnety_080", "regnety_160"):
        crop_ratio = 0.95
    return Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), crop_ratio)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_expects_what_its_published_weights_do(name):
    assert VARIANTS[name].config.preprocessing == published(name)


@pytest.mark.parametrize("name", ["deit_micro_patch4_32", "regnety_micro_32"])
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"mean": (0.1, 0.2, 0.3)}, Preprocessing((0.1, 0.2, 0.3), (0.5,) * 3, 1.0)),
        ({"std": [0.1, 0.2, 0.3]}, Preprocessing((0.5,) * 3, (0.1, 0.2, 0.3), 1.0)),
        ({"crop_ratio": 0.9}, Preprocessing((0.5,) * 3, (0.5,) * 3, 0.9)),
    ],
)
def test_one_number_of_a_variant_can_be_changed(name, change, expected):
    assert preprocessing_of(build_model(name, 3, depth=1, **change)) == expected


def test_refuses_a_crop_ratio_that_is_no_share():
    with pytest.raises(ValueError, match="`crop_ratio` must be in .*crop_ratio=1.5"):
        build_model("deit_micro_patch4_32", 3, depth=0, crop_ratio=1.5)


def test_becomes_the_first_layer_of_a_model():
    layer = normalize_pixels(Preprocessing((0.5,) * 3, (0.25,) * 3, 0.9), "bfloat16")
    assert layer.name == "pixel_normalization"
    assert layer.compute_dtype == "bfloat16"
    # (255 / 255 - 0.5) / 0.25
    output = layer(np.full((1, 1, 1, 3), 255.0))
    np.testing.assert_array_equal(keras.ops.cast(output, "float32"), [[[[2.0] * 3]]])


@pytest.mark.parametrize(
    "name", ["deit_micro_patch4_32", "t2t_vit_micro_32", "regnety_micro_32"]
)
def test_a_model_remembers_what_it_expects(name):
    expected = Preprocessing((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 0.9)
    model = build_model(name, num_classes=3, depth=1, preprocessing=expected)
    assert preprocessing_of(model) == expected
    twin = keras.Model.from_config(model.get_config())
    assert preprocessing_of(twin) == expected
    assert preprocessing_of(inference_model(model)) == expected


def test_a_foreign_model_is_assumed_to_take_pixels_as_they_are():
    model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten()])
    preprocessing = preprocessing_of(model)
    assert preprocessing.crop_ratio == 1.0
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 4, 4, 3)).astype("float32")
    normalized = normalize_pixels(preprocessing)(pixels)
    np.testing.assert_allclose(normalized, pixels, rtol=1e-6)


def test_cannot_be_changed_behind_a_variant():
    with pytest.raises(FrozenInstanceError, match="crop_ratio"):
        IMAGENET.crop_ratio = 1.0
