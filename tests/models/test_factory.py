import json

import pytest

from keras_deit.models.encoder import EncoderConfig
from keras_deit.models.factory import (
    build_model,
    image_height_and_width,
    options_of,
    variant_config,
)
from keras_deit.models.preprocessing import Preprocessing, preprocessing_of
from keras_deit.models.variants import VARIANTS


@pytest.mark.parametrize(
    ("image_size", "pair"), [(7, (7, 7)), ((7, 9), (7, 9)), ([7, 9], (7, 9))]
)
def test_reads_an_image_size_as_height_and_width(image_size, pair):
    assert image_height_and_width(image_size) == pair


def test_builds_a_variant_under_its_name():
    model = build_model("deit_micro_patch4_32")
    assert model.name == "deit_micro_patch4_32"
    assert model.input_shape == (None, 32, 32, 3)
    assert model.output_shape == (None, 1000)


def test_changes_the_fields_it_is_told_to():
    model = build_model(
        "deit_micro_patch4_32",
        num_classes=7,
        image_size=(16, 24),
        depth=2,
        embed_dim=24,
        num_heads=2,
        distilled=True,
    )
    assert model.input_shape == (None, 16, 24, 3)
    assert {name: x.shape for name, x in model.output.items()} == {
        "class": (None, 7),
        "distillation": (None, 7),
    }
    assert model.get_layer("patch_embedding").output.shape == (None, 4 * 6, 24)
    names = [layer.name for layer in model.layers]
    assert [name for name in names if name.startswith("block")] == [
        "block_0",
        "block_1",
    ]


def test_one_change_leaves_no_trace_in_the_table():
    config = VARIANTS["deit_micro_patch4_32"].config
    changed = build_model("deit_micro_patch4_32", num_classes=2, patch_size=8)
    model = build_model("deit_micro_patch4_32")
    assert (changed.output_shape, model.output_shape) == ((None, 2), (None, 1000))
    assert changed.get_layer("patch_embedding").patch_size == 8
    assert model.get_layer("patch_embedding").patch_size == config.patch_size == 4


def test_knows_the_fields_of_a_config_and_of_the_configs_in_it():
    options = options_of(VARIANTS["t2t_vit_7"].config)
    assert options["token_dim"] is int
    assert options["splits"] == tuple[tuple[int, int], ...]
    assert options["encoder"] is EncoderConfig
    assert options["keep_rate"] is float
    assert options["reorganize_at"] == tuple[int, ...] | None
    assert options["crop_ratio"] is float


def test_changes_the_fields_of_the_configs_in_a_config():
    model = build_model(
        "deit_micro_patch4_32",
        num_classes=3,
        depth=2,
        keep_rate=0.5,
        reorganize_at=[1],
        mlp_ratio=3,
        crop_ratio=1,
    )
    assert model.get_layer("block_0").keep_rate is None
    block = model.get_layer("block_1")
    assert (block.keep_rate, block.mlp_ratio) == (0.5, 3)
    assert preprocessing_of(model) == Preprocessing((0.5,) * 3, (0.5,) * 3, 1)


def test_none_is_a_value_where_the_config_knows_it():
    changes = {"embed_dim": 6, "depth": 4, "reorganize_at": None, "dtype": None}
    model = build_model("evit_tiny_patch16_224", 3, **changes)
    rates = [model.get_layer(f"block_{i}").keep_rate for i in range(4)]
    assert rates == [None, 0.7, 0.7, 0.7]  # the variant's own blocks are 3, 6 and 9


def test_takes_lists_as_a_json_file_has_them():
    options = {"splits": ((3, 2), (3, 1)), "mean": (0.1, 0.2, 0.3)}
    read = json.loads(json.dumps(options))
    model = build_model("t2t_vit_micro_32", 3, image_size=[8, 12], depth=0, **read)
    assert model.input_shape == (None, 8, 12, 3)
    assert model.get_layer("tokens_to_token").splits == options["splits"]
    assert model.get_layer("pixel_normalization").mean == options["mean"]
    assert read == json.loads(json.dumps(options))  # as it was


def test_changes_the_fields_of_a_config_that_is_itself_a_change():
    model = build_model(
        "deit_micro_patch4_32",
        num_classes=7,
        encoder=EncoderConfig(embed_dim=24, num_heads=2, depth=3),
        depth=1,
        preprocessing=Preprocessing((0.1,) * 3, (0.2,) * 3, 0.9),
        std=(0.3,) * 3,
    )
    assert model.output_shape == (None, 7)
    names = [layer.name for layer in model.layers if layer.name.startswith("block")]
    assert names == ["block_0"]
    assert preprocessing_of(model) == Preprocessing((0.1,) * 3, (0.3,) * 3, 0.9)


