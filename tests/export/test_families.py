import json

import numpy as np
import pytest

from keras_deit.export.edge import tflite
from keras_deit.export.serving import saved_model
from keras_deit.models.reorganization import with_keep_rate
from keras_deit.weights.create import create_model

FAMILIES = {
    "plain": ("deit_micro_patch4_32", {}),
    "distilled": ("deit_micro_distilled_patch4_32", {}),
    "t2t_performer": ("t2t_vit_micro_32", {}),
    "t2t_transformer": ("t2t_vit_micro_32", {"attention": "transformer"}),
    "evit_fused": ("deit_micro_patch4_32", {"keep_rate": 0.7}),
    "evit_not_fused": ("deit_micro_patch4_32", {"keep_rate": 0.7, "fuse": False}),
    "evit_distilled": ("deit_micro_distilled_patch4_32", {"keep_rate": 0.7}),
    "evit_t2t": ("t2t_vit_micro_32", {"keep_rate": 0.7}),
    "regnety": ("regnety_micro_32", {}),
}
SERVED = ("distilled", "t2t_performer", "evit_t2t", "regnety")


@pytest.fixture
def images():
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (40, 50, 3), np.uint8) for _ in range(6)]


def model_of(family):
    """A model whose weights are large enough to tell its answers apart."""
    name, overrides = FAMILIES[family]
    model = create_model(name, num_classes=5, **overrides)
    random = np.random.default_rng(1)
    for weight in model.trainable_weights:
        weight.assign(weight + 0.05 * random.normal(size=weight.shape))
    return model


def largest_difference(certificate):
    trials = certificate["signatures"].values()
    return max(trial["comparison"]["max_difference"] for trial in trials)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_the_smallest_of_each_family_runs_on_the_edge(family, tmp_path, images):
    path = tmp_path / "model.tflite"
    tflite(model_of(family), path, "float32", images=images)
    certificate = json.loads(path.with_suffix(".certificate.json").read_text())
    assert largest_difference(certificate) <= 1e-4
    assert not [name for name in certificate["operators"] if name.startswith("Flex")]
    assert ("TOPK_V2" in certificate["operators"]) == family.startswith("evit")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "precision", "most"),
    [
        ("plain", "float16", 0.01),
        ("t2t_performer", "dynamic_int8", 0.1),
        ("t2t_performer", "int8", 0.2),
        ("regnety", "int8", 0.2),
    ],
)
def test_fewer_bits_answer_nearly_the_same(family, precision, most, tmp_path, images):
    path = tmp_path / "model.tflite"
    options = {"calibration_images": images} if precision == "int8" else {}
    tflite(model_of(family), path, precision, images=images, min_agreement=0, **options)
    certificate = json.loads(path.with_suffix(".certificate.json").read_text())
    (trial,) = certificate["signatures"].values()
    assert 1e-6 < trial["comparison"]["relative_difference"] < most


@pytest.mark.slow
def test_a_dial_in_int8_has_one_file(tmp_path, images):
    path = tmp_path / "model.tflite"
    tflite(
        model_of("evit_fused"),
        path,
        "int8",
        images=images,
        keep_rates=(1.0, 0.5),
        calibration_images=images,
    )
    certificate = json.loads(path.with_suffix(".certificate.json").read_text())
    trials = certificate["signatures"]
    rates = {name: trial["keep_rate"] for name, trial in trials.items()}
    assert rates == {"serving_default": None, "keep_100": 1.0, "keep_50": 0.5}
    selection = certificate["token_selection_agreement"]
    assert set(selection) == {"serving_default", "keep_50"}
    assert all(0.8 < share <= 1 for shares in selection.values() for share in shares)


@pytest.mark.slow
@pytest.mark.parametrize("family", SERVED)
def test_a_model_of_each_family_can_be_served(family, tmp_path, images):
    path = saved_model(model_of(family), tmp_path / "served", images=images)
    certificate = json.loads((path / "certificate.json").read_text())
    assert largest_difference(certificate) <= 1e-4


@pytest.mark.slow
def test_a_dialled_model_is_exported_at_its_rate(tmp_path, images):
    model = with_keep_rate(model_of("plain"), 0.5)
    path = tmp_path / "model.tflite"
    tflite(model, path, "float32", images=images)
    certificate = json.loads(path.with_suffix(".certificate.json").read_text())
    assert "TOPK_V2" in certificate["operators"]
