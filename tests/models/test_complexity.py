from dataclasses import replace

import keras
import pytest

from keras_deit.layers.conv_norm import ConvNorm, GroupedConv2D
from keras_deit.layers.encoder_block import EncoderBlock
from keras_deit.layers.token_performer import TokenPerformer
from keras_deit.layers.token_transformer import TokenTransformer
from keras_deit.models.complexity import count_macs, count_parameters
from keras_deit.models.factory import build_model
from keras_deit.models.reorganization import with_keep_rate, with_kept_patches
from keras_deit.models.variants import VARIANTS
from tests.models.arithmetic import transformer_macs
from tests.models.weightless import weightless


@keras.saving.register_keras_serializable(package="keras_deit_tests")
class Broken(keras.layers.Layer):
    """Has a shape, but cannot be run."""

    def call(self, x):
        raise RuntimeError("broken")

    def compute_output_shape(self, input_shape):
        return input_shape


def sequential(shape, *layers):
    return keras.Sequential([keras.Input(shape), *layers])


def test_macs_of_a_convolution_and_a_dense_layer_by_hand():
    model = sequential(
        (5, 6, 2),
        keras.layers.Conv2D(4, 3),  # 3 * 4 places * 4 filters * 3 * 3 * 2 = 864
        keras.layers.Flatten(),  # 48
        keras.layers.Dense(5),  # 48 * 5 = 240
    )
    assert count_macs(model) == 864 + 240


def test_macs_of_an_encoder_block_by_hand():
    model = sequential((5, 8), EncoderBlock(num_heads=2, mlp_ratio=3.0))
    # 5 tokens of width 8: q, k, v and projection 4 * 5 * 8 * 8 = 1280, the MLP
    # 2 * 5 * 8 * 24 = 1920; q k^T and its product with v 2 * 5 * 5 * 8 = 400.
    assert count_macs(model) == 1280 + 1920 + 400


@pytest.mark.parametrize(("fuse", "left"), [(True, 4), (False, 3)])
def test_macs_of_a_block_that_reorganizes_by_hand(fuse, left):
    # One class token and 4 patches, of which 2 stay: the MLP sees fewer tokens.
    image = keras.Input((5, 8))
    block = EncoderBlock(num_heads=2, mlp_ratio=3.0, keep_rate=0.5, fuse=fuse)
    model = keras.Model(image, block(image))
    assert count_macs(model) == 1280 + 2 * left * 8 * 24 + 400


def test_macs_of_a_token_performer_by_hand():
    # 5 tokens of width 6 become ones of width 4. Key, query and value 5 * 6 * 12 = 360,
    # projection and MLP 3 * 5 * 4 * 4 = 240. With 3 random features, W k and W q are
    # 2 * 5 * 3 * 4 = 120, k^T v and its product with q again.
    model = sequential((5, 6), TokenPerformer(4, num_random_features=3))
    assert count_macs(model) == 360 + 240 + 2 * 120


def test_macs_of_a_token_transformer_by_hand():
    # As above, but q k^T and its product with v are 2 * 5 * 5 * 4 = 200.
    assert count_macs(sequential((5, 6), TokenTransformer(4))) == 360 + 240 + 200


@pytest.fixture(scope="module")
def deit_small():
    """DeiT-S as EViT has it, with and without a fused token."""
    with weightless() as build:
        name = "evit_small_patch16_224"
        yield {fuse: build(name, fuse=fuse) for fuse in (True, False)}


@pytest.mark.parametrize(
    ("rate", "fuse", "gmacs"),
    [
        (1.0, True, 4.599),
        (0.9, True, 4.022),
        (0.8, True, 3.477),
        (0.7, True, 3.029),
        (0.6, True, 2.635),
        (0.5, True, 2.309),
        (1.0, False, 4.599),
        (0.9, False, 3.988),
        (0.8, False, 3.444),
        (0.7, False, 2.997),
        (0.6, False, 2.608),
        (0.5, False, 2.282),
    ],
)
def test_reorganization_saves_what_was_published(rate, fuse, gmacs, deit_small):
    macs = count_macs(with_keep_rate(deit_small[fuse], rate))
    assert macs / 1e9 == pytest.approx(gmacs, abs=0.0006)
    config = VARIANTS["evit_small_patch16_224"].config
    encoder = replace(config.encoder, keep_rate=rate, fuse=fuse)
    assert macs == transformer_macs(replace(config, encoder=encoder))


