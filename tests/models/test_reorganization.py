import functools
import math

import keras
import numpy as np
import pytest

from keras_deit.models.encoder import EncoderConfig
from keras_deit.models.factory import build_model
from keras_deit.models.inference import float32_model, inference_model
from keras_deit.models.reorganization import with_keep_rate, with_kept_patches
from keras_deit.models.vision_transformer import ViTConfig, vision_transformer
from tests.models.weightless import weightless

DEIT, DISTILLED = "deit_micro_patch4_32", "deit_micro_distilled_patch4_32"
T2T = "t2t_vit_micro_32"
MODELS = {
    "plain": (DEIT, {}),
    "distilled": (DISTILLED, {"keep_rate": 0.9, "fuse": False}),
    "t2t": (T2T, {"distilled": True}),
    "half": (DEIT, {"dtype": "mixed_bfloat16", "keep_rate": 0.8}),
}
IMAGES = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")


NOTHING_DROPPED = (
    "The model must drop tokens: lower its keep rate, see `with_keep_rate`. "
    "Received: model='"
)


@functools.cache
def built(kind, **changes):
    """A model whose attention is not even, always with the same weights."""
    keras.utils.set_random_seed(0)
    name, options = MODELS[kind]
    model = build_model(name, num_classes=5, **{"depth": 2, **options, **changes})
    rng = np.random.default_rng(1)
    for weight in model.weights:
        if "embedding" in weight.path or "qkv" in weight.path:
            weight.assign(rng.normal(scale=0.2, size=weight.shape))
    return model


@functools.cache
def outputs(model):
    return keras.tree.flatten(model(IMAGES))


def same_outputs(model, other):
    return all(map(np.array_equal, outputs(model), outputs(other)))


def saved_and_loaded(model, tmp_path):
    model.save(tmp_path / "model.keras")
    return keras.models.load_model(tmp_path / "model.keras")


@pytest.mark.parametrize("kind", MODELS)
def test_a_dialled_model_equals_one_built_with_that_rate(kind):
    model, target = built(kind), built(kind, keep_rate=0.5)
    before = model(IMAGES)
    dialled = with_keep_rate(model, 0.5)
    assert same_outputs(dialled, target)
    assert not same_outputs(dialled, model)
    assert all(a is b for a, b in zip(dialled.weights, model.weights, strict=True))
    assert (dialled.name, dialled.input_shape) == (model.name, model.input_shape)
    assert dialled.output_shape == model.output_shape
    keras.tree.map_structure(np.testing.assert_array_equal, before, model(IMAGES))


@pytest.mark.parametrize("kind", MODELS)
def test_the_last_dial_holds(kind):
    model = built(kind, keep_rate=0.8)
    twice = with_keep_rate(with_keep_rate(model, 0.3), 0.5)
    assert same_outputs(twice, built(kind, keep_rate=0.5))
    back = with_keep_rate(twice, 1)
    assert same_outputs(back, built(kind, keep_rate=1.0, reorganize_at=()))
    assert same_outputs(with_keep_rate(back, 0.8), model)


@pytest.mark.parametrize(
    ("kind", "dialled"),
    [("plain", True), ("distilled", False), ("t2t", True), ("half", False)],
)
def test_a_model_from_a_file_is_dialled_like_the_saved_one(kind, dialled, tmp_path):
    model = with_keep_rate(built(kind), 0.5) if dialled else built(kind)
    loaded = saved_and_loaded(model, tmp_path)
    assert same_outputs(loaded, model)
    target = built(kind, keep_rate=0.3)
    assert same_outputs(with_keep_rate(loaded, 0.3), target)


@pytest.mark.parametrize("head", ["fused", "class"])
def test_dialling_and_choosing_a_head_go_in_any_order(head):
    model = built("distilled")
    dialled = inference_model(with_keep_rate(model, 0.5), head)
    assert same_outputs(with_keep_rate(inference_model(model, head), 0.5), dialled)
    target = inference_model(built("distilled", keep_rate=0.5), head)
    assert same_outputs(dialled, target)


def test_the_twin_in_float32_keeps_the_rate():
    twin = float32_model(with_keep_rate(built("half"), 0.5))
    assert same_outputs(twin, built("half", keep_rate=0.5, dtype="float32"))


