"""What a picture goes through before it is tokens."""

from dataclasses import asdict, dataclass

import keras

from keras_deit.layers.pixel_normalization import PixelNormalization


@dataclass(frozen=True)
class Preprocessing:
    """What the weights of a variant expect of a picture.

    Attributes:
        mean: Mean of each channel, for pixels in [0, 1].
        std: Standard deviation of each channel, for pixels in [0, 1].
        crop_ratio: Side of the center crop over the shorter side of the resized image,
            in (0, 1], at evaluation. With 0.875 an image is resized to 256 pixels and
            cropped to 224.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    crop_ratio: float


IMAGENET = Preprocessing(
    mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), crop_ratio=0.875
)
# Images that are small already are taken whole.
WHOLE_IMAGE = Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3, crop_ratio=1.0)


def normalize_pixels(preprocessing: Preprocessing, dtype=None) -> PixelNormalization:
    """Makes the first layer of a model, which remembers the preprocessing."""
    return PixelNormalization(
        **asdict(preprocessing), dtype=dtype, name="pixel_normalization"
    )


def preprocessing_of(model: keras.Model) -> Preprocessing:
    """Reads what a model expects of a picture.

    Args:
        model: A model of this package, loaded from a file or built here; for any other,
            pixels are assumed to be taken whole and as they are.

    Returns:
        Mean, standard deviation and crop ratio.
    """
    for layer in model.layers:
        if isinstance(layer, PixelNormalization):
            return Preprocessing(layer.mean, layer.std, layer.crop_ratio)
    return Preprocessing(mean=(0.0,) * 3, std=(1 / 255,) * 3, crop_ratio=1.0)
