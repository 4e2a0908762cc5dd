import keras
import pytest

from keras_deit.layers.conv_norm import ConvNorm, GroupedConv2D
from keras_deit.layers.encoder_block import EncoderBlock
from keras_deit.models.complexity import count_macs, count_parameters
from keras_deit.models.factory import build_model


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


@pytest.mark.parametrize(
    ("layer", "macs"),
    [
        (GroupedConv2D(8, 3, strides=2, groups=2), 2 * 2 * 8 * 3 * 3 * 2),
        (keras.layers.Conv2D(8, 3, groups=2), 2 * 2 * 8 * 3 * 3 * 2),
        (keras.layers.DepthwiseConv2D(3, depth_multiplier=2), 2 * 2 * 8 * 3 * 3),
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
        keras.layers.SeparableConv2D(3, 2),
    ],
)
def test_refuses_a_kernel_that_it_would_not_count(layer):
    shape = (2,) if isinstance(layer, keras.layers.EinsumDense) else (4, 4, 2)
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
    )
    assert count_parameters(model) == 9 + 6


def test_parameters_include_the_frozen():
    model = sequential((2,), keras.layers.Dense(3))
    model.trainable = False
    assert count_parameters(model) == 9


def test_parameters_leave_out_statistics_of_nested_and_frozen_models():
    inner = sequential((4, 4, 2), ConvNorm(3, 1))  # 2 * 3, scale and shift
    inner.trainable = False
    assert count_parameters(sequential((4, 4, 2), inner)) == 6 + 6