@pytest.mark.parametrize("image_size", [0, -8, (8, 0), (8, 8, 8), (8, 8.0), "224", 2.5])
def test_refuses_what_is_no_image_size(image_size):
    rule = r"`image_size` must be a positive number of pixels, or \(height, width\). "
    with pytest.raises(ValueError, match=f"{rule}Received: image_size="):
        image_height_and_width(image_size)


def test_refuses_an_unknown_name_and_says_the_nearest():
    with pytest.raises(ValueError) as refusal:
        build_model("deit_tinny_patch16_224")
    message = str(refusal.value)
    assert message.startswith(
        "`name` must be one of ['deit_base_distilled_patch16_224'"
    )
    assert message.endswith(
        "Did you mean 'deit_tiny_patch16_224'? Received: name='deit_tinny_patch16_224'."
    )


def test_refuses_an_unknown_override_and_says_the_nearest():
    with pytest.raises(ValueError) as refusal:
        build_model("deit_micro_patch4_32", drop_path=0.1)
    message = str(refusal.value)
    assert message.startswith("`override` must be one of ['crop_ratio', 'depth', '")
    assert message.endswith(
        "Did you mean 'drop_path_rate'? Received: override='drop_path'."
    )


@pytest.mark.parametrize(
    ("name", "override"),
    [
        ("regnety_micro_32", {"distilled": True}),
        ("deit_micro_patch4_32", {"splits": ((3, 2),)}),
        ("t2t_vit_micro_32", {"patch_size": 4}),
    ],
)
def test_refuses_an_override_of_another_family(name, override):
    (option,) = override
    with pytest.raises(ValueError, match=f"Received: override='{option}'"):
        build_model(name, **override)


@pytest.mark.parametrize("num_classes", [1, 0, -1])
def test_refuses_fewer_than_two_classes(num_classes):
    rule = "`num_classes` must be at least 2. "
    with pytest.raises(ValueError, match=f"{rule}Received: num_classes={num_classes}"):
        build_model("deit_micro_patch4_32", num_classes=num_classes)


def test_refuses_an_image_that_is_no_whole_number_of_patches():
    rule = "`image_size` must be a multiple of `patch_size`. "
    received = r"Received: image_size=\(30, 30\), patch_size=4"
    with pytest.raises(ValueError, match=rule + received):
        build_model("deit_micro_patch4_32", image_size=30)


@pytest.mark.parametrize(
    ("override", "kinds"),
    [
        ({"depth": "3"}, "int"),
        ({"depth": 2.0}, "int"),
        ({"mlp_ratio": "4"}, "float or int"),
        ({"distilled": 1}, "bool"),
        ({"preprocessing": 3}, "Preprocessing"),
        ({"dtype": 16}, r"str \| None"),
        ({"fuse": None}, "bool"),
        ({"keep_rate": True}, "float or int"),
        ({"keep_rate": None}, "float or int"),
        ({"reorganize_at": 3}, r"tuple\[int, ...\] \| None"),
        ({"reorganize_at": [3, 6.0]}, r"tuple\[int, ...\] \| None"),
        ({"mean": [0.5, 0.5]}, r"tuple\[float, float, float\]"),
        ({"std": "0.5"}, r"tuple\[float, float, float\]"),
        ({"crop_ratio": "1"}, "float or int"),
        ({"encoder": 3}, "EncoderConfig"),
    ],
)
def test_refuses_an_override_of_another_kind(override, kinds):
    (name,) = override
    with pytest.raises(ValueError, match=f"`{name}` must be {kinds}. Received: {name}"):
        build_model("deit_micro_patch4_32", **override)


@pytest.mark.parametrize("splits", [3, ((3, 2), 3), ((3, 2, 1),), ((3, 2.0),), None])
def test_refuses_splits_that_are_no_pairs(splits):
    rule = r"`splits` must be tuple\[tuple\[int, int\], ...\]. Received: splits="
    with pytest.raises(ValueError, match=rule):
        build_model("t2t_vit_micro_32", splits=splits)


@pytest.mark.parametrize(
    ("override", "least"),
    [
        ({"num_heads": 0}, 1),
        ({"patch_size": 0}, 1),
        ({"embed_dim": -8}, 1),
        ({"depth": -1}, 0),
    ],
)
def test_refuses_a_number_of_things_that_is_none(override, least):
    (name,) = override
    rule = f"`{name}` must be at least {least}. Received: {name}="
    with pytest.raises(ValueError, match=rule):
        build_model("deit_micro_patch4_32", **override)


def test_refuses_a_number_of_classes_that_is_a_text():
    with pytest.raises(ValueError, match="`num_classes` must be at least 2. Rec"):
        build_model("deit_micro_patch4_32", num_classes="10")


def test_reads_the_numbers_of_a_variant_with_some_changed():
    config = variant_config("deit_micro_patch4_32", 3, 16, crop_ratio=0.9, depth=1)
    assert (config.image_size, config.preprocessing.crop_ratio) == ((16, 16), 0.9)
    assert (config.encoder.num_classes, config.encoder.depth) == (3, 1)