def test_the_dialled_model_learns_with_the_other():
    model = build_model(DEIT, 5, depth=2)
    dialled = with_keep_rate(model, 0.5)
    before = dialled(IMAGES).numpy()
    model.get_layer("class_head").bias.assign_add([1.0, 0.0, 0.0, 0.0, 2.0])
    got = dialled(IMAGES) - before
    np.testing.assert_allclose(got, [[1.0, 0.0, 0.0, 0.0, 2.0]] * 2, atol=1e-5)


@pytest.mark.parametrize("look", [lambda m: with_keep_rate(m, 0.5), with_kept_patches])
@pytest.mark.parametrize(
    ("name", "changes"),
    [("regnety_micro_32", {}), (DEIT, {"depth": 0}), (DEIT, {"reorganize_at": ()})],
)
def test_refuses_a_model_without_blocks_that_reorganize(name, changes, look):
    rule = r"must have encoder blocks that reorganize tokens \(`reorganize_at`\). "
    with pytest.raises(ValueError, match=f"{rule}Received: model='{name}'"):
        look(build_model(name, 5, **changes))


@pytest.mark.parametrize("rate", [0, -0.5, 1.5, math.nan])
def test_refuses_a_rate_that_is_no_share(rate):
    rule = r"`keep_rate` must be in \(0, 1\]. "
    with pytest.raises(ValueError, match=f"{rule}Received: keep_rate={rate}"):
        with_keep_rate(build_model(DEIT, 5, depth=1), rate)


def test_names_the_patches_of_four_by_hand():
    # Every block leaves its tokens as they are. Patch i is 1 at place i, the class
    # token at place 7; a block's attention to a token grows with the score of its
    # place. 3 of 4 stay each time, and what falls out comes back as a fused token.
    encoder = EncoderConfig(8, 1, 3, 4.0, 5, keep_rate=0.75, reorganize_at=(0, 1, 2))
    model = vision_transformer(ViTConfig(encoder, patch_size=4, image_size=(8, 8)))
    model.set_weights([np.zeros(w.shape) for w in model.weights])
    positions = np.zeros((1, 5, 8))
    positions[0, 0, 7] = positions[0, range(1, 5), range(4)] = 1.0
    model.get_layer("position_embedding").embedding.assign(positions)
    scores = [[2, 4, 3, 1], [1, 2, 3, 4], [4, 3, 2, 1]]
    for index in range(3):
        block = model.get_layer(f"block_{index}")
        block.norm1.gamma.assign(np.ones(8))
        kernel, bias = np.zeros((8, 24)), np.zeros(24)
        bias[0] = 1.0  # the query of every token
        kernel[:4, 8] = scores[index]  # the key
        block.attention.qkv.set_weights([kernel, bias])
    _, kept = with_kept_patches(model)(np.zeros((1, 8, 8, 3)))
    # [1, 2, 0] stay, 3 melts. Its fused token then has the highest score, [F, 2, 1]
    # stay and 0 melts, which has the highest score at last: [F', 1, 2].
    assert [x.numpy().tolist() for x in kept] == [
        [[1, 2, 0]],
        [[-1, 2, 1]],
        [[-1, 1, 2]],
    ]


