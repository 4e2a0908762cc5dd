"""Tensors in, tensors out: the layers, in `keras.ops` only."""

from keras_deit.layers.attention import MultiHeadSelfAttention
from keras_deit.layers.conv_norm import ConvNorm, GroupedConv2D
from keras_deit.layers.encoder_block import EncoderBlock
from keras_deit.layers.feed_forward import FeedForward
from keras_deit.layers.layer_norm import LayerNormalization
from keras_deit.layers.patch_embedding import PatchEmbedding
from keras_deit.layers.pixel_normalization import PixelNormalization
from keras_deit.layers.position_embedding import PositionEmbedding
from keras_deit.layers.prefix_tokens import PrefixTokens
from keras_deit.layers.regnet_block import RegNetBlock
from keras_deit.layers.soft_split import SoftSplit
from keras_deit.layers.squeeze_excite import SqueezeExcite
from keras_deit.layers.token_performer import TokenPerformer
from keras_deit.layers.token_reorganization import TokenReorganization
from keras_deit.layers.token_transformer import TokenTransformer
from keras_deit.layers.tokens_to_token import TokensToToken

__all__ = [
    "ConvNorm",
    "EncoderBlock",
    "FeedForward",
    "GroupedConv2D",
    "LayerNormalization",
    "MultiHeadSelfAttention",
    "PatchEmbedding",
    "PixelNormalization",
    "PositionEmbedding",
    "PrefixTokens",
    "RegNetBlock",
    "SoftSplit",
    "SqueezeExcite",
    "TokenPerformer",
    "TokenReorganization",
    "TokenTransformer",
    "TokensToToken",
]
