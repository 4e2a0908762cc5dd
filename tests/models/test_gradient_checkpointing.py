"""What is computed again for the gradient is the same, and is not kept."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_deit.layers.encoder_block import EncoderBlock
from keras_deit.layers.layer_norm import LayerNormalization
from keras_deit.models.factory import build_model
from keras_deit.models.reorganization import with_keep_rate

MICRO = "deit_micro_patch4_32"
SMALL = {"image_size": 16, "depth": 2, "embed_dim": 16, "num_heads": 2}
PIXELS = np.random.default_rng(0).uniform(0, 255, (8, 16, 16, 3)).astype("float32")


def both(name=MICRO, **changes):
    """The same model twice, the second with checkpoints; half of the images drop."""
    models = []
    for checkpointing in (False, True):
        keras.utils.set_random_seed(7)
        options = {**SMALL, "drop_path_rate": 0.5, **changes}
        models.append(
            build_model(name, 5, gradient_checkpointing=checkpointing, **options)
        )
    return models


def loss_of(outputs):
    parts = [x for x in keras.tree.flatten(outputs) if x.dtype.is_floating]
    return sum(tf.reduce_mean(tf.cast(x, "float32") ** 2) for x in parts)


def step_of(model, **options):
    """A function of images: the loss in training, and every gradient."""

    @tf.function(**options)
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = loss_of(model(x, training=True))
        weights = [weight.value for weight in model.trainable_weights]
        return loss, tape.gradient(loss, [*weights, x])

    return step


def assert_close(ours, theirs, tolerance=1e-6):
    for a, b in zip(ours, theirs, strict=True):
        a, b = (np.asarray(x, "float32") for x in (a, b))
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1, abs(b).max()))


def kinds_of_operations(function, *arguments):
    """The kinds of all operations in the graph of a function."""
    graph = tf.function(function).get_concrete_function(*arguments).graph
    return [operation.type for operation in graph.get_operations()]


def test_the_gradient_drops_what_the_forward_pass_dropped_by_hand():
    block = EncoderBlock(1, drop_path_rate=0.5, gradient_checkpointing=True)
    block.build((None, 3, 2))
    # Attention adds 1 to every number, the MLP adds 10, whatever the tokens.
    block.attention.projection.kernel.assign(np.zeros((2, 2)))
    block.attention.projection.bias.assign([1.0, 1.0])
    block.mlp.fc2.kernel.assign(np.zeros((8, 2)))
    block.mlp.fc2.bias.assign([10.0, 10.0])
    biases = [block.attention.projection.bias, block.mlp.fc2.bias]
    with tf.GradientTape() as tape:
        added = block(np.zeros((64, 3, 2), "float32"), training=True)
        loss = tf.reduce_sum(added)
    of_attention, of_mlp = tape.gradient(loss, [bias.value for bias in biases])
    assert set(np.unique(added)) == {0.0, 2.0, 20.0, 22.0}
    # Each token of an image whose branch stayed has its bias doubled.
    np.testing.assert_array_equal(of_attention, [np.sum(added % 20) / 2] * 2)
    np.testing.assert_array_equal(of_mlp, [np.sum(added // 20)] * 2)


@pytest.mark.parametrize(
    "changes", [{"distilled": True}, {"keep_rate": 0.5}], ids=["distilled", "evit"]
)
def test_gradients_are_the_same(changes):
    plain, checkpointed = both(**changes)
    x = tf.constant(PIXELS)
    (loss, theirs), (again, ours) = step_of(plain)(x), step_of(checkpointed)(x)
    assert float(again) == pytest.approx(float(loss), rel=1e-6)
    assert_close(ours, theirs)


@pytest.mark.slow
def test_gradients_are_the_same_with_xla():
    plain, checkpointed = both(keep_rate=0.5, depth=1)
    x = tf.constant(PIXELS)
    (loss, theirs), (again, ours) = (
        step_of(model, jit_compile=True)(x) for model in (plain, checkpointed)
    )
    assert float(again) == pytest.approx(float(loss), rel=1e-6)
    assert_close(ours, theirs)


@pytest.mark.slow
def test_gradients_are_the_same_in_half_precision():
    plain, checkpointed = both(dtype="mixed_bfloat16")
    x = tf.constant(PIXELS)
    (loss, theirs), (again, ours) = step_of(plain)(x), step_of(checkpointed)(x)
    assert float(again) == pytest.approx(float(loss), rel=1e-2)
    assert_close(ours, theirs, 1e-3)


def test_what_is_computed_again_knows_that_it_is_training(monkeypatch):
    told = []
    original = LayerNormalization.call

    def call(layer, inputs, training=None):
        told.append(training)
        return original(layer, inputs, training)

    monkeypatch.setattr(LayerNormalization, "call", call)
    block = EncoderBlock(num_heads=2, gradient_checkpointing=True)
    tokens = tf.random.normal((2, 5, 8))
    with tf.GradientTape() as tape:
        tape.watch(tokens)
        loss = loss_of(block(tokens, training=True))
    tape.gradient(loss, tokens)
    assert told == [True] * 4


def test_t2t_vit_has_the_same_blocks():
    options = {"depth": 1, "gradient_checkpointing": True}
    model = build_model("t2t_vit_micro_32", 5, **options)
    assert model.get_layer("block_0").gradient_checkpointing


def test_a_block_that_returns_its_attention_does_so_too():
    tokens = tf.constant(np.random.default_rng(1).normal(size=(4, 7, 8)), "float32")
    gradients = []
    for checkpointing in (False, True):
        keras.utils.set_random_seed(7)
        block = EncoderBlock(
            2,
            drop_path_rate=0.5,
            keep_rate=0.5,
            gradient_checkpointing=checkpointing,
        )
        with tf.GradientTape() as tape:
            tape.watch(tokens)
            y, kept, attention = block(tokens, return_attention=True, training=True)
            loss = loss_of((y, attention * tf.range(7.0)))
        gradients.append((y, kept, attention, tape.gradient(loss, tokens)))
    assert gradients[1][1].dtype == tf.int32
    assert_close(*reversed(gradients))


def test_the_rate_of_a_call_is_kept_to():
    models = both(keep_rate=0.5, drop_path_rate=0.0)
    eager = [
        step_of(with_keep_rate(model, rate)).python_function(tf.constant(PIXELS))
        for model, rate in ((models[0], 0.75), (models[1], 0.75), (models[1], 0.5))
    ]
    assert_close(eager[1][1], eager[0][1])
    assert float(eager[1][0]) != pytest.approx(float(eager[2][0]))


@pytest.mark.slow
def test_two_replicas_learn_the_same(two_replicas):
    weights = []
    for index in range(2):
        with two_replicas.scope():
            model = both(keep_rate=0.5, depth=1)[index]
            model.compile(keras.optimizers.SGD(0.1), "mse")
        before = model.get_weights()
        model.fit(PIXELS, np.ones((8, 5)), batch_size=4, verbose=0, shuffle=False)
        weights.append(model.get_weights())
    assert_close(*weights)
    assert any(np.any(a != b) for a, b in zip(before, weights[1], strict=True))


def test_only_training_computes_blocks_again():
    plain, checkpointed = both()
    x = tf.constant(PIXELS)
    steps = [kinds_of_operations(step_of(m).python_function, x) for m in both()]
    assert [kinds.count("Softmax") for kinds in steps] == [2, 4]
    asked = [
        kinds_of_operations(lambda x, m=m: m(x, training=False), x)
        for m in (plain, checkpointed)
    ]
    assert asked[0] == asked[1]


def test_a_file_has_the_same_weights_and_remembers(tmp_path):
    plain, checkpointed = both()
    assert [w.path for w in checkpointed.weights] == [w.path for w in plain.weights]
    checkpointed.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.get_layer("block_1").gradient_checkpointing
    np.testing.assert_array_equal(loaded(PIXELS), plain(PIXELS))


def test_a_block_from_before_there_was_this_option_is_read():
    config = EncoderBlock(2).get_config()
    del config["gradient_checkpointing"]
    assert not EncoderBlock.from_config(config).gradient_checkpointing


def test_dropout_is_refused():
    rule = "`gradient_checkpointing` needs a `drop_rate` of 0: .* drop_rate=0.1"
    with pytest.raises(ValueError, match=rule):
        build_model(MICRO, 5, drop_rate=0.1, gradient_checkpointing=True)


def test_a_network_without_blocks_has_nothing_to_compute_again():
    with pytest.raises(ValueError, match="Received: override='gradient_checkpointing'"):
        build_model("regnety_micro_32", 5, gradient_checkpointing=True)
