import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_deit.layers.position_embedding import sinusoids
from keras_deit.models.encoder import EncoderConfig, encode, reorganizing_blocks

HEADS = ("class", "distillation")
SIX_PATCHES = np.random.default_rng(0).normal(size=(2, 6, 8)).astype("float32")


def tiny_config(**changes):
    return EncoderConfig(
        **{"embed_dim": 8, "num_heads": 2, "num_classes": 3, **changes}
    )


def tiny_encoder(dtype=None, num_patches=6, **changes):
    tokens = keras.Input((num_patches, 8))
    return keras.Model(tokens, encode(tokens, tiny_config(**changes), dtype))


def randomize(model, seed=0):
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(size=w.shape) for w in model.weights])
    return model


def normalized(x):
    return (x - x.mean()) / np.sqrt(x.var() + 1e-6)


def test_without_blocks_the_heads_read_their_own_token_by_hand():
    model = randomize(tiny_encoder(depth=0, distilled=True))
    outputs = model(SIX_PATCHES)
    # Nothing looks at the patches: a head sees its token plus its position, normed.
    tokens = model.get_layer("prefix_tokens").get_weights()
    (positions,) = model.get_layer("position_embedding").get_weights()
    gamma, beta = model.get_layer("norm").get_weights()
    for index, head in enumerate(HEADS):
        token = normalized(tokens[index][0, 0] + positions[0, index]) * gamma + beta
        kernel, bias = model.get_layer(f"{head}_head").get_weights()
        expected = [token @ kernel + bias] * 2
        np.testing.assert_allclose(outputs[head], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("distilled", [False, True])
def test_the_stations_from_the_tokens_to_the_logits_compose(distilled):
    model = randomize(tiny_encoder(depth=2, distilled=distilled, reorganize_at=()))
    x = SIX_PATCHES
    for name in ("prefix_tokens", "position_embedding", "block_0", "block_1", "norm"):
        x = model.get_layer(name)(x)
    assert tuple(x.shape) == (2, (2 if distilled else 1) + 6, 8)
    outputs = model(SIX_PATCHES)
    outputs = outputs if distilled else {"class": outputs}
    assert list(outputs) == list(HEADS[: 2 if distilled else 1])
    for index, head in enumerate(outputs):
        expected = model.get_layer(f"{head}_head")(x[:, index])
        np.testing.assert_allclose(outputs[head], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "lengths"),
    [
        # ceil(0.5 * 6) = 3 and the fused token, ceil(0.5 * 4) = 2 and the next one.
        ({}, [1 + 6, 1 + 4, 1 + 3, 1 + 3]),
        ({"fuse": False}, [1 + 6, 1 + 3, 1 + 2, 1 + 1]),
        ({"distilled": True}, [2 + 6, 2 + 4, 2 + 3, 2 + 3]),
        ({"distilled": True, "fuse": False}, [2 + 6, 2 + 3, 2 + 2, 2 + 1]),
        ({"reorganize_at": (0,)}, [1 + 4, 1 + 4, 1 + 4, 1 + 4]),
        ({"reorganize_at": (3,)}, [1 + 6, 1 + 6, 1 + 6, 1 + 4]),
        ({"reorganize_at": (1,), "keep_rate": 0.8}, [1 + 6, 1 + 6, 1 + 6, 1 + 6]),
        ({"reorganize_at": (1,), "keep_rate": 1e-6}, [1 + 6, 1 + 2, 1 + 2, 1 + 2]),
    ],
)
def test_tokens_become_fewer_where_blocks_reorganize_them(changes, lengths):
    model = tiny_encoder(**{"depth": 4, "keep_rate": 0.5, **changes})
    outputs = [model.get_layer(f"block_{i}").output for i in range(4)]
    tokens = [x[0] if isinstance(x, list | tuple) else x for x in outputs]
    if lengths[-1] == 7:  # ceil(0.8 * 6) = 5 of 6, and the fused token
        assert outputs[1][1].shape == (None, 5)
    assert [x.shape[1] for x in tokens] == lengths


