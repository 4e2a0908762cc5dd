import gc

import keras
import pytest

from keras_deit.models.complexity import count_macs, count_parameters
from keras_deit.models.factory import build_model
from keras_deit.models.variants import VARIANTS, list_variants

# Written here a second time, so that an edit of the table is noticed.
PUBLISHED_PARAMETERS = {
    "deit_tiny_patch16_224": 5_717_416,
    "deit_small_patch16_224": 22_050_664,
    "deit_base_patch16_224": 86_567_656,
    "deit_tiny_distilled_patch16_224": 5_910_800,
    "deit_small_distilled_patch16_224": 22_436_432,
    "deit_base_distilled_patch16_224": 87_338_192,
    "deit_base_patch16_384": 86_859_496,
    "deit_base_distilled_patch16_384": 87_630_032,
    "regnety_002": 3_162_996,
    "regnety_004": 4_344_144,
    "regnety_006": 6_055_160,
    "regnety_008": 6_263_168,
    "regnety_016": 11_202_430,
    "regnety_032": 19_436_338,
    "regnety_040": 20_646_656,
    "regnety_080": 39_180_068,
    "regnety_120": 51_822_544,
    "regnety_160": 83_590_140,
}
PUBLISHED_GMACS = {
    "deit_tiny_patch16_224": 1.254,
    "deit_small_patch16_224": 4.599,
    "deit_base_patch16_224": 17.564,
    "deit_tiny_distilled_patch16_224": 1.261,
    "deit_small_distilled_patch16_224": 4.624,
    "deit_base_distilled_patch16_224": 17.657,
    "deit_base_patch16_384": 55.484,
    "deit_base_distilled_patch16_384": 55.591,
    "regnety_002": 0.1995,
    "regnety_004": 0.4018,
    "regnety_006": 0.6012,
    "regnety_008": 0.7972,
    "regnety_040": 3.973,
    "regnety_080": 7.963,
    "regnety_120": 12.092,
    "regnety_160": 15.912,
}
OURS = {
    "deit_micro_patch4_32",
    "deit_micro_distilled_patch4_32",
    "regnety_micro_32",
}


@pytest.fixture
def fresh_keras():
    """Frees the model of a test: the large ones add up."""
    yield
    keras.backend.clear_session()
    gc.collect()


@pytest.mark.parametrize("name", VARIANTS)
def test_has_the_size_of_the_table(name, fresh_keras):
    variant = VARIANTS[name]
    model = build_model(name)
    assert model.name == name
    assert count_parameters(model) == variant.num_parameters
    if variant.gmacs is not None:
        assert count_macs(model) / 1e9 == pytest.approx(variant.gmacs, rel=0.005)
    assert model.input_shape == (None, *variant.config.image_size, 3)
    outputs = keras.tree.flatten(model.output)
    assert {output.shape for output in outputs} == {(None, 1000)}


def test_the_table_has_the_published_sizes():
    parameters = {
        name: variant.num_parameters
        for name, variant in VARIANTS.items()
        if name not in OURS
    }
    assert parameters == PUBLISHED_PARAMETERS
    gmacs = {
        name: variant.gmacs
        for name, variant in VARIANTS.items()
        if name not in OURS and variant.gmacs is not None
    }
    assert gmacs == PUBLISHED_GMACS


@pytest.mark.parametrize("name", VARIANTS)
def test_says_its_source_and_has_the_classes_of_imagenet(name):
    variant = VARIANTS[name]
    assert variant.source
    assert variant.config.num_classes == 1000
    assert getattr(variant.config, "distilled", False) == ("distilled" in name)
    assert str(variant.config.image_size[0]) in name or name.startswith("regnety_")


def test_lists_all_names_in_order():
    assert list_variants() == sorted(VARIANTS)
    assert len(list_variants()) == len(PUBLISHED_PARAMETERS) + len(OURS)


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("deit_tiny_*", ["deit_tiny_distilled_patch16_224", "deit_tiny_patch16_224"]),
        ("regnety_1?0", ["regnety_120", "regnety_160"]),
        ("regnety_160", ["regnety_160"]),
        ("*_384", ["deit_base_distilled_patch16_384", "deit_base_patch16_384"]),
        ("regnety", []),
        ("DEIT_*", []),
    ],
)
def test_lists_the_names_that_match_a_pattern(pattern, names):
    assert list_variants(pattern) == names
