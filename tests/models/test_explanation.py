import functools
import math

import keras
import numpy as np
import pytest

from keras_deit.models.encoder import EncoderConfig
from keras_deit.models.explanation import explanation_model
from keras_deit.models.factory import build_model
from keras_deit.models.inference import head_logits, inference_model
from keras_deit.models.reorganization import with_keep_rate, with_kept_patches
from keras_deit.models.vision_transformer import ViTConfig, vision_transformer

NOT_OURS = (
    "The model must be a ViT, DeiT, EViT or T2T-ViT of this package that returns "
    "logits. Received: model='"
)
DEIT, DISTILLED = "deit_micro_patch4_32", "deit_micro_distilled_patch4_32"
MODELS = {
    "plain": (DEIT, {"reorganize_at": ()}),
    "evit": (DEIT, {"keep_rate": 0.6}),
    "unfused": (DEIT, {"keep_rate": 0.5, "fuse": False, "image_size": (24, 16)}),
    "distilled": (DISTILLED, {"keep_rate": 0.7}),
    "t2t": ("t2t_vit_micro_32", {"keep_rate": 0.6, "image_size": (16, 32)}),
    "half": (DISTILLED, {"keep_rate": 0.5, "dtype": "mixed_bfloat16"}),
}


@functools.cache
def built(kind):
    """A model whose attention is not even."""
    keras.utils.set_random_seed(0)
    name, options = MODELS[kind]
    model = build_model(name, 5, depth=4, **{"image_size": (16, 24), **options})
    rng = np.random.default_rng(1)
    for weight in model.weights:
        if "embedding" in weight.path or "qkv" in weight.path:
            weight.assign(rng.normal(scale=0.3, size=weight.shape))
    return model


@functools.cache
def images_for(kind):
    shape = (2, *built(kind).input_shape[1:])
    return np.random.default_rng(0).uniform(0, 255, shape).astype("float32")


@functools.cache
def explained(kind):
    outputs = explanation_model(built(kind))(images_for(kind))
    return {name: x.numpy() for name, x in outputs.items()}


def model_of_three_patches(*attentions, **options):
    """One row of patches; the attention of every token is the same, and given.

    Every block leaves its tokens as they are. The class token is 1 at place 7, patch i
    at place i; with a key k_i the score of a token is 8 k_i / sqrt(7) and a constant.
    """
    encoder = EncoderConfig(8, 1, len(attentions), 4.0, 5, **options)
    model = vision_transformer(ViTConfig(encoder, patch_size=4, image_size=(4, 12)))
    model.set_weights([np.zeros(w.shape) for w in model.weights])
    positions = np.zeros((1, 4, 8))
    positions[0, range(4), (7, 0, 1, 2)] = 1.0
    model.get_layer("position_embedding").embedding.assign(positions)
    for index, attention in enumerate(attentions):
        block = model.get_layer(f"block_{index}")
        block.norm1.gamma.assign(np.ones(8))
        kernel, bias = np.zeros((8, 24)), np.zeros(24)
        bias[0] = math.sqrt(8)  # the query of every token, and the scale
        scores = np.log(attention) * math.sqrt(7) / 8
        kernel[[7, 0, 1, 2], 8] = scores
        block.attention.qkv.set_weights([kernel, bias])
    return model


EVEN = (1, 1, 1, 1)  # the softmax makes shares of them


def test_one_block_by_hand():
    model = model_of_three_patches((1 / 8, 4 / 8, 2 / 8, 1 / 8), reorganize_at=())
    outputs = explanation_model(model)(np.zeros((1, 4, 12, 3)))
    assert set(outputs) == {"logits", "attention", "rollout"}
    attention = [[[[[4 / 8, 2 / 8, 1 / 8]]]]]  # (B, depth, P, rows, columns)
    np.testing.assert_allclose(outputs["attention"], attention, rtol=1e-4)
    # The other half of each token is itself.
    np.testing.assert_allclose(outputs["rollout"], [[[[4 / 16, 2 / 16, 1 / 16]]]], 1e-4)


def test_tokens_that_melt_by_hand():
    attention = (1 / 8, 4 / 8, 2 / 8, 1 / 8)
    options = {"keep_rate": 1 / 3, "reorganize_at": (0,)}
    model = model_of_three_patches(attention, EVEN, **options)
    outputs = explanation_model(model)(np.zeros((1, 4, 12, 3)))
    # The first patch stays. In the second block each of three tokens has a third, and
    # the fused one is no patch.
    expected = [[[[4 / 8, 2 / 8, 1 / 8]]], [[[1 / 3, 0, 0]]]]
    np.testing.assert_allclose(outputs["attention"][0], expected, rtol=1e-4)
    np.testing.assert_array_equal(outputs["kept"], [[[[True, False, False]]]])
    # Shares after the first block, in 48ths:
    #   class   27 12  6  3
    #   patch 0  3 36  6  3
    #   fused    3 12 22 11, of patch 1 (3 12 30 3) twice and of patch 2 (3 12 6 27)
    # Class token at the end: half of 27 12 6 3, half of the mean 11 20 34/3 17/3.
    expected = [32 / 96, 52 / 288, 26 / 288]
    np.testing.assert_allclose(outputs["rollout"][0, 0, 0], expected, rtol=1e-4)