def test_the_heads_read_what_reorganization_leaves():
    model = randomize(tiny_encoder(depth=2, keep_rate=0.5, distilled=True))
    x = model.get_layer("position_embedding")(
        model.get_layer("prefix_tokens")(SIX_PATCHES)
    )
    for name in ("block_0", "block_1"):
        x, _ = model.get_layer(name)(x)
    assert tuple(x.shape) == (2, 2 + 3, 8)
    x = model.get_layer("norm")(x)
    outputs = model(SIX_PATCHES)
    for index, head in enumerate(HEADS):
        expected = model.get_layer(f"{head}_head")(x[:, index])
        np.testing.assert_allclose(outputs[head], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("distilled", [False, True])
def test_at_keep_rate_1_nothing_is_reorganized(distilled):
    model = randomize(tiny_encoder(depth=4, distilled=distilled))
    plain = tiny_encoder(depth=4, distilled=distilled, reorganize_at=())
    plain.set_weights(model.get_weights())
    keras.tree.map_structure(
        np.testing.assert_array_equal, model(SIX_PATCHES), plain(SIX_PATCHES)
    )


def test_reorganization_brings_no_weights():
    model, plain = (
        tiny_encoder(depth=2, **changes)
        for changes in ({"keep_rate": 0.5}, {"reorganize_at": ()})
    )
    assert [w.path for w in model.weights] == [w.path for w in plain.weights]


@pytest.mark.parametrize(
    ("depth", "blocks"),
    [
        (0, ()),
        (1, (0,)),
        (2, (0, 1)),
        (3, (0, 1, 2)),
        (4, (1, 2, 3)),
        (7, (1, 3, 5)),
        (12, (3, 6, 9)),
        (14, (3, 7, 10)),
        (24, (6, 12, 18)),
    ],
)
def test_reorganizes_at_the_quarters_of_the_depth(depth, blocks):
    assert reorganizing_blocks(tiny_config(depth=depth)) == blocks


@pytest.mark.parametrize("blocks", [(), (0,), (1, 4)])
def test_reorganizes_where_it_is_told_to(blocks):
    changes = {"depth": 5, "reorganize_at": blocks}
    assert reorganizing_blocks(tiny_config(**changes)) == blocks
    rate = 0.9 if blocks else 1.0
    model = tiny_encoder(**changes, keep_rate=rate)
    rates = [model.get_layer(f"block_{i}").keep_rate for i in range(5)]
    assert rates == [rate if i in blocks else None for i in range(5)]


@pytest.mark.parametrize("blocks", [(4,), (-1,), (2, 1), (1, 1), (0, 1, 2, 3, 4)])
def test_refuses_blocks_that_are_not_there_or_do_not_rise(blocks):
    rule = r"`reorganize_at` must name blocks in rising order, each in \[0, depth\). "
    received = f"Received: reorganize_at={blocks}, depth=4."
    with pytest.raises(ValueError) as refusal:
        tiny_encoder(depth=4, reorganize_at=blocks)
    assert str(refusal.value) == rule.replace("\\", "") + received


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.1])
def test_refuses_a_keep_rate_that_is_no_share(rate):
    with pytest.raises(ValueError, match=rf"in \(0, 1\]. Received: keep_rate={rate}"):
        tiny_encoder(depth=4, keep_rate=rate)


@pytest.mark.parametrize("keep_rate", [1.0, 0.5])
@pytest.mark.parametrize("training", [False, True])
def test_structure_does_not_depend_on_training(training, keep_rate):
    changes = {"depth": 1, "keep_rate": keep_rate}
    outputs = tiny_encoder(distilled=True, **changes)(SIX_PATCHES, training=training)
    assert {head: tuple(x.shape) for head, x in outputs.items()} == {
        "class": (2, 3),
        "distillation": (2, 3),
    }
    logits = tiny_encoder(**changes)(SIX_PATCHES, training=training)
    assert tuple(logits.shape) == (2, 3)


def test_drop_path_grows_in_equal_steps_from_zero():
    model = tiny_encoder(depth=5, drop_path_rate=0.1)
    rates = [model.get_layer(f"block_{i}").drop_path_rate for i in range(5)]
    np.testing.assert_allclose(rates, [0.0, 0.025, 0.05, 0.075, 0.1])


def test_one_block_drops_no_path():
    model = tiny_encoder(depth=1, drop_path_rate=0.1)
    assert model.get_layer("block_0").drop_path_rate == 0.0


def test_the_config_reaches_the_layers():
    model = tiny_encoder(
        depth=1,
        mlp_ratio=3.0,
        qkv_bias=False,
        norm_epsilon=1e-5,
        drop_rate=0.3,
        distilled=True,
        keep_rate=0.4,
        fuse=False,
    )
    block = model.get_layer("block_0")
    assert (block.num_heads, block.mlp_ratio, block.qkv_bias) == (2, 3.0, False)
    assert (block.norm_epsilon, block.drop_rate) == (1e-5, 0.3)
    assert (block.num_prefix_tokens, block.keep_rate, block.fuse) == (2, 0.4, False)
    assert model.get_layer("norm").epsilon == 1e-5
    assert model.get_layer("dropout").rate == 0.3


