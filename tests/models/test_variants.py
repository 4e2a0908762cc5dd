import gc
import math
from dataclasses import replace

import keras
import pytest
import tensorflow as tf

from keras_deit.models.complexity import count_macs, count_parameters
from keras_deit.models.encoder import reorganizing_blocks
from keras_deit.models.factory import options_of
from keras_deit.models.regnet import RegNetConfig
from keras_deit.models.t2t_vit import T2TViTConfig
from keras_deit.models.variants import VARIANTS, list_variants
from keras_deit.models.vision_transformer import ViTConfig
from tests.models.arithmetic import transformer_macs
from tests.models.weightless import weightless

# Parameters, and multiply-adds in billions where they are published. Written here a
# second time, so that an edit of the table is noticed.
PUBLISHED = {
    "deit_tiny_patch16_224": (5_717_416, 1.254),
    "deit_small_patch16_224": (22_050_664, 4.599),
    "deit_base_patch16_224": (86_567_656, 17.564),
    "deit_tiny_distilled_patch16_224": (5_910_800, 1.261),
    "deit_small_distilled_patch16_224": (22_436_432, 4.624),
    "deit_base_distilled_patch16_224": (87_338_192, 17.657),
    "deit_base_patch16_384": (86_859_496, 55.484),
    "deit_base_distilled_patch16_384": (87_630_032, 55.591),
    "evit_tiny_patch16_224": (5_717_416, None),
    "evit_small_patch16_224": (22_050_664, 3.029),
    "evit_base_patch16_224": (86_567_656, 11.61),
    "t2t_vit_7": (4_310_222, 1.147),
    "t2t_vit_10": (5_889_230, 1.516),
    "t2t_vit_12": (6_941_902, 1.763),
    "t2t_vit_14": (21_545_550, 4.783),
    "t2t_vit_19": (39_177_422, 8.480),
    "t2t_vit_24": (64_105_934, 13.662),
    "t2t_vit_t_14": (21_541_070, 6.089),
    "t2t_vit_t_19": (39_172_942, 9.785),
    "t2t_vit_t_24": (64_101_454, 14.967),
    "vit_tiny_patch16_224": (5_717_416, 1.254),
    "vit_small_patch16_224": (22_050_664, 4.599),
    "vit_small_depth8_patch16_224": (48_754_408, None),
    "vit_base_patch16_224": (86_567_656, 17.564),
    "vit_base_patch16_384": (86_859_496, 55.484),
    "vit_base_patch32_224": (88_224_232, None),
    "vit_base_patch32_384": (88_297_192, None),
    "vit_large_patch16_224": (304_326_632, None),
    "vit_large_patch16_384": (304_715_752, None),
    "vit_large_patch32_224": (306_535_400, None),
    "vit_large_patch32_384": (306_632_680, None),
    "regnety_002": (3_162_996, 0.1995),
    "regnety_004": (4_344_144, 0.4018),
    "regnety_006": (6_055_160, 0.6012),
    "regnety_008": (6_263_168, 0.7972),
    "regnety_016": (11_202_430, None),
    "regnety_032": (19_436_338, None),
    "regnety_040": (20_646_656, 3.973),
    "regnety_080": (39_180_068, 7.963),
    "regnety_120": (51_822_544, 12.092),
    "regnety_160": (83_590_140, 15.912),
}
TRAINABLE_PARAMETERS = {
    "t2t_vit_7": 4_255_694,
    "t2t_vit_10": 5_834_702,
    "t2t_vit_12": 6_887_374,
    "t2t_vit_14": 21_465_806,
    "t2t_vit_19": 39_085_070,
    "t2t_vit_24": 64_000_974,
    "t2t_vit_t_14": 21_465_422,
}
OURS = {
    "deit_micro_patch4_32": (272_424, 0.0152),
    "deit_micro_distilled_patch4_32": (337_552, 0.0155),
    "t2t_vit_micro_32": (259_518, 0.0160),
    "regnety_micro_32": (272_468, 0.0062),
}
TRANSFORMERS = [name for name in VARIANTS if not name.startswith("regnety_")]
BUILDERS = {
    "deit": ("vision_transformer", ViTConfig),
    "evit": ("vision_transformer", ViTConfig),
    "vit": ("vision_transformer", ViTConfig),
    "t2t": ("t2t_vit", T2TViTConfig),
    "regnety": ("regnet", RegNetConfig),
}