def test_tokens_that_melt_count_alike_where_none_has_any_attention():
    attention = (1e-60, 1.0, 1e-60, 1e-60)  # 0 in float32
    options = {"keep_rate": 1 / 3, "reorganize_at": (0,)}
    model = model_of_three_patches(attention, EVEN, **options)
    outputs = explanation_model(model)(np.zeros((1, 4, 12, 3)))
    # Shares after the first block, in quarters: class 2 2 0 0, patch 0 0 4 0 0, fused
    # 0 2 1 1. In the second each of three tokens has a third: half of 2 2 0 0, half of
    # the mean 2/3 8/3 1/3 1/3.
    expected = [7 / 12, 1 / 24, 1 / 24]
    np.testing.assert_allclose(outputs["rollout"][0, 0, 0], expected, rtol=1e-4)


@pytest.mark.parametrize("kind", ["plain", "distilled"])
def test_even_attention_by_hand(kind):
    name = MODELS[kind][0]
    model = build_model(name, 5, depth=2, image_size=(4, 8), reorganize_at=())
    model.set_weights([np.zeros(w.shape) for w in model.weights])
    outputs = explanation_model(model)(np.zeros((1, 4, 8, 3)))
    prefix = 2 if kind == "distilled" else 1
    tokens = prefix + 2
    # Of T tokens each has 1 / T. One block: half of it. Two: 1/4 + 1/4 + 1/4 of it.
    even = np.ones((1, prefix, 1, 2)) / tokens
    np.testing.assert_allclose(outputs["attention"], [[even[0]] * 2], rtol=1e-6)
    np.testing.assert_allclose(outputs["rollout"], even * 3 / 4, rtol=1e-6)


def followed(kind):
    """Attention and rollout, image after image, by lists of what each token is."""
    model = built(kind)
    blocks = [model.get_layer(f"block_{index}") for index in range(4)]
    prefix = blocks[0].num_prefix_tokens
    x = images_for(kind)
    for layer in model.layers[1 : 1 + [x.name for x in model.layers].index("dropout")]:
        x = layer(x)
    tokens = x.shape[1]
    names = [list(range(tokens - prefix)) for _ in x]
    shares = [np.eye(tokens) for _ in x]
    seen = np.zeros((len(x), len(blocks), prefix, tokens - prefix))
    for index, block in enumerate(blocks):
        _, maps = block.attention(block.norm1(x), return_attention=True)
        maps = maps.numpy().astype("float64").mean(axis=1)  # (B, T, T)
        for image, attention in enumerate(maps):
            for place, patch in enumerate(names[image]):
                if patch is not None:
                    seen[image, index, :, patch] = attention[:prefix, prefix + place]
            shares[image] = (shares[image] + attention @ shares[image]) / 2
        if block.reorganization is None:
            x = block(x)
            continue
        x, kept = block(x)
        for image, places in enumerate(kept.numpy()):
            names[image] = [names[image][place] for place in places] + [None]
            row = maps[image, :prefix, prefix:].mean(axis=0)
            shares[image] = reorganized(shares[image], row, places, prefix, block.fuse)
    return seen, np.stack([x[:prefix] for x in shares])


def reorganized(shares, row, places, prefix, fuse):
    """The shares of the tokens that stay, and of the fused one."""
    rows = [*shares[:prefix], *shares[prefix + places]]
    if fuse:
        weights = row.copy()
        weights[places] = 0
        rows.append(weights / weights.sum() @ shares[prefix:])
    return np.stack(rows)