def test_defaults_are_the_published_ones():
    config = EncoderConfig(embed_dim=192, num_heads=3)
    assert (config.depth, config.mlp_ratio, config.num_classes) == (12, 4.0, 1000)
    assert (config.norm_epsilon, config.qkv_bias) == (1e-6, True)
    assert (config.drop_rate, config.drop_path_rate) == (0.0, 0.0)
    assert (config.keep_rate, config.fuse) == (1.0, True)
    assert not (config.distilled or config.sinusoidal_positions)


@pytest.mark.parametrize("sinusoidal", [False, True])
def test_positions_are_learned_or_a_frozen_table_of_waves(sinusoidal):
    model = tiny_encoder(depth=0, sinusoidal_positions=sinusoidal)
    layer = model.get_layer("position_embedding")
    assert [w.trainable for w in layer.weights] == [not sinusoidal]
    is_table = np.array_equal(layer.embedding, sinusoids(1 + 6, 8))
    assert is_table == sinusoidal


def test_drops_in_training_only():
    model = tiny_encoder(depth=2, drop_rate=0.5, drop_path_rate=0.5)
    np.testing.assert_array_equal(model(SIX_PATCHES), model(SIX_PATCHES))
    assert np.any(model(SIX_PATCHES, training=True) != model(SIX_PATCHES))


def test_heads_start_normal_and_uncut_with_zero_biases():
    model = tiny_encoder(depth=0, num_classes=1000, distilled=True)
    for head in HEADS:
        kernel, bias = model.get_layer(f"{head}_head").get_weights()
        np.testing.assert_allclose(kernel.std(), 0.02, rtol=0.05)
        assert np.abs(kernel).max() > 0.04
        np.testing.assert_array_equal(bias, 0.0)


@pytest.mark.parametrize("changes", [{"distilled": True}, {"keep_rate": 0.5}])
def test_a_gradient_reaches_every_weight(changes):
    model = randomize(tiny_encoder(depth=2, **changes))
    with tf.GradientTape() as tape:
        outputs = model(SIX_PATCHES, training=True)
        loss = sum(tf.reduce_sum(x**2) for x in keras.tree.flatten(outputs))
    variables = model.trainable_variables
    for variable, gradient in zip(
        variables, tape.gradient(loss, [v.value for v in variables]), strict=True
    ):
        assert np.any(gradient != 0), variable.path


def test_heads_stay_in_float32_under_half_precision():
    model = tiny_encoder(depth=1, distilled=True, dtype="mixed_bfloat16")
    assert {x.dtype.name for x in model(SIX_PATCHES).values()} == {"float32"}
    assert {weight.dtype for weight in model.weights} == {"float32"}
    for name in ("prefix_tokens", "position_embedding", "dropout", "block_0", "norm"):
        assert model.get_layer(name).compute_dtype == "bfloat16"


def test_half_precision_comes_near_full_precision():
    model = tiny_encoder(depth=2)
    half = tiny_encoder(depth=2, dtype="mixed_bfloat16")
    half.set_weights(model.get_weights())
    exact = model(SIX_PATCHES).numpy()
    np.testing.assert_allclose(half(SIX_PATCHES), exact, atol=0.05 * exact.std())


def test_refuses_a_width_that_heads_do_not_divide():
    rule = "`embed_dim` must be a multiple of `num_heads`. "
    with pytest.raises(ValueError, match=f"{rule}Received: embed_dim=8, num_heads=3"):
        tiny_encoder(depth=1, num_heads=3)


@pytest.mark.parametrize("rate", ["drop_rate", "drop_path_rate"])
def test_refuses_a_rate_that_is_no_share(rate):
    with pytest.raises(ValueError, match="Received: .*rate=1.5"):
        tiny_encoder(depth=2, **{rate: 1.5})


@pytest.mark.parametrize("without", [{"reorganize_at": ()}, {"depth": 0}])
def test_refuses_a_keep_rate_that_no_block_heeds(without):
    rule = r"A `keep_rate` below 1 needs blocks that reorganize \(`reorganize_at`\). "
    with pytest.raises(ValueError, match=f"{rule}Received: keep_rate=0.5, reorg"):
        reorganizing_blocks(tiny_config(keep_rate=0.5, **without))
