import pytest

from keras_deit.models.factory import build_model, image_height_and_width
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
    assert message.startswith("`override` must be one of ['depth', 'distilled'")
    assert message.endswith(
        "Did you mean 'drop_path_rate'? Received: override='drop_path'."
    )


def test_refuses_an_override_of_another_family():
    with pytest.raises(ValueError, match="Received: override='distilled'"):
        build_model("regnety_micro_32", distilled=True)


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
        ({"dtype": 16}, "str"),
    ],
)
def test_refuses_an_override_of_another_kind(override, kinds):
    (name,) = override
    with pytest.raises(ValueError, match=f"`{name}` must be {kinds}. Received: {name}"):
        build_model("deit_micro_patch4_32", **override)