@pytest.mark.parametrize("kind", MODELS)
def test_equals_tokens_followed_one_by_one(kind):
    attention, shares = followed(kind)
    got = explained(kind)
    grid = {"unfused": (6, 4), "t2t": (4, 8)}.get(kind, (4, 6))
    prefix = shares.shape[1]
    assert got["attention"].shape == (2, 4, prefix, *grid)
    assert got["rollout"].shape == (2, prefix, *grid)
    # Half precision ranks the same tokens, and is as wrong in both.
    flat = {name: x.reshape(*x.shape[:-2], -1) for name, x in got.items()}
    np.testing.assert_allclose(flat["attention"], attention, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(flat["rollout"], shares[..., prefix:], 1e-4, atol=1e-6)
    # Every share is of a patch or of a prefix token.
    whole = flat["rollout"].sum(axis=-1) + shares[..., :prefix].sum(axis=-1)
    np.testing.assert_allclose(whole, 1.0, rtol=1e-5)
    assert np.std(got["rollout"]) > 1e-4
    assert {x.dtype.name for x in got.values()} <= {"float32", "bool"}


@pytest.mark.parametrize("kind", MODELS)
def test_answers_as_the_model_does(kind):
    outputs = built(kind)(images_for(kind))
    expected = head_logits(outputs, "fused")
    np.testing.assert_array_equal(explained(kind)["logits"], expected)


@pytest.mark.parametrize("kind", sorted(set(MODELS) - {"plain"}))
def test_shows_the_patches_that_stay(kind):
    kept = explained(kind)["kept"]
    _, expected = with_kept_patches(built(kind))(images_for(kind))
    assert kept.shape[:2] == (2, 3)
    for stage, patches in enumerate(expected):
        for image, named in enumerate(patches.numpy()):
            found = np.flatnonzero(kept[image, stage])
            np.testing.assert_array_equal(found, np.sort(named[named >= 0]))
    assert not np.any(kept[:, 1:] & ~kept[:, :-1])  # what is gone stays away
    # The blocks at a quarter, a half and three quarters of four drop patches: what
    # they dropped has no attention afterwards.
    attention = explained(kind)["attention"]
    assert np.all(attention[:, :2] > 0)
    for block, stage in ((2, 0), (3, 1)):
        seen = np.all(attention[:, block] > 0, axis=1)
        np.testing.assert_array_equal(seen, kept[:, stage])


def test_a_model_that_drops_nothing_equals_a_plain_one():
    dialled = explanation_model(with_keep_rate(built("evit"), 1.0))
    name, _ = MODELS["evit"]
    plain = build_model(name, 5, depth=4, image_size=(16, 24), reorganize_at=())
    plain.set_weights(built("evit").get_weights())
    outputs, expected = (
        model(images_for("evit")) for model in (dialled, explanation_model(plain))
    )
    assert set(outputs) == set(expected) == {"logits", "attention", "rollout"}
    for name, x in expected.items():
        np.testing.assert_array_equal(outputs[name], x, err_msg=name)


def test_explains_at_the_rate_of_the_dial():
    model = explanation_model(with_keep_rate(built("evit"), 0.3))
    kept = model(images_for("evit"))["kept"].numpy()
    # ceil(0.3 * 24) = 8; of 9 with the fused one 3; of 4, 2. A fused one may stay.
    assert np.all(kept.sum(axis=(2, 3)) <= [8, 3, 2])
    assert np.all(kept.sum(axis=(2, 3)) >= [8, 2, 1])


def test_explains_what_one_head_of_two_says():
    one_head = inference_model(built("distilled"), "distillation")
    outputs = explanation_model(one_head)(images_for("distilled"))
    expected = one_head(images_for("distilled"))
    np.testing.assert_array_equal(outputs["logits"], expected)
    for name in ("attention", "rollout", "kept"):
        np.testing.assert_array_equal(outputs[name], explained("distilled")[name])


def test_adds_one_operation_to_a_model_of_one_head():
    # In a model from a file, their names would clash with those that are there.
    def names(model):
        return {operation.name for operation in model.operations}

    model = inference_model(built("distilled"), "class")
    assert names(explanation_model(model)) - names(model) == {"token_trail"}


def test_shares_the_weights_and_declares_its_outputs():
    model = built("distilled")
    explanation = explanation_model(model)
    assert {id(w) for w in explanation.weights} == {id(w) for w in model.weights}
    assert explanation.name == f"{model.name}_explanation"
    assert {name: x.shape for name, x in explanation.output.items()} == {
        "logits": (None, 5),
        "attention": (None, 4, 2, 4, 6),
        "rollout": (None, 2, 4, 6),
        "kept": (None, 3, 4, 6),
    }
    before = model(images_for("distilled"))
    explanation_model(model)
    after = model(images_for("distilled"))
    keras.tree.map_structure(np.testing.assert_array_equal, before, after)


@pytest.mark.slow
def test_is_saved_like_any_model(tmp_path):
    explanation_model(built("half")).save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for name, x in loaded(images_for("half")).items():
        np.testing.assert_array_equal(x, explained("half")[name], err_msg=name)


def wrapped(model):
    return keras.Model(model.input, model(model.input), name="wrapped")


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: build_model("regnety_micro_32", 5), "regnety_micro_32"),
        (lambda: build_model(DEIT, 5, depth=0), DEIT),
        (lambda: wrapped(built("plain")), "wrapped"),
        (lambda: with_kept_patches(built("evit")), DEIT),
        (lambda: explanation_model(built("plain")), f"{DEIT}_explanation"),
    ],
)
def test_refuses_what_is_no_transformer_of_ours(make, name):
    with pytest.raises(ValueError, match=f"{NOT_OURS}{name}'"):
        explanation_model(make())