def test_a_small_transformer_costs_what_the_formulas_say():
    """With all that the variants of the table do not have together."""
    changes = {"distilled": True, "keep_rate": 0.6, "fuse": False, "depth": 5}
    model = build_model("t2t_vit_micro_32", 7, image_size=(32, 48), **changes)
    config = VARIANTS["t2t_vit_micro_32"].config
    encoder = replace(config.encoder, num_classes=7, **changes)
    config = replace(config, image_size=(32, 48), encoder=encoder)
    assert count_macs(model) == transformer_macs(config)
    assert count_macs(with_kept_patches(model)) == transformer_macs(config)


@pytest.mark.parametrize(
    ("layer", "macs"),
    [
        (GroupedConv2D(8, 3, strides=2, groups=2), 2 * 2 * 8 * 3 * 3 * 2),
        (keras.layers.Conv2D(8, 3, groups=2), 2 * 2 * 8 * 3 * 3 * 2),
        (keras.layers.DepthwiseConv2D(3, depth_multiplier=2), 2 * 2 * 8 * 3 * 3),
        # 2 * 2 places, at each 3 * 3 for 4 * 2 channels, then 8 filters of 8 channels.
        (
            keras.layers.SeparableConv2D(8, 3, depth_multiplier=2),
            2 * 2 * (3 * 3 * 8 + 8 * 8),
        ),
        (ConvNorm(8, 1), 4 * 4 * 8 * 4),
        (keras.layers.Activation("relu"), 0),
        (keras.layers.BatchNormalization(), 0),
    ],
)
def test_macs_of_one_layer_on_four_by_four_pixels_of_four_channels(layer, macs):
    assert count_macs(sequential((4, 4, 4), layer)) == macs


def test_a_layer_used_twice_costs_twice_but_counts_once():
    dense = keras.layers.Dense(3)
    model = sequential((3,), dense, dense)
    assert count_macs(model) == 2 * 3 * 3
    assert count_parameters(model) == 3 * 3 + 3


def test_the_head_that_is_not_asked_for_costs_nothing():
    model = build_model("deit_micro_distilled_patch4_32", 10, depth=0, embed_dim=24)
    class_only = keras.Model(model.inputs, model.output["class"])
    assert count_macs(model) - count_macs(class_only) == 24 * 10


def test_counting_leaves_keras_as_it_was():
    original = keras.layers.Layer.__call__
    count_macs(sequential((2,), keras.layers.Dense(3)))
    assert keras.layers.Layer.__call__ is original
    with pytest.raises(RuntimeError, match="broken"):
        count_macs(sequential((2,), Broken()))
    assert keras.layers.Layer.__call__ is original


@pytest.mark.parametrize(
    "layer",
    [
        keras.layers.EinsumDense("ab,bc->ac", 3),
        keras.layers.Conv2DTranspose(3, 2),
        keras.layers.SeparableConv1D(3, 2),
    ],
)
def test_refuses_a_kernel_that_it_would_not_count(layer):
    shapes = {"EinsumDense": (2,), "SeparableConv1D": (4, 2)}
    shape = shapes.get(type(layer).__name__, (4, 4, 2))
    with pytest.raises(ValueError, match=f"counts .* only. Received: .*{layer.name}"):
        count_macs(sequential(shape, layer))


def test_counting_leaves_the_running_statistics_as_they_were():
    norm = keras.layers.BatchNormalization()
    model = sequential((2,), keras.layers.Dense(3, bias_initializer="ones"), norm)
    count_macs(model)
    assert not norm.moving_mean.numpy().any()


def test_parameters_leave_out_running_statistics_by_hand():
    model = sequential(
        (4, 4, 2),
        keras.layers.Conv2D(3, 1),  # 2 * 3 + 3 = 9
        keras.layers.BatchNormalization(),  # scale and shift, 3 each
        keras.layers.BatchNormalization(),
    )
    assert count_parameters(model) == 9 + 6 + 6


def test_parameters_include_the_frozen():
    model = sequential((2,), keras.layers.Dense(3))
    model.trainable = False
    assert count_parameters(model) == 9


def test_parameters_leave_out_statistics_of_nested_and_frozen_models():
    inner = sequential((4, 4, 2), ConvNorm(3, 1))  # 2 * 3, scale and shift
    inner.trainable = False
    assert count_parameters(sequential((4, 4, 2), inner)) == 6 + 6
