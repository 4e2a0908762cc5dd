"""Operations of RandAugment carried out by the layers of KerasCV.

A layer of KerasCV draws from a generator with a state. Here it draws nothing: only its
`augment_images` (or `augment_image`) is called, with the transformation that it is
given, so that an operation is a pure function, as a view must be.

Two of the fifteen operations are not there, as no layer does them: `SolarizeAdd`
(`Solarization` adds to all pixels and then inverts) and `BrightnessIncreasing`
(`RandomBrightness` adds a constant where PIL multiplies). Mixing and erasing are not
there either: `MixUp` and `CutMix` keep their arithmetic private, and the noise of
`RandomCutout`, the nearest to random erasing, is drawn inside.
"""

import functools
import math

import tensorflow as tf

from keras_deit.data.affine import FILL


def keras_cv_operations():
    """Builds the operations, outside of `tf.data`, because layers make variables.

    They differ from PIL, which timm uses:

    - `Rotate`, the shears and the translations are bilinear where timm is bicubic, and
      a shear is measured from the center of the first pixel, not from its corner.
    - `ContrastIncreasing` takes the mean of each channel, not that of the grey image.
    - The others differ by rounding alone, by at most 2 grey levels at a factor of 1.9.

    Returns:
        Functions by the names of `rand_augment.OPERATIONS`, of an image, uint8, shape
        (H, W, 3), of at least 3 x 3 pixels, and timm's argument, float32, shape (), to
        an image like it.

    Reference:
        KerasCV 0.9, `keras_cv.layers`.
    """
    from keras_cv import layers

    levels, plain = (0, 255), {"dtype": "float32"}
    constant = {"fill_mode": "constant", "interpolation": "bilinear", **plain}
    solarization = layers.Solarization(levels, **plain)
    posterizations = [layers.Posterization(levels, n, **plain) for n in range(1, 9)]
    shear = layers.RandomShear(0.0, 0.0, **constant)
    translation = layers.RandomTranslation(0.0, 0.0, **constant)

    def solarize(threshold):
        return {"additions": 0.0, "thresholds": threshold}

    operations = {
        "AutoContrast": _colors(layers.AutoContrast(levels, **plain), lambda _: None),
        "Equalize": _colors(layers.Equalization(levels, **plain), lambda _: None),
        "Invert": _colors(solarization, lambda _: solarize(0.0)),
        "Rotate": _places(
            layers.RandomRotation(0.0, **constant),
            lambda degrees: {"angles": [degrees * (math.pi / 180)]},
        ),
        "PosterizeIncreasing": _posterization(posterizations),
        "SolarizeIncreasing": _colors(solarization, solarize),
        "ColorIncreasing": _colors(
            layers.RandomColorDegeneration(0.0, **plain), lambda factor: 1 - factor
        ),
        "ContrastIncreasing": _colors(
            layers.RandomContrast(levels, 0.0, **plain), lambda factor: factor
        ),
        "SharpnessIncreasing": _colors(
            layers.RandomSharpness(0.0, levels, **plain), lambda factor: 1 - factor
        ),
        "ShearX": _places(shear, lambda x: {"shear_x": [[x]], "shear_y": None}),
        "ShearY": _places(shear, lambda y: {"shear_x": None, "shear_y": [[y]]}),
        "TranslateXRel": _places(translation, lambda x: _shift(x, 0.0)),
        "TranslateYRel": _places(translation, lambda y: _shift(0.0, y)),
    }
    # A function of its own converts what layers do with `if` and `and` on tensors; in a
    # map inside of another one, nothing else does.
    return {name: tf.function(operation) for name, operation in operations.items()}


def _shift(x, y):
    return {"width_translations": [[-x]], "height_translations": [[-y]]}


def _colors(layer, transformation_of):
    """Drives a layer that changes the colors."""

    def operation(image, argument):
        transformation = transformation_of(argument)
        return _grey_levels(_augmented(layer, _pixels(image), transformation))

    return operation


def _places(layer, transformation_of):
    """Drives a layer that moves pixels and fills up with 0: seen from `FILL`."""

    def operation(image, argument):
        transformation = transformation_of(argument)
        moved = _augmented(layer, _pixels(image) - FILL, transformation)
        return _grey_levels(moved + FILL)

    return operation


def _posterization(layers):
    """Chooses the layer that keeps 1, 2, ... bits; KerasCV refuses to keep none."""

    def keep(layer, image):
        return _grey_levels(layer.augment_image(_pixels(image)))

    def operation(image, bits):
        black = functools.partial(tf.zeros_like, image)
        kept = [functools.partial(keep, layer, image) for layer in layers]
        return tf.switch_case(tf.cast(bits, tf.int32), [black, *kept])

    return operation


def _augmented(layer, pixels, transformation):
    return layer.augment_images(pixels[None], transformations=transformation)[0]


def _pixels(image):
    return tf.cast(image, tf.float32)


def _grey_levels(pixels):
    return tf.saturate_cast(tf.round(pixels), tf.uint8)
