"""The official names of our weights, and their layout there.

A name follows from ours by substitutions, a list for each family; what is left of it
stays, with "." for "/". In the official files a dense kernel is (out, in), a
convolution's is (out, in, rows, columns).
"""

import re
from collections.abc import Iterable

import numpy as np

# What a weight is called within its layer.
LEAVES = (
    (r"/(kernel|gamma)$", "/weight"),
    (r"/beta$", "/bias"),
    (r"/moving_mean$", "/running_mean"),
    (r"/moving_variance$", "/running_var"),
)

# DeiT `models.py`, EViT `evit.py`, timm `vision_transformer.py`, T2T-ViT `t2t_vit.py`
# with `token_performer.py` and `token_transformer.py`.
TRANSFORMER = (
    (r"^patch_embedding/projection", "patch_embed/proj"),
    (r"^prefix_tokens/class_token$", "cls_token"),
    (r"^prefix_tokens/distillation_token$", "dist_token"),
    (r"^position_embedding/embedding$", "pos_embed"),
    (r"^block_", "blocks/"),
    (r"/attention/projection", "/attn/proj"),
    (r"/attention/", "/attn/"),
    (r"^class_head", "head"),
    (r"^distillation_head", "head_dist"),
    (r"^tokens_to_token/projection", "tokens_to_token/project"),
    (r"(performer_\d+)/projection", r"\1/proj"),
    (r"(performer_\d+)/random_features", r"\1/w"),
    (r"(performer_\d+)/mlp/fc1", r"\1/mlp/0"),
    (r"(performer_\d+)/mlp/fc2", r"\1/mlp/2"),
    (r"(transformer_\d+)/projection", r"\1/attn/proj"),
    (r"(transformer_\d+)/qkv", r"\1/attn/qkv"),
    (r"(?:performer|transformer)_(\d+)", lambda m: f"attention{int(m[1]) + 1}"),
)

# timm `regnet.py`.
REGNET = (
    (r"^stage_(\d+)_block_(\d+)", lambda m: f"s{m[1]}/b{int(m[2]) + 1}"),
    (r"/shortcut/", "/downsample/"),
    (r"/norm/", "/bn/"),
    (r"/squeeze_excite/", "/se/"),
    (r"^class_head", "head/fc"),
)


FIRST_LAYERS = ("patch_embedding/", "tokens_to_token/", "stem/")


def has_official_names(paths: Iterable[str]) -> bool:
    """Whether these are the paths of a model whose official names are known."""
    return any(path.startswith(FIRST_LAYERS) for path in paths)


def official_names(paths: Iterable[str]) -> dict[str, str]:
    """Names the weights of a model as the official checkpoints do.

    Args:
        paths: The paths of all weights of a model.

    Returns:
        The official name of each path.

    Example:
    >>> list(official_names(["block_3/norm1/gamma"]).values())
    ['blocks.3.norm1.weight']
    """
    paths = list(paths)
    is_regnet = any(path.startswith("stem/") for path in paths)
    rules = (*LEAVES, *(REGNET if is_regnet else TRANSFORMER))
    names = {}
    for path in paths:
        name = path
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        names[path] = name.replace("/", ".")
    return names


def _is_pointwise(path: str) -> bool:
    """Whether a dense kernel of ours is a 1 x 1 convolution there."""
    return "/squeeze_excite/" in path


def official_shape(path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape that a weight of ours has in an official checkpoint."""
    if not path.endswith("/kernel"):
        return tuple(shape)
    *window, in_dim, out_dim = shape
    return (out_dim, in_dim, *((1, 1) if _is_pointwise(path) else window))


def from_official(path: str, value: np.ndarray) -> np.ndarray:
    """A weight of an official checkpoint in our layout, float32."""
    if path.endswith("/kernel"):
        if _is_pointwise(path):
            value = value[:, :, 0, 0]
        value = np.moveaxis(value, (1, 0), (-2, -1))
    return np.ascontiguousarray(value, dtype="float32")


def to_official(path: str, value: np.ndarray) -> np.ndarray:
    """A weight of ours in the layout of an official checkpoint, float32."""
    if path.endswith("/kernel"):
        value = np.moveaxis(value, (-2, -1), (1, 0))
        if _is_pointwise(path):
            value = value[..., None, None]
    return np.ascontiguousarray(value, dtype="float32")
