import numpy as np
import pytest

from keras_deit.models.factory import build_model
from keras_deit.weights.key_maps import (
    from_official,
    official_names,
    official_shape,
    to_official,
)

PERFORMER = "tokens_to_token/performer"
TRANSFORMER = "tokens_to_token/transformer"
SMALL_T2T = {"embed_dim": 24, "num_heads": 2, "depth": 1, "token_dim": 8}


def affine(name, out_dim, in_dim=None):
    """A weight and a bias; of a normalization if there is no `in_dim`."""
    weight = (out_dim, in_dim) if in_dim else (out_dim,)
    return {f"{name}.weight": weight, f"{name}.bias": (out_dim,)}


def blocks(depth, dim, mlp_dim, qkv_bias):
    shapes = {}
    for i in range(depth):
        block = f"blocks.{i}"
        qkv = affine(f"{block}.attn.qkv", 3 * dim, dim)
        if not qkv_bias:
            del qkv[f"{block}.attn.qkv.bias"]
        shapes |= qkv | affine(f"{block}.attn.proj", dim, dim)
        shapes |= affine(f"{block}.norm1", dim) | affine(f"{block}.norm2", dim)
        shapes |= affine(f"{block}.mlp.fc1", mlp_dim, dim)
        shapes |= affine(f"{block}.mlp.fc2", dim, mlp_dim)
    return shapes | affine("norm", dim)


def deit_tiny(distilled):
    shapes = {
        "cls_token": (1, 1, 192),
        "pos_embed": (1, 198 if distilled else 197, 192),
        "patch_embed.proj.weight": (192, 3, 16, 16),
        "patch_embed.proj.bias": (192,),
        **blocks(12, 192, 768, qkv_bias=True),
        **affine("head", 1000, 192),
    }
    if distilled:
        shapes |= {"dist_token": (1, 1, 192)} | affine("head_dist", 1000, 192)
    return shapes


def t2t_14(performer, depth):
    shapes = {
        "cls_token": (1, 1, 384),
        "pos_embed": (1, 197, 384),
        **affine("tokens_to_token.project", 384, 576),
        **blocks(depth, 384, 1152, qkv_bias=False),
        **affine("head", 1000, 384),
    }
    for attention, in_dim in [("attention1", 147), ("attention2", 576)]:
        layer = f"tokens_to_token.{attention}"
        shapes |= affine(f"{layer}.norm1", in_dim) | affine(f"{layer}.norm2", 64)
        if performer:
            shapes[f"{layer}.w"] = (32, 64)
            shapes |= affine(f"{layer}.kqv", 192, in_dim)
            parts = ("proj", "mlp.0", "mlp.2")
        else:
            shapes[f"{layer}.attn.qkv.weight"] = (192, in_dim)
            parts = ("attn.proj", "mlp.fc1", "mlp.fc2")
        for part in parts:
            shapes |= affine(f"{layer}.{part}", 64, 64)
    return shapes


def conv_bn(name, out_dim, in_dim, side=1):
    norm = ("weight", "bias", "running_mean", "running_var")
    return {
        f"{name}.conv.weight": (out_dim, in_dim, side, side),
        **{f"{name}.bn.{leaf}": (out_dim,) for leaf in norm},
    }


def regnety(stem, group_width, stages):
    """Shapes from a row of the official table: stages of (depth, width, SE widths)."""
    shapes, in_dim = conv_bn("stem", stem, 3, side=3), stem
    for stage, (depth, width, *squeezed) in enumerate(stages, start=1):
        for i in range(depth):
            block, hidden = f"s{stage}.b{i + 1}", squeezed[min(i, 1)]
            shapes |= conv_bn(f"{block}.conv1", width, in_dim)
            shapes |= conv_bn(f"{block}.conv2", width, group_width, side=3)
            shapes |= conv_bn(f"{block}.conv3", width, width)
            shapes[f"{block}.se.fc1.weight"] = (hidden, width, 1, 1)
            shapes[f"{block}.se.fc1.bias"] = (hidden,)
            shapes[f"{block}.se.fc2.weight"] = (width, hidden, 1, 1)
            shapes[f"{block}.se.fc2.bias"] = (width,)
            if i == 0:
                shapes |= conv_bn(f"{block}.downsample", width, in_dim)
            in_dim = width
    return shapes | affine("head.fc", 1000, in_dim)


