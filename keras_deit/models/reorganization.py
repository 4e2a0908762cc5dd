"""One set of weights at any keep rate, and a look at which tokens stay."""

import keras
from keras import ops

from keras_deit._checks import check
from keras_deit.layers.encoder_block import EncoderBlock
from keras_deit.layers.token_reorganization import num_kept_tokens

FUSED = -1  # stands for a fused token where the patches of an image are listed


def encoder_blocks(model: keras.Model) -> list[EncoderBlock]:
    """The encoder blocks of a model, in their order."""
    return [layer for layer in model.layers if isinstance(layer, EncoderBlock)]


def reconnected(model: keras.Model, call_block) -> keras.Model:
    """Connects the layers of a model anew, its encoder blocks by `call_block`.

    Args:
        model: A functional model.
        call_block: Called with an encoder block, its tokens and the other arguments of
            its call; returns what the block returns.

    Returns:
        A functional `keras.Model` of the very same layers.
    """

    def call(layer, *args, **kwargs):
        if isinstance(layer, EncoderBlock):
            return call_block(layer, *args, **kwargs)
        return layer(*args, **kwargs)

    return keras.models.clone_model(
        model, clone_function=lambda layer: layer, call_function=call
    )


def _rebuilt(model: keras.Model, call_block) -> keras.Model:
    """Connects a model anew, its reorganizing blocks by `call_block`."""
    check(
        any(block.reorganization is not None for block in encoder_blocks(model)),
        "The model must have encoder blocks that reorganize tokens (`reorganize_at`).",
        model=model.name,
    )

    def call(block, *args, **kwargs):
        if block.reorganization is None:
            return block(*args, **kwargs)
        return call_block(block, *args, **kwargs)

    return reconnected(model, call)


def with_keep_rate(model: keras.Model, keep_rate: float) -> keras.Model:
    """Builds a model with another keep rate that shares the weights of `model`.

    Args:
        model: A ViT, DeiT, EViT or T2T-ViT of this package; also one whose keep rate
            is 1.
        keep_rate: Share of the patch tokens that stay at each reorganization, in
            (0, 1].

    Returns:
        A functional `keras.Model` with the same input and outputs.

    Raises:
        ValueError: If `keep_rate` is outside (0, 1], or no block of the model
            reorganizes tokens.
    """
    num_kept_tokens(1, keep_rate)  # refuses a wrong rate

    def call(block, *args, **kwargs):
        return block(*args, **{**kwargs, "keep_rate": keep_rate})

    return _rebuilt(model, call)


def with_kept_patches(model: keras.Model) -> keras.Model:
    """Builds a model that shares the weights of `model` and says which patches stay.

    Args:
        model: A model whose keep rate is below 1.

    Returns:
        A functional `keras.Model` that returns a pair: what `model` returns, and a list
        with the patches that each reorganization keeps, int32, (B, K). A patch is
        numbered row by row from 0, and stands in order of falling class attention; a
        fused token that is kept is -1.

    Raises:
        ValueError: If the model drops no token.

    Reference:
        Official EViT code `visualize_mask.py`, which shows a fused token as patch 0.
    """
    kept_patches = []

    def call(block, tokens, **kwargs):
        rate = kwargs.get("keep_rate")
        num_patches = tokens.shape[1] - block.num_prefix_tokens
        tokens, kept = block(tokens, **kwargs)
        if block.reorganization.num_kept(num_patches, rate) < num_patches:
            patches = kept
            if kept_patches:  # `kept` are places among what the last cut left
                left = ((0, 0), (0, 1))  # a fused token behind the patches
                last = ops.pad(kept_patches[-1], left, constant_values=FUSED)
                patches = ops.take_along_axis(last, kept, axis=1)
            kept_patches.append(patches)
        return tokens, kept

    rebuilt = _rebuilt(model, call)
    check(
        bool(kept_patches),
        "The model must drop tokens: lower its keep rate, see `with_keep_rate`.",
        model=model.name,
    )
    return keras.Model(
        rebuilt.inputs[0], (rebuilt.output, kept_patches), name=model.name
    )
