"""The T2T module: an image in, tokens out that know their neighbors."""

import keras
from keras import ops

from keras_deit._checks import check, check_choice
from keras_deit.layers.soft_split import SoftSplit, split_grid
from keras_deit.layers.token_performer import TokenPerformer
from keras_deit.layers.token_transformer import TokenTransformer

ATTENTIONS = {"performer": TokenPerformer, "transformer": TokenTransformer}
OFFICIAL_SPLITS = ((7, 4), (3, 2), (3, 2))


def tokens_to_grid(tokens, rows: int, columns: int):
    """Puts tokens (B, rows * columns, D) back in their places: (B, rows, columns, D).

    Reference:
        Yuan et al., T2T-ViT (arXiv:2101.11986), section 3.1, "re-structurization".
    """
    return ops.reshape(tokens, (-1, rows, columns, tokens.shape[-1]))


@keras.saving.register_keras_serializable(package="keras_deit")
class TokensToToken(keras.layers.Layer):
    """Turns an image into tokens by soft splits with attention between them.

    Soft split, attention, back to a grid; and again, until the last soft split, whose
    tokens are projected to `embed_dim`. Rows and columns are carried along, so that
    images need not be square.

    Args:
        embed_dim: D, width of the outgoing tokens.
        token_dim: Width of the tokens between the soft splits.
        attention: "performer" or "transformer", what is between the soft splits.
        splits: (kernel_size, stride) of each soft split.

    Call arguments:
        pixels: Normalized pixels, shape (B, H, W, 3).

    Returns:
        Tokens, shape (B, N, D). With the official splits N = (H / 16) * (W / 16).

    Raises:
        ValueError: If `attention` is another one, there are no `splits`, or the image
            is not a multiple of the product of the strides.

    Example:
    >>> layer = TokensToToken(embed_dim=8, token_dim=4)
    >>> tuple(layer(ops.ones((1, 32, 48, 3))).shape)
    (1, 6, 8)

    Reference:
        Yuan et al., T2T-ViT (arXiv:2101.11986), section 3.1, figure 3; official code
        `t2t_vit.py`, `T2T_module`, which takes square images only.
    """

    def __init__(
        self,
        embed_dim,
        token_dim=64,
        attention="performer",
        splits=OFFICIAL_SPLITS,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_choice("attention", attention, ATTENTIONS)
        check(
            len(splits) > 0 and all(1 <= stride <= size for size, stride in splits),
            "`splits` must be pairs of a kernel size and a stride in [1, kernel_size].",
            splits=splits,
        )
        self.embed_dim = embed_dim
        self.token_dim = token_dim
        self.attention = attention
        self.splits = tuple(tuple(split) for split in splits)

    def build(self, input_shape):
        _, *size, channels = input_shape
        step = self.step
        check(
            all(size) and all(side % step == 0 for side in size),
            f"`image_size` must be a multiple of {step}, the product of the strides.",
            image_size=tuple(size),
        )
        dtype = self.dtype_policy
        self.soft_splits, self.attentions, self.grids = [], [], []
        for index, (kernel_size, stride) in enumerate(self.splits):
            split = SoftSplit(
                kernel_size, stride, dtype=dtype, name=f"soft_split_{index}"
            )
            split.build((None, *size, channels))
            self.soft_splits.append(split)
            size = split_grid(size, kernel_size, stride)
            self.grids.append(size)
            dim, channels = channels * kernel_size**2, self.token_dim
            if index < len(self.splits) - 1:
                attention = ATTENTIONS[self.attention](
                    self.token_dim, dtype=dtype, name=f"{self.attention}_{index}"
                )
                attention.build((None, size[0] * size[1], dim))
                self.attentions.append(attention)
        self.projection = keras.layers.Dense(
            self.embed_dim,
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.02),
            dtype=dtype,
            name="projection",
        )
        self.projection.build((None, dim))

    @property
    def step(self) -> int:
        """Pixels from one outgoing token to the next: the product of the strides."""
        product = 1
        for _, stride in self.splits:
            product *= stride
        return product

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the outgoing tokens."""
        return self.grids[-1]

    def call(self, pixels, training=None):
        x = pixels
        for split, attention, grid in zip(
            self.soft_splits, self.attentions, self.grids, strict=False
        ):
            x = attention(split(x), training=training)  # (B, rows * columns, d)
            x = tokens_to_grid(x, *grid)
        x = self.soft_splits[-1](x)  # (B, N, 9 d)
        rows, columns = self.grid
        x = self.projection(ops.reshape(x, (-1, x.shape[-1])))
        return ops.reshape(x, (-1, rows * columns, self.embed_dim))

    def compute_output_shape(self, input_shape):
        batch, *grid, _ = input_shape
        for split in self.splits:
            grid = split_grid(grid, *split)
        return (batch, grid[0] * grid[1], self.embed_dim)

    def get_config(self):
        return {
            **super().get_config(),
            "embed_dim": self.embed_dim,
            "token_dim": self.token_dim,
            "attention": self.attention,
            "splits": self.splits,
        }