def ours(model):
    names = official_names(weight.path for weight in model.weights)
    assert len(set(names.values())) == len(model.weights)  # each name once
    return {
        names[weight.path]: official_shape(weight.path, weight.shape)
        for weight in model.weights
    }


def test_a_dense_kernel_is_transposed():
    value = np.array([[1, 2], [3, 4], [5, 6]])  # 3 out, 2 in
    kernel = from_official("norm/kernel", value)
    assert kernel.tolist() == [[1, 3, 5], [2, 4, 6]]
    assert to_official("norm/kernel", kernel).tolist() == value.tolist()


def test_a_convolution_has_its_window_first():
    value = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)  # out, in, rows, columns
    kernel = from_official("stem/conv/kernel", value)
    np.testing.assert_array_equal(kernel, value.transpose(2, 3, 1, 0))
    assert kernel.shape == (4, 5, 3, 2)
    assert kernel[3, 4, 2, 1] == value[1, 2, 3, 4]
    np.testing.assert_array_equal(to_official("stem/conv/kernel", kernel), value)


def test_a_dense_layer_of_squeeze_and_excitation_is_a_convolution_there():
    path = "stage_1_block_0/squeeze_excite/fc1/kernel"
    value = np.array([[[[1]], [[2]]], [[[3]], [[4]]], [[[5]], [[6]]]])  # (3, 2, 1, 1)
    kernel = from_official(path, value)
    assert kernel.tolist() == [[1, 3, 5], [2, 4, 6]]
    np.testing.assert_array_equal(to_official(path, kernel), value)
    assert official_shape(path, (2, 3)) == (3, 2, 1, 1)


@pytest.mark.parametrize(
    "path",
    [
        "tokens_to_token/performer_0/random_features",
        "position_embedding/embedding",
        "stage_1_block_0/squeeze_excite/fc1/bias",
        "norm/gamma",
    ],
)
def test_what_is_no_kernel_stays_as_it_lies(path):
    value = np.arange(12, dtype="float32").reshape(3, 4)
    assert official_shape(path, (3, 4)) == (3, 4)
    np.testing.assert_array_equal(from_official(path, value), value)
    np.testing.assert_array_equal(to_official(path, value), value)


@pytest.mark.parametrize("convert", [from_official, to_official])
def test_values_are_float32_one_after_the_other(convert):
    for path in ("class_head/kernel", "class_head/bias"):
        value = convert(path, np.ones((2, 3), "float16"))
        assert value.dtype == "float32"
        assert value.flags.c_contiguous


# Weights of the same shape, which the lists below cannot tell apart.
@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("prefix_tokens/class_token", "cls_token"),
        ("prefix_tokens/distillation_token", "dist_token"),
        ("class_head/bias", "head.bias"),
        ("distillation_head/bias", "head_dist.bias"),
        ("block_11/norm1/gamma", "blocks.11.norm1.weight"),
        ("block_11/norm1/beta", "blocks.11.norm1.bias"),
        ("block_11/norm2/beta", "blocks.11.norm2.bias"),
        ("block_11/attention/projection/bias", "blocks.11.attn.proj.bias"),
        ("block_11/mlp/fc2/bias", "blocks.11.mlp.fc2.bias"),
        ("norm/beta", "norm.bias"),
        (f"{PERFORMER}_0/norm2/gamma", "tokens_to_token.attention1.norm2.weight"),
        (f"{PERFORMER}_0/projection/kernel", "tokens_to_token.attention1.proj.weight"),
        (f"{PERFORMER}_0/mlp/fc1/kernel", "tokens_to_token.attention1.mlp.0.weight"),
        (f"{PERFORMER}_1/mlp/fc2/kernel", "tokens_to_token.attention2.mlp.2.weight"),
        (f"{PERFORMER}_1/random_features", "tokens_to_token.attention2.w"),
        (
            f"{TRANSFORMER}_0/projection/bias",
            "tokens_to_token.attention1.attn.proj.bias",
        ),
        (f"{TRANSFORMER}_1/mlp/fc1/bias", "tokens_to_token.attention2.mlp.fc1.bias"),
        (f"{TRANSFORMER}_1/mlp/fc2/bias", "tokens_to_token.attention2.mlp.fc2.bias"),
        ("tokens_to_token/projection/bias", "tokens_to_token.project.bias"),
    ],
)
def test_a_weight_has_the_name_of_its_role(path, name):
    assert official_names([path]) == {path: name}


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("stem/norm/gamma", "stem.bn.weight"),
        ("stem/norm/beta", "stem.bn.bias"),
        ("stem/norm/moving_mean", "stem.bn.running_mean"),
        ("stem/norm/moving_variance", "stem.bn.running_var"),
        ("stage_3_block_10/conv1/conv/kernel", "s3.b11.conv1.conv.weight"),
        ("stage_3_block_10/conv3/norm/beta", "s3.b11.conv3.bn.bias"),
        ("stage_3_block_0/shortcut/norm/gamma", "s3.b1.downsample.bn.weight"),
        ("stage_3_block_0/squeeze_excite/fc1/bias", "s3.b1.se.fc1.bias"),
        ("stage_3_block_0/squeeze_excite/fc2/kernel", "s3.b1.se.fc2.weight"),
        ("class_head/kernel", "head.fc.weight"),
    ],
)
def test_a_weight_of_a_regnety_has_the_name_of_its_role(path, name):
    assert official_names(["stem/conv/kernel", path])[path] == name


