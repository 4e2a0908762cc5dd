import keras
import numpy as np
import pytest

from keras_deit.layers.position_embedding import sinusoids
from keras_deit.layers.token_performer import TokenPerformer
from keras_deit.layers.token_transformer import TokenTransformer
from keras_deit.models.complexity import count_macs, count_parameters
from keras_deit.models.encoder import EncoderConfig
from keras_deit.models.factory import build_model
from keras_deit.models.inference import float32_model
from keras_deit.models.preprocessing import IMAGENET
from keras_deit.models.t2t_vit import T2TViTConfig, t2t_vit

MICRO = "t2t_vit_micro_32"
KINDS = {"performer": TokenPerformer, "transformer": TokenTransformer}


def some_images(height=32, width=32):
    rng = np.random.default_rng(0)
    return rng.uniform(0, 255, (2, height, width, 3)).astype("float32")


def layers_of(model, kind):
    return [layer for layer in model._flatten_layers() if isinstance(layer, kind)]


@pytest.mark.parametrize("attention", KINDS)
@pytest.mark.parametrize("distilled", [False, True])
def test_the_stations_from_the_image_to_the_logits_compose(distilled, attention):
    changes = {"distilled": distilled, "attention": attention, "reorganize_at": ()}
    model = build_model(MICRO, 3, depth=2, **changes)
    x = some_images() / 255 * 2 - 1
    for name in ("tokens_to_token", "prefix_tokens", "position_embedding"):
        x = model.get_layer(name)(x)
    assert tuple(x.shape) == (2, (2 if distilled else 1) + 8 * 8, 64)
    for name in ("block_0", "block_1", "norm"):
        x = model.get_layer(name)(x)
    outputs = model(some_images())
    assert isinstance(outputs, dict) == distilled
    outputs = outputs if distilled else {"class": outputs}
    for index, head in enumerate(outputs):
        expected = model.get_layer(f"{head}_head")(x[:, index])
        np.testing.assert_allclose(outputs[head], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("attention", "distilled", "num_weights"),
    [("performer", False, 188), ("transformer", False, 184), ("performer", True, 191)],
)
def test_has_as_many_weights_as_the_checkpoints(attention, distilled, num_weights):
    changes = {"depth": 1, "attention": attention, "distilled": distilled}
    model = build_model(MICRO, 3, **changes)
    thirteen_more = 13 * len(model.get_layer("block_0").weights)
    assert len(model.weights) + thirteen_more == num_weights


@pytest.mark.parametrize("attention", KINDS)
def test_the_module_has_the_attention_it_is_told_to(attention):
    model = build_model(MICRO, 3, depth=0, attention=attention)
    module = model.get_layer("tokens_to_token")
    assert [type(layer) for layer in module.attentions] == [KINDS[attention]] * 2
    assert (module.token_dim, module.splits) == (32, ((3, 2), (3, 2), (3, 1)))


@pytest.mark.parametrize("attention", KINDS)
def test_every_norm_has_the_epsilon_of_the_checkpoints(attention):
    model = build_model(MICRO, 3, depth=2, attention=attention)
    norms = layers_of(model, keras.layers.LayerNormalization)
    assert [norm.epsilon for norm in norms] == [1e-5] * (2 * 2 + 2 * 2 + 1)


def test_the_encoder_has_no_bias_of_query_key_and_value():
    attention = build_model(MICRO, 3, depth=1).get_layer("block_0").attention
    assert not attention.qkv.use_bias
    assert attention.projection.use_bias


def test_positions_are_a_frozen_table_of_waves():
    model = build_model(MICRO, 3, depth=0, distilled=True)
    layer = model.get_layer("position_embedding")
    np.testing.assert_array_equal(layer.embedding, sinusoids(2 + 64, 64))
    frozen = {weight.path for weight in model.non_trainable_weights}
    assert frozen == {
        "position_embedding/embedding",
        "tokens_to_token/performer_0/random_features",
        "tokens_to_token/performer_1/random_features",
    }


