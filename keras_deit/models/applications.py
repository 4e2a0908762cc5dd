"""The networks of `keras.applications`, as teachers that take pixels in [0, 255]."""

import re
from collections import Counter
from pathlib import Path

import keras

from keras_deit._checks import check, check_choice
from keras_deit.models.factory import image_height_and_width
from keras_deit.models.preprocessing import (
    IMAGENET,
    Preprocessing,
    normalize_pixels,
)

PREFIX = "keras:"  # of their names among the variants
IMAGE_SIZE = (224, 224)  # where none is given

_CROP_RATIO = IMAGENET.crop_ratio
_PLUS_MINUS_ONE = Preprocessing((0.5,) * 3, (0.5,) * 3, _CROP_RATIO)
_BY_128 = Preprocessing((128 / 255,) * 3, (128 / 255,) * 3, _CROP_RATIO)
_CAFFE_MEAN = (123.68 / 255, 116.779 / 255, 103.939 / 255)
_CAFFE = Preprocessing(_CAFFE_MEAN, (1 / 255,) * 3, _CROP_RATIO)

# What `preprocess_input` of each network does, or the network itself: we cut that off.
APPLICATIONS: dict[str, Preprocessing] = {
    **dict.fromkeys(("VGG16", "VGG19", "ResNet50", "ResNet101", "ResNet152"), _CAFFE),
    **dict.fromkeys(
        (
            "ResNet50V2",
            "ResNet101V2",
            "ResNet152V2",
            "InceptionV3",
            "InceptionResNetV2",
            "Xception",
            "MobileNet",
            "MobileNetV2",
            "MobileNetV3Small",
            "MobileNetV3Large",
            "NASNetMobile",
            "NASNetLarge",
        ),
        _PLUS_MINUS_ONE,
    ),
    **dict.fromkeys((f"EfficientNetV2{size}" for size in "SML"), _BY_128),
    **dict.fromkeys(
        (
            *(f"DenseNet{depth}" for depth in (121, 169, 201)),
            *(f"EfficientNetB{i}" for i in range(8)),
            *(f"EfficientNetV2B{i}" for i in range(4)),
            *(f"ConvNeXt{i}" for i in ("Tiny", "Small", "Base", "Large", "XLarge")),
        ),
        IMAGENET,
    ),
}


def prepare_pixels(name: str, pixels):
    """Makes of pixels what a network of the table was trained on.

    Args:
        name: Its name, a key of `APPLICATIONS`.
        pixels: RGB in [0, 255], (B, H, W, 3), an array or a symbolic tensor.

    Returns:
        The same shape, normalized; blue, green, red for the networks from Caffe.
    """
    x = normalize_pixels(APPLICATIONS[name])(pixels)
    return keras.ops.flip(x, axis=-1) if APPLICATIONS[name] is _CAFFE else x


def application_model(
    name: str,
    num_classes: int,
    image_size: int | tuple[int, int] | None = None,
    weights: str | Path | None = None,
) -> keras.Model:
    """Builds a network of `keras.applications` with a fresh head.

    The network is the layer "network" of the model, without the layers for rescaling
    that some have of their own: `PixelNormalization` does the same, for fresh weights
    as for pretrained ones. (Keras' fresh EfficientNetB0 to B7 would see pixels in
    [0, 1], and its pretrained ones have a layer more.) The dtype is that of
    `keras.config.dtype_policy()`; the head stays in float32.

    Args:
        name: Its name with the prefix, for instance "keras:ResNet50".
        num_classes: Number of classes, Y; at least 2.
        image_size: Side of the image or (height, width), in pixels; None takes
            224 x 224.
        weights: None for fresh weights; "imagenet" for Keras' own, which are downloaded
            once; or the path of such a file without the top, "..._notop.h5".

    Returns:
        A model that takes RGB pixels in [0, 255], (B, H, W, 3), normalizes them itself
        and returns logits (B, Y). The names of its weights do not depend on what was
        built before.

    Raises:
        ValueError: If the name is none of them, a number is refused, Keras refuses the
            size, or the file does not fit.
        FileNotFoundError: If Keras' weights cannot be downloaded.
    """
    check_choice("name", name, [PREFIX + known for known in APPLICATIONS])
    check(
        type(num_classes) is int and num_classes >= 2,
        "`num_classes` must be at least 2.",
        num_classes=num_classes,
    )
    data_format = keras.config.image_data_format()
    check(
        data_format == "channels_last",
        "Networks of keras.applications need the image data format 'channels_last'.",
        image_data_format=data_format,
    )
    size = image_height_and_width(IMAGE_SIZE if image_size is None else image_size)
    name = name.removeprefix(PREFIX)
    image = keras.Input((*size, 3), name="image", dtype="float32")
    features = _network(name, size, weights)(prepare_pixels(name, image))  # (B, width)
    head = keras.layers.Dense(num_classes, dtype="float32", name="class_head")
    return keras.Model(image, head(features), name=name)


def _network(
    name: str, image_size: tuple[int, int], weights: str | Path | None
) -> keras.Model:
    """The network from normalized pixels to the mean of its features, (B, width)."""
    built = _built(name, image_size, weights)
    rescaling = (keras.layers.Rescaling, keras.layers.Normalization)
    own = [layer.output for layer in built.layers if isinstance(layer, rescaling)]
    inner = keras.Model(own[-1] if own else built.input, built.output, name="network")
    counts = Counter()

    def renamed(operation):
        """A layer anew; names that Keras made up count from 0 in each network."""
        config, kind = operation.get_config(), type(operation).__name__.lower()
        made_up = re.fullmatch(rf"{kind}\d*", operation.name.replace("_", ""))
        if made_up and getattr(operation, "weights", None):
            config["name"] = f"{kind}_{counts[kind]}"
            counts[kind] += 1
        return type(operation).from_config(config)

    network = keras.models.clone_model(inner, clone_function=renamed)
    network.set_weights(inner.get_weights())
    return network


def _built(
    name: str, image_size: tuple[int, int], weights: str | Path | None
) -> keras.Model:
    """What Keras builds, and clear words for what it refuses."""
    try:
        return getattr(keras.applications, name)(
            include_top=False,
            weights=weights if weights is None else str(weights),
            input_shape=(*image_size, 3),
            pooling="avg",
        )
    except Exception as error:
        if weights == "imagenet" and "URL fetch failure" in str(error):
            raise FileNotFoundError(
                f"Keras' weights of {name} are not in its cache and cannot be "
                f"downloaded. {error}. Put that file into ~/.keras/models "
                "($KERAS_HOME/models), or give a file: weights=FILE (--weights=FILE)."
            ) from error
        if isinstance(error, ValueError | OSError | KeyError):
            raise ValueError(
                f"keras.applications.{name} refuses: {error} Received: "
                f"image_size={image_size}, weights={weights}."
            ) from error
        raise