@pytest.mark.parametrize(("distilled", "count"), [(False, 152), (True, 155)])
def test_deit_has_its_official_names_and_shapes(distilled, count):
    model = build_model("deit_tiny_patch16_224", distilled=distilled)
    assert ours(model) == deit_tiny(distilled)
    assert len(ours(model)) == count


@pytest.mark.parametrize(
    ("name", "performer", "count"),
    [("t2t_vit_14", True, 188), ("t2t_vit_t_14", False, 184)],
)
@pytest.mark.parametrize("depth", [1, pytest.param(14, marks=pytest.mark.slow)])
def test_t2t_vit_has_its_official_names_and_shapes(name, performer, count, depth):
    model = build_model(name, depth=depth)
    assert ours(model) == t2t_14(performer, depth)
    assert len(ours(model)) == count - (14 - depth) * 11


def test_evit_has_the_names_of_deit():
    sizes = {"image_size": 32, "embed_dim": 24, "depth": 2}
    evit = build_model("evit_tiny_patch16_224", reorganize_at=(1,), **sizes)
    assert ours(evit) == ours(build_model("deit_tiny_patch16_224", **sizes))


def test_a_small_regnety_has_its_official_names_and_shapes():
    # SE: a quarter of the width that enters the block.
    stages = [(1, 32, 4), (1, 64, 8), (2, 128, 16, 32)]
    assert ours(build_model("regnety_micro_32")) == regnety(16, 16, stages)


@pytest.mark.slow
def test_the_teacher_of_deit_has_its_official_names_and_shapes():
    stages = [
        (2, 224, 8, 56),
        (4, 448, 56, 112),
        (11, 1232, 112, 308),
        (1, 3024, 308),
    ]
    names = ours(build_model("regnety_160"))
    assert names == regnety(32, 112, stages)
    norms = sum(name.endswith("running_var") for name in names)
    assert len(names) + norms == 428  # PyTorch's also count their batches


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("t2t_vit_7", 111),
        ("t2t_vit_10", 144),
        ("t2t_vit_12", 166),
        ("t2t_vit_19", 243),
        ("t2t_vit_24", 298),
        ("t2t_vit_t_19", 239),
        ("t2t_vit_t_24", 294),
    ],
)
def test_every_t2t_vit_has_as_many_weights_as_published(name, count):
    sizes = {"embed_dim": 8, "num_heads": 1, "token_dim": 8, "image_size": 64}
    assert len(ours(build_model(name, **sizes))) == count


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("deit_micro_distilled_patch4_32", {"depth": 1}),
        ("t2t_vit_micro_32", SMALL_T2T),
        ("t2t_vit_micro_32", {"attention": "transformer", **SMALL_T2T}),
        ("regnety_micro_32", {}),
    ],
)
def test_there_and_back_again_is_the_same(name, changes):
    rng = np.random.default_rng(0)
    for weight in build_model(name, 5, **changes).weights:
        value = rng.normal(size=weight.shape).astype("float32")
        there = to_official(weight.path, value)
        assert there.shape == official_shape(weight.path, weight.shape)
        np.testing.assert_array_equal(from_official(weight.path, there), value)


def test_the_family_is_known_by_its_stem_wherever_that_stands():
    paths = ["class_head/kernel", "stem/conv/kernel"]
    assert official_names(iter(paths)) == {
        "class_head/kernel": "head.fc.weight",
        "stem/conv/kernel": "stem.conv.weight",
    }
    assert official_names(paths[:1]) == {"class_head/kernel": "head.weight"}