@pytest.mark.parametrize("size", [(32, 48), (20, 12)])
def test_takes_images_that_are_not_square(size):
    model = build_model(MICRO, 3, image_size=size, depth=1)
    module = model.get_layer("tokens_to_token")
    assert module.grid == (size[0] // 4, size[1] // 4)
    assert module.output.shape == (None, size[0] * size[1] // 16, 64)
    wide = np.asarray(model(some_images(*size)))
    assert wide.shape == (2, 3)
    assert np.all(np.isfinite(wide))


@pytest.mark.parametrize("size", [(32, 30), (34, 32)])
def test_refuses_an_image_that_is_no_multiple_of_the_strides(size):
    rule = "`image_size` must be a multiple of 4, the product of the strides. "
    with pytest.raises(ValueError, match=rule + "Received: image_size=") as refusal:
        build_model(MICRO, image_size=size)
    assert f"image_size={size}" in str(refusal.value)


def test_refuses_an_attention_that_it_does_not_know():
    rule = r"`attention` must be one of \['performer', 'transformer'\]."
    with pytest.raises(ValueError, match=f"{rule} .*attention='performr'"):
        build_model(MICRO, attention="performr")


@pytest.mark.parametrize("changes", [{}, {"distilled": True}, {"fuse": False}])
def test_reorganizes_its_tokens(changes):
    model = build_model(MICRO, 3, depth=2, keep_rate=0.5, **changes)
    prefix, fused = 1 + ("distilled" in changes), "fuse" not in changes
    tokens, kept = model.get_layer("block_0").output  # a quarter of the depth of 2
    assert tokens.shape == (None, prefix + 32 + fused, 64)
    assert kept.shape == (None, 32)
    for logits in keras.tree.flatten(model(some_images())):
        assert tuple(logits.shape) == (2, 3)


def test_at_keep_rate_1_nothing_is_reorganized():
    model = build_model(MICRO, 3, depth=2)
    plain = build_model(MICRO, 3, depth=2, reorganize_at=())
    plain.set_weights(model.get_weights())
    np.testing.assert_array_equal(model(some_images()), plain(some_images()))


def test_defaults_are_the_published_ones():
    config = T2TViTConfig(EncoderConfig(embed_dim=384, num_heads=6))
    assert (config.attention, config.token_dim) == ("performer", 64)
    assert config.splits == ((7, 4), (3, 2), (3, 2))
    assert (config.image_size, config.preprocessing) == ((224, 224), IMAGENET)
    assert config.dtype is None


def test_a_model_built_from_a_config_is_called_what_it_is_told_to():
    encoder = EncoderConfig(embed_dim=8, num_heads=2, depth=1, num_classes=3)
    model = t2t_vit(T2TViTConfig(encoder, image_size=(48, 32)), name="tiny")
    assert (model.name, model.output_shape) == ("tiny", (None, 3))
    assert model.get_layer("tokens_to_token").output.shape == (None, 6, 8)
    # Learned positions are the encoder's default.
    assert model.get_layer("position_embedding").embedding.trainable


@pytest.mark.parametrize("attention", KINDS)
def test_half_precision_reaches_every_layer_but_performers_and_heads(attention):
    changes = {"attention": attention, "distilled": True, "dtype": "mixed_bfloat16"}
    model = build_model(MICRO, 3, depth=1, **changes)
    outputs = model(some_images())
    assert {x.dtype.name for x in outputs.values()} == {"float32"}
    for name in ("pixel_normalization", "tokens_to_token", "prefix_tokens", "block_0"):
        assert model.get_layer(name).compute_dtype == "bfloat16"
    module = model.get_layer("tokens_to_token")
    inner = {layer.norm1.compute_dtype for layer in module.attentions}
    assert inner == {"float32" if attention == "performer" else "bfloat16"}
    exact = float32_model(model)(some_images())
    for head, logits in outputs.items():
        np.testing.assert_allclose(logits, exact[head], atol=0.005)


def test_images_of_384_pixels_cost_what_is_published():
    model = build_model("t2t_vit_14", image_size=384)
    assert count_parameters(model) == 21_691_470
    assert count_macs(model) / 1e9 == pytest.approx(16.37, rel=0.005)