def class_attention(block, x, prefix):
    """How much the prefix tokens attend to each patch, in NumPy: (B, N)."""
    weights = [w.numpy().astype("float64") for w in block.norm1.weights]
    centered = x - x.mean(-1, keepdims=True)
    deviation = np.sqrt(x.var(-1, keepdims=True) + block.norm_epsilon)
    normed = centered / deviation * weights[0] + weights[1]
    kernel, *bias = block.attention.qkv.get_weights()
    qkv = normed @ kernel + (bias[0] if bias else 0.0)
    shape = (*x.shape[:2], 3, block.num_heads, x.shape[-1] // block.num_heads)
    q, k, _ = qkv.reshape(shape).transpose(2, 0, 3, 1, 4)
    scores = np.exp(q @ k.swapaxes(-1, -2) / math.sqrt(shape[-1]))
    attention = scores / scores.sum(axis=-1, keepdims=True)
    return attention[:, :, :prefix, prefix:].mean(axis=(1, 2))


def kept_patches_in_numpy(model, rate, fuse, prefix):
    """Walks from block to block with a list of which patch each token is."""
    x = IMAGES
    for layer in model.layers[1 : 1 + [x.name for x in model.layers].index("dropout")]:
        x = layer(x)
    names = np.tile(np.arange(x.shape[1] - prefix), (len(IMAGES), 1))
    found = []
    for index in range(4):
        block = model.get_layer(f"block_{index}")
        if index in (1, 2, 3):  # the quarters of four blocks
            row = class_attention(block, np.asarray(x, "float64"), prefix)
            order = np.argsort(-row, axis=1)[:, : math.ceil(rate * row.shape[1])]
            names = np.take_along_axis(names, order, axis=1)
            found.append(names)
            if fuse:
                names = np.concatenate([names, np.full((len(IMAGES), 1), -1)], axis=1)
            x, _ = block(x)
        else:
            x = block(x)
    return found


@pytest.mark.parametrize(
    ("kind", "fuse"),
    [("plain", True), ("plain", False), ("distilled", False), ("t2t", True)],
)
def test_names_the_patches_that_stay(kind, fuse):
    model = built(kind, keep_rate=0.6, fuse=fuse, depth=4)
    logits, kept = with_kept_patches(model)(IMAGES)
    keras.tree.map_structure(np.testing.assert_array_equal, logits, model(IMAGES))
    prefix = 1 if kind == "plain" else 2
    expected = kept_patches_in_numpy(model, 0.6, fuse, prefix)
    # ceil(0.6 * 64) = 39, ceil(0.6 * 40) = 24, ceil(0.6 * 25) = 15; or 39, 24, 15.
    assert [x.shape for x in expected] == [(2, 39), (2, 24), (2, 15)]
    for got, names in zip(kept, expected, strict=True):
        assert got.dtype.name == "int32"
        np.testing.assert_array_equal(got, names)
    for names in np.concatenate([x.numpy() for x in kept], axis=1):
        assert set(names) <= set(range(-1 if fuse else 0, 64))
    for names in (row[row >= 0] for x in kept for row in x.numpy()):
        assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("rate", "fused", "unfused"),
    [
        (0.9, (177, 161, 146), (177, 160, 144)),
        (0.8, (157, 127, 103), (157, 126, 101)),
        (0.7, (138, 98, 70), (138, 97, 68)),
        (0.6, (118, 72, 44), (118, 71, 43)),
        (0.5, (98, 50, 26), (98, 49, 25)),
    ],
)
def test_as_many_patches_stay_as_in_the_official_code(rate, fused, unfused):
    for counts, fuse in ((fused, True), (unfused, False)):
        with weightless() as build:
            model = build("evit_tiny_patch16_224", keep_rate=rate, fuse=fuse)
        _, kept = with_kept_patches(model).output
        assert [x.shape for x in kept] == [(None, count) for count in counts]


@pytest.mark.parametrize("kind", ["plain", "half"])
def test_looks_at_a_dialled_model(kind, tmp_path):
    dialled = with_keep_rate(built(kind), 0.4)
    look = with_kept_patches(dialled)
    assert (look.name, look.input_shape) == (dialled.name, dialled.input_shape)
    logits, kept = look(IMAGES)
    np.testing.assert_array_equal(logits, dialled(IMAGES))
    assert [x.shape[1] for x in kept] == [26, 11]
    assert same_outputs(look, with_kept_patches(built(kind, keep_rate=0.4)))
    assert same_outputs(saved_and_loaded(look, tmp_path), look)
    assert all(a is b for a, b in zip(look.weights, dialled.weights, strict=True))


def test_a_reorganization_that_keeps_all_is_not_listed():
    # 9 patches, ceil(0.9 * 9) = 9: nothing happens. At 0.8, 8 and then, without a
    # fused token, 7 and 6.
    changes = {"image_size": 12, "fuse": False}
    model = built("plain", keep_rate=0.8, depth=4, **changes)
    _, kept = with_kept_patches(model).output
    assert [x.shape[1] for x in kept] == [8, 7, 6]
    with pytest.raises(ValueError, match=NOTHING_DROPPED):
        with_kept_patches(with_keep_rate(model, 0.9))


@pytest.mark.parametrize("kind", ["plain", "t2t"])
def test_refuses_to_look_where_all_patches_stay(kind):
    with pytest.raises(ValueError, match=NOTHING_DROPPED):
        with_kept_patches(built(kind))
    with pytest.raises(ValueError, match=NOTHING_DROPPED):
        with_kept_patches(with_keep_rate(built(kind, keep_rate=0.5), 1.0))
