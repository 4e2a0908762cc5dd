"""Multiply-adds of the transformers as formulas, to hold `count_macs` to."""

import math


def block_macs(tokens, left, dim, hidden_dim):
    """Attention sees `tokens`, the MLP those that are left of them."""
    projections = tokens * dim * 3 * dim + tokens * dim * dim
    scores_and_values = 2 * tokens * tokens * dim
    return projections + scores_and_values + 2 * left * dim * hidden_dim


def patches_left(num_patches, keep_rate, fuse):
    kept = math.ceil(keep_rate * num_patches)
    return num_patches if kept == num_patches else kept + fuse


def encoder_macs(encoder, num_patches):
    depth, dim, prefix = encoder.depth, encoder.embed_dim, 1 + encoder.distilled
    reorganize_at = encoder.reorganize_at
    if reorganize_at is None:
        reorganize_at = depth // 4, depth // 2, 3 * depth // 4
    macs = prefix * dim * encoder.num_classes
    for block in range(depth):
        left = num_patches
        if block in reorganize_at:
            left = patches_left(num_patches, encoder.keep_rate, encoder.fuse)
        hidden_dim = int(encoder.mlp_ratio * dim)
        macs += block_macs(prefix + num_patches, prefix + left, dim, hidden_dim)
        num_patches = left
    return macs


def vit_macs(config):
    height, width = config.image_size
    patch = config.patch_size**2
    num_patches = height * width // patch
    embedding = num_patches * 3 * patch * config.encoder.embed_dim
    return embedding + encoder_macs(config.encoder, num_patches)


def module_macs(tokens, width, dim, attention):
    """Of one attention between two soft splits, the MLP included."""
    if attention == "performer":
        products = 4 * tokens * dim * (dim // 2)
    else:
        products = 2 * tokens * tokens * dim
    # Query, key and value; the projection; two layers of the MLP.
    return tokens * width * 3 * dim + products + 3 * tokens * dim * dim


def t2t_macs(config):
    (rows, columns), width, macs = config.image_size, 3, 0
    *inner, last = config.splits
    for kernel_size, stride in inner:
        rows, columns = rows // stride, columns // stride
        width *= kernel_size**2
        macs += module_macs(rows * columns, width, config.token_dim, config.attention)
        width = config.token_dim
    num_patches = rows * columns // last[1] ** 2
    projection = num_patches * width * last[0] ** 2 * config.encoder.embed_dim
    return macs + projection + encoder_macs(config.encoder, num_patches)


def transformer_macs(config):
    return t2t_macs(config) if hasattr(config, "splits") else vit_macs(config)
