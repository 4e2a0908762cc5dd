import keras

from keras_deit.models.complexity import count_macs
from keras_deit.models.factory import build_model
from keras_deit.training.model_costs import Activations, activations, model_costs

SMALL = {"embed_dim": 16, "num_heads": 2, "depth": 2}


def micro(**overrides):
    return build_model("deit_micro_patch4_32", 10, **SMALL, **overrides)


def classifier(*layers):
    return keras.Sequential([keras.Input((2, 2, 3)), keras.layers.Flatten(), *layers])


def test_a_dense_layer_keeps_what_it_is_given():
    # 12 numbers in float32; the image itself is not needed, nor what comes out.
    assert activations(classifier(keras.layers.Dense(5))) == Activations(48, 48, 48)


def test_a_relu_keeps_what_comes_out_which_the_next_layer_needs_too():
    dense = keras.layers.Dense(5, activation="relu"), keras.layers.Dense(1)
    assert activations(classifier(*dense)).kept == 48 + 20


def test_the_same_numbers_in_two_shapes_are_kept_once():
    pixels = keras.Input((2, 2, 3))
    flat = keras.layers.Dense(1)(keras.layers.Flatten()(pixels))
    assert (
        activations(keras.Model(pixels, [flat, keras.layers.Dense(1)(pixels)])).kept
        == 48
    )


def test_a_dropout_keeps_which_numbers_stayed():
    layers = keras.layers.Dense(5), keras.layers.Dropout(0.5), keras.layers.Dense(1)
    assert activations(classifier(*layers)).kept == 48 + 20 + 5  # a byte each


def test_without_a_gradient_nothing_is_kept():
    model = classifier(keras.layers.Dense(50))
    assert activations(model, training=False) == Activations(0, 0, 200)


def test_weights_and_what_is_in_blocks():
    model = micro()
    costs = model_costs(model)
    assert costs.macs == count_macs(model)
    # 65 tokens of 16, 2 blocks: q, k, v, the projection and the MLP, 4 times as wide,
    # then the two products of attention.
    block = 65 * 16 * 16 * (3 + 1 + 4 + 4) + 2 * 65 * 65 * 16
    assert costs.block_macs == 2 * block
    assert costs.bytes == costs.trainable_bytes == 4 * model.count_params()
    assert costs.num_tensors == costs.num_trainable == len(model.weights)
    network = keras.Sequential(
        [
            keras.Input((2, 2, 3)),
            keras.layers.Conv2D(2, 1),
            keras.layers.BatchNormalization(),
        ]
    )
    costs = model_costs(network)
    assert (costs.macs, costs.block_macs) == (24, 0)
    assert (costs.bytes, costs.trainable_bytes) == (4 * 16, 4 * 12)
    assert (costs.num_tensors, costs.num_trainable) == (6, 4)


def test_checkpointing_keeps_what_it_says():
    """The estimate against the step that does compute its blocks again."""
    whole = activations(micro())
    checkpointed = activations(micro(gradient_checkpointing=True)).kept
    one_block = whole.kept_between_blocks - checkpointed
    tokens = 4 * 65 * 16  # what goes into a block
    assert 2 * one_block == whole.kept - checkpointed + 2 * tokens


def test_a_network_without_blocks_has_nothing_to_compute_again():
    pixels = keras.Input((2, 2, 3))
    half = keras.layers.Dense(6, activation="relu", dtype="mixed_bfloat16")
    features = keras.layers.Flatten()(half(pixels))
    found = activations(keras.Model(pixels, keras.layers.Dense(2)(features)))
    # The image in half precision, and the features in both.
    assert found.kept == found.kept_between_blocks == 2 * 12 + (2 + 4) * 24
