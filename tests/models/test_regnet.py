import keras
import numpy as np
import pytest

from keras_deit.models.factory import build_model
from keras_deit.models.regnet import RegNetConfig, regnet, regnet_stages
from keras_deit.models.variants import VARIANTS
from tests.models.weightless import weightless

# (depth, width, groups) of each stage, and the squeeze widths of its first block and
# of its others; of a stage of one block there are no others.
STAGES = {
    "regnety_040": [
        (2, 128, 2, 8, 32),
        (6, 192, 3, 32, 48),
        (12, 512, 8, 48, 128),
        (2, 1088, 17, 128, 272),
    ],
    "regnety_080": [
        (2, 168, 3, 8, 42),
        (4, 448, 8, 42, 112),
        (10, 896, 16, 112, 224),
        (1, 2016, 36, 224, None),
    ],
    "regnety_120": [
        (2, 224, 2, 8, 56),
        (5, 448, 4, 56, 112),
        (11, 896, 8, 112, 224),
        (1, 2240, 20, 224, None),
    ],
    "regnety_160": [
        (2, 224, 2, 8, 56),
        (4, 448, 4, 56, 112),
        (11, 1232, 11, 112, 308),
        (1, 3024, 27, 308, None),
    ],
}


def numbers(config):
    return (
        config.initial_width,
        config.width_slope,
        config.width_multiplier,
        config.depth,
        config.group_width,
    )


def test_three_blocks_by_hand():
    # Widths 16, 26, 36. The powers of 2 nearest to 26 / 16 and 36 / 16 are 1 and 1
    # (log2 0.70, 1.17), so 32 twice; in groups of 12, 16 becomes 12 and 32 becomes 36.
    stages = regnet_stages(16, 10.0, 2.0, depth=3, group_width=12)
    assert [(s.depth, s.width, s.group_width) for s in stages] == [
        (1, 12, 12),
        (2, 36, 12),
    ]


def test_widths_are_rounded_to_multiples_of_eight():
    # 20 is nearest to 16 (halves go to the even neighbor), 20 * 1.5 = 30 to 32.
    stages = regnet_stages(20, 10.0, 1.5, depth=2, group_width=8)
    assert [s.width for s in stages] == [16, 32]


def test_a_group_is_no_wider_than_its_stage():
    (stage,) = regnet_stages(8, 0.0, 2.0, depth=2, group_width=16)
    assert (stage.depth, stage.width, stage.group_width) == (2, 8, 8)


@pytest.mark.parametrize("name", STAGES)
def test_stages_are_the_published_ones(name):
    stages = regnet_stages(*numbers(VARIANTS[name].config))
    got = [(s.depth, s.width, s.width // s.group_width) for s in stages]
    assert got == [row[:3] for row in STAGES[name]]
    assert all(s.width % s.group_width == 0 for s in stages)


def test_squeezes_to_the_published_widths():
    with weightless() as build:
        model = build("regnety_040")
    for index, row in enumerate(STAGES["regnety_040"], start=1):
        for block in range(row[0]):
            layer = model.get_layer(f"stage_{index}_block_{block}")
            expected = row[4] if block else row[3]
            assert layer.squeeze_excite.squeeze_dim == expected


def test_the_first_block_of_each_stage_halves_the_image():
    model = regnet(
        RegNetConfig(
            32, 32.0, 2.0, depth=4, group_width=16, image_size=(32, 32), stem_strides=1
        )
    )
    shapes = {
        layer.name: layer.output.shape[1:]
        for layer in model.layers
        if layer.name.startswith("stage")
    }
    assert shapes == {
        "stage_1_block_0": (16, 16, 32),
        "stage_2_block_0": (8, 8, 64),
        "stage_3_block_0": (4, 4, 128),
        "stage_3_block_1": (4, 4, 128),
    }


def test_the_stem_halves_the_image_unless_told_otherwise():
    config = RegNetConfig(16, 16.0, 2.0, depth=1, group_width=8, image_size=(64, 32))
    assert regnet(config).get_layer("stem").output.shape == (None, 32, 16, 32)


def test_logits_are_the_mean_over_the_image_times_the_head():
    model = build_model("regnety_micro_32", num_classes=3)
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    last = model.get_layer("pool").input
    logits, features = keras.Model(model.input, [model.output, last])(images)
    kernel, bias = model.get_layer("class_head").get_weights()
    expected = np.mean(features, axis=(1, 2)) @ kernel + bias
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-6)


def test_head_starts_normal_with_a_hundredth():
    keras.utils.set_random_seed(0)
    head = build_model("regnety_micro_32").get_layer("class_head")
    np.testing.assert_allclose(head.kernel.numpy().std(), 0.01, rtol=0.02)
    np.testing.assert_array_equal(head.bias, 0.0)


def test_the_config_reaches_the_layers():
    model = build_model(
        "regnety_micro_32", squeeze_ratio=0.5, stem_width=24, dtype="mixed_bfloat16"
    )
    assert model.get_layer("stem").filters == 24
    block = model.get_layer("stage_1_block_0")
    assert block.squeeze_excite.squeeze_dim == 12  # half of 24
    assert block.conv1.conv.compute_dtype == "bfloat16"
    assert model.get_layer("class_head").compute_dtype == "float32"
    assert model(np.zeros((1, 32, 32, 3))).dtype == "float32"


@pytest.mark.parametrize(
    ("multiplier", "width"), [(1.0, 16), (0.5, 16), (2.0, 7), (2.0, 0)]
)
def test_refuses_numbers_that_make_no_stages(multiplier, width):
    rule = "`width_multiplier` must be > 1, `initial_width` at least 8. "
    received = f"Received: width_multiplier={multiplier}, initial_width={width}"
    with pytest.raises(ValueError, match=rule + received):
        regnet_stages(width, 1.0, multiplier, depth=2, group_width=8)