@pytest.fixture(scope="module", autouse=True)
def nothing_older_to_collect():
    """Makes freeing a model quick: only what came after this is looked through."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def build():
    """Frees the model of a test: the large ones add up."""
    with weightless() as build:
        yield build
    keras.backend.clear_session()
    gc.collect()


def traced_macs(model):
    """What `count_macs` says of shapes alone: for images that cost seconds to run."""
    counted = []
    tf.function(lambda: counted.append(count_macs(model))).get_concrete_function()
    return counted[0]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if "_large_" in name else name
        for name in VARIANTS
    ],
)
def test_has_the_size_of_the_table(name, build):
    variant = VARIANTS[name]
    model = build(name)
    assert model.name == name
    assert count_parameters(model) == variant.num_parameters
    if name in TRAINABLE_PARAMETERS:
        trainable = sum(math.prod(w.shape) for w in model.trainable_weights)
        assert trainable == TRAINABLE_PARAMETERS[name]
    large = "large" in name or name.endswith("384")
    macs = traced_macs(model) if large else count_macs(model)
    if variant.gmacs is not None:
        assert macs / 1e9 == pytest.approx(variant.gmacs, rel=0.005)
    if name in TRANSFORMERS:
        assert macs == transformer_macs(variant.config)
    assert model.input_shape == (None, *variant.config.image_size, 3)
    outputs = keras.tree.flatten(model.output)
    assert {output.shape for output in outputs} == {(None, 1000)}


def test_the_table_has_the_published_sizes():
    sizes = {name: (v.num_parameters, v.gmacs) for name, v in VARIANTS.items()}
    assert sizes == PUBLISHED | OURS


@pytest.mark.parametrize(
    ("name", "changes", "gmacs"),
    [
        ("t2t_vit_14", {"image_size": (384, 384)}, 16.37),
        ("t2t_vit_24", {"image_size": (384, 384)}, 45.41),
        ("t2t_vit_t_14", {"image_size": (384, 384)}, 27.83),
        ("deit_base_patch16_384", {}, 55.484),
        ("evit_base_patch16_224", {}, 11.61),
    ],
)
def test_the_formulas_give_the_published_numbers(name, changes, gmacs):
    config = replace(VARIANTS[name].config, **changes)
    assert transformer_macs(config) / 1e9 == pytest.approx(gmacs, rel=0.0005)


def test_the_paper_counts_the_shallow_vit_without_class_token_and_positions():
    variant = VARIANTS["vit_small_depth8_patch16_224"]
    left_out = 768 + (1 + 14 * 14) * 768
    assert variant.num_parameters - left_out == 48_602_344  # "48.6 M"


@pytest.mark.parametrize("name", VARIANTS)
def test_says_its_source_and_what_its_name_says(name):
    variant = VARIANTS[name]
    family, *words = name.split("_")
    build, kind = BUILDERS[family]
    assert (variant.build.__name__, type(variant.config)) == (build, kind)
    assert variant.source
    assert len(set(variant.config.image_size)) == 1
    size = str(variant.config.image_size[0])
    assert size == words[-1] or (family in ("t2t", "regnety") and size == "224")
    if family not in ("t2t", "regnety"):
        assert f"patch{variant.config.patch_size}" in words


def test_a_regnet_has_the_classes_of_imagenet():
    configs = [
        v.config for v in VARIANTS.values() if isinstance(v.config, RegNetConfig)
    ]
    assert {config.num_classes for config in configs} == {1000}
    assert {config.squeeze_ratio for config in configs} == {0.25}


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_a_transformer_has_the_encoder_of_its_paper(name):
    encoder = VARIANTS[name].config.encoder
    t2t, evit = name.startswith("t2t_"), name.startswith("evit_")
    shallow = name == "vit_small_depth8_patch16_224"
    assert encoder.num_classes == 1000
    assert encoder.distilled == ("distilled" in name)
    head_dim = 16 if "micro" in name else 96 if shallow else 64
    assert encoder.embed_dim == head_dim * encoder.num_heads
    assert encoder.norm_epsilon == (1e-5 if t2t or shallow else 1e-6)
    assert encoder.qkv_bias == (not (t2t or shallow))
    assert encoder.sinusoidal_positions == t2t
    assert encoder.keep_rate == (0.7 if evit else 1.0)
    assert encoder.fuse
    assert (encoder.drop_rate, encoder.drop_path_rate) == (0.0, 0.0)
    if evit:
        assert reorganizing_blocks(encoder) == (3, 6, 9)


@pytest.mark.parametrize("name", VARIANTS)
def test_no_two_numbers_of_a_variant_share_a_name(name):
    """Otherwise an override would be ambiguous."""

    def names(config):
        parts = [getattr(config, field) for field in config.__dataclass_fields__]
        inner = [
            n for p in parts if hasattr(p, "__dataclass_fields__") for n in names(p)
        ]
        return [*config.__dataclass_fields__, *inner]

    found = names(VARIANTS[name].config)
    assert len(found) == len(set(found))
    assert set(found) == set(options_of(VARIANTS[name].config))


def test_lists_all_names_in_order():
    assert list_variants() == sorted(VARIANTS)
    assert len(list_variants()) == len(PUBLISHED) + len(OURS) == 45


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("deit_tiny_*", ["deit_tiny_distilled_patch16_224", "deit_tiny_patch16_224"]),
        ("evit_?a*", ["evit_base_patch16_224"]),
        ("regnety_1?0", ["regnety_120", "regnety_160"]),
        ("regnety_160", ["regnety_160"]),
        ("deit_*_384", ["deit_base_distilled_patch16_384", "deit_base_patch16_384"]),
        ("t2t_vit_t_*", ["t2t_vit_t_14", "t2t_vit_t_19", "t2t_vit_t_24"]),
        ("regnety", []),
        ("DEIT_*", []),
    ],
)
def test_lists_the_names_that_match_a_pattern(pattern, names):
    assert list_variants(pattern) == names
