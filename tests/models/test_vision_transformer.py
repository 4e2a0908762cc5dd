import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_deit.models.factory import build_model
from keras_deit.models.preprocessing import IMAGENET
from keras_deit.models.vision_transformer import ViTConfig, vision_transformer

TINY = {"embed_dim": 8, "num_heads": 2, "image_size": (8, 12), "patch_size": 4}
HEADS = ("class", "distillation")


def tiny_model(**changes):
    return vision_transformer(ViTConfig(**{**TINY, "num_classes": 3, **changes}))


def some_images(height=8, width=12):
    rng = np.random.default_rng(0)
    return rng.uniform(0, 255, (2, height, width, 3)).astype("float32")


def normalized(x):
    return (x - x.mean()) / np.sqrt(x.var() + 1e-6)


def test_without_blocks_the_heads_read_their_own_token_by_hand():
    model = tiny_model(depth=0, distilled=True)
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(size=w.shape) for w in model.weights])
    outputs = model(some_images())
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
def test_the_stations_from_the_image_to_the_logits_compose(distilled):
    model = tiny_model(depth=2, distilled=distilled)
    x = (some_images() / 255 - IMAGENET.mean) / IMAGENET.std
    for name in ("patch_embedding", "prefix_tokens", "position_embedding"):
        x = model.get_layer(name)(x)
    assert tuple(x.shape) == (2, (2 if distilled else 1) + 2 * 3, 8)
    for name in ("block_0", "block_1", "norm"):
        x = model.get_layer(name)(x)
    outputs = model(some_images())
    outputs = outputs if distilled else {"class": outputs}
    assert list(outputs) == list(HEADS[: 2 if distilled else 1])
    for index, head in enumerate(outputs):
        expected = model.get_layer(f"{head}_head")(x[:, index])
        np.testing.assert_allclose(outputs[head], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("training", [False, True])
def test_structure_does_not_depend_on_training(training):
    outputs = tiny_model(depth=1, distilled=True)(some_images(), training=training)
    assert {head: tuple(x.shape) for head, x in outputs.items()} == {
        "class": (2, 3),
        "distillation": (2, 3),
    }
    logits = tiny_model(depth=1)(some_images(), training=training)
    assert tuple(logits.shape) == (2, 3)


@pytest.mark.parametrize(("distilled", "num_weights"), [(False, 152), (True, 155)])
def test_has_as_many_weights_as_the_checkpoints(distilled, num_weights):
    assert len(tiny_model(distilled=distilled).weights) == num_weights


def test_drop_path_grows_in_equal_steps_from_zero():
    model = tiny_model(depth=5, drop_path_rate=0.1)
    rates = [model.get_layer(f"block_{i}").drop_path_rate for i in range(5)]
    np.testing.assert_allclose(rates, [0.0, 0.025, 0.05, 0.075, 0.1])


def test_one_block_drops_no_path():
    model = tiny_model(depth=1, drop_path_rate=0.1)
    assert model.get_layer("block_0").drop_path_rate == 0.0


def test_the_config_reaches_the_layers():
    model = tiny_model(
        depth=1,
        mlp_ratio=3.0,
        qkv_bias=False,
        norm_epsilon=1e-5,
        drop_rate=0.3,
        distilled=True,
    )
    block = model.get_layer("block_0")
    assert (block.num_heads, block.mlp_ratio, block.qkv_bias) == (2, 3.0, False)
    assert (block.norm_epsilon, block.drop_rate) == (1e-5, 0.3)
    assert block.num_prefix_tokens == 2
    assert model.get_layer("norm").epsilon == 1e-5
    assert model.get_layer("dropout").rate == 0.3


def test_defaults_are_the_published_ones():
    config = ViTConfig(embed_dim=192, num_heads=3)
    assert (config.patch_size, config.depth, config.mlp_ratio) == (16, 12, 4.0)
    assert (config.norm_epsilon, config.qkv_bias) == (1e-6, True)
    assert (config.drop_rate, config.drop_path_rate) == (0.0, 0.0)


def test_last_norm_takes_the_epsilon_of_the_papers():
    assert tiny_model(depth=0).get_layer("norm").epsilon == 1e-6


def test_drops_in_training_only():
    keras.utils.set_random_seed(0)
    model = tiny_model(depth=2, drop_rate=0.5, drop_path_rate=0.5)
    images = some_images()
    np.testing.assert_array_equal(model(images), model(images))
    assert np.any(model(images, training=True) != model(images, training=True))


def test_heads_start_normal_and_uncut_with_zero_biases():
    keras.utils.set_random_seed(0)
    model = tiny_model(depth=0, num_classes=1000, distilled=True)
    for head in HEADS:
        kernel, bias = model.get_layer(f"{head}_head").get_weights()
        np.testing.assert_allclose(kernel.std(), 0.02, rtol=0.05)
        assert np.abs(kernel).max() > 0.04
        np.testing.assert_array_equal(bias, 0.0)


def test_a_gradient_reaches_every_weight():
    model = tiny_model(depth=2, distilled=True)
    with tf.GradientTape() as tape:
        outputs = model(some_images(), training=True)
        loss = sum(tf.reduce_sum(x**2) for x in outputs.values())
    variables = model.trainable_variables
    for variable, gradient in zip(
        variables, tape.gradient(loss, [v.value for v in variables]), strict=True
    ):
        assert np.any(gradient != 0), variable.path


def test_takes_integer_pixels_as_the_same_floats():
    model = build_model("deit_micro_patch4_32", num_classes=3, depth=1)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype="uint8")
    np.testing.assert_array_equal(model(pixels), model(pixels.astype("float32")))


def test_heads_stay_in_float32_under_half_precision():
    model = tiny_model(depth=1, distilled=True, dtype="mixed_bfloat16")
    outputs = model(some_images())
    assert {x.dtype.name for x in outputs.values()} == {"float32"}
    assert {weight.dtype for weight in model.weights} == {"float32"}
    for name in ("pixel_normalization", "patch_embedding", "block_0", "norm"):
        assert model.get_layer(name).output.dtype == "bfloat16"


def test_half_precision_comes_near_full_precision():
    model = tiny_model(depth=2)
    half = tiny_model(depth=2, dtype="mixed_bfloat16")
    half.set_weights(model.get_weights())
    exact = model(some_images()).numpy()
    np.testing.assert_allclose(half(some_images()), exact, atol=0.05 * exact.std())


def test_refuses_an_image_that_is_no_whole_number_of_patches():
    rule = "`image_size` must be a multiple of `patch_size`. "
    received = r"Received: image_size=\(8, 10\), patch_size=4"
    with pytest.raises(ValueError, match=rule + received):
        tiny_model(image_size=(8, 10))


def test_refuses_a_width_that_heads_do_not_divide():
    rule = "`embed_dim` must be a multiple of `num_heads`. "
    with pytest.raises(ValueError, match=f"{rule}Received: embed_dim=8, num_heads=3"):
        tiny_model(num_heads=3)


@pytest.mark.parametrize("rate", ["drop_rate", "drop_path_rate"])
def test_refuses_a_rate_that_is_no_share(rate):
    with pytest.raises(ValueError, match="Received: .*rate=1.5"):
        tiny_model(depth=2, **{rate: 1.5})
