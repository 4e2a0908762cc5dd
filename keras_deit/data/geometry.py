"""Decoding, resizing and cropping, the same in training, evaluation and serving."""

import tensorflow as tf

from keras_deit._files import existing_file


def decode_image(image_bytes):
    """Decodes a JPEG, PNG, BMP or GIF (its first frame).

    Args:
        image_bytes: The encoded image, a scalar string.

    Returns:
        RGB pixels, uint8, shape (height, width, 3).
    """

    def decode_jpeg():  # the accurate transform gives the pixels that PIL gives
        return tf.io.decode_jpeg(image_bytes, 3, dct_method="INTEGER_ACCURATE")

    def decode_other():
        return tf.io.decode_image(image_bytes, 3, expand_animations=False)

    image = tf.cond(tf.io.is_jpeg(image_bytes), decode_jpeg, decode_other)
    return tf.ensure_shape(image, (None, None, 3))


def read_image(path: str):
    """Reads and decodes an image file; see `decode_image`.

    Args:
        path: The file.

    Returns:
        RGB pixels, uint8, shape (height, width, 3).

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be decoded.
    """
    image_bytes = existing_file(path).read_bytes()
    try:
        return decode_image(image_bytes)
    except tf.errors.OpError as error:
        rule = "`path` must be a whole JPEG, PNG, BMP or GIF image."
        raise ValueError(f"{rule} Received: {path=}.") from error


def resize(image, height, width):
    """Resizes an image as PIL does: bicubic, antialiased, width first, then height.

    Each pass is rounded and clipped to whole grey levels.

    Args:
        image: Pixels, uint8, shape (rows, columns, 3).
        height: New height, in pixels.
        width: New width, in pixels.

    Returns:
        Pixels, uint8, shape (height, width, 3).
    """
    for size in ((tf.shape(image)[0], width), (height, width)):
        resized = tf.image.resize(
            image, size, method=tf.image.ResizeMethod.BICUBIC, antialias=True
        )
        image = tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)
    return image


def evaluation_view(image, image_size: tuple[int, int], crop_ratio: float):
    """Resizes the shorter side to `image_size / crop_ratio` and crops the center.

    Args:
        image: Pixels, uint8, shape (rows, columns, 3).
        image_size: Height and width of the crop, in pixels.
        crop_ratio: Side of the crop over the shorter side of the resized image, in
            (0, 1].

    Returns:
        Pixels, uint8, shape (height, width, 3).

    Reference:
        Official DeiT `datasets.py`, `build_transform`: `Resize(int(size / crop_ratio))`
        and `CenterCrop(size)`. A size that is not square is covered the same way.
    """
    rows, columns = tf.shape(image)[0], tf.shape(image)[1]
    height, width = (int(side / crop_ratio) for side in image_size)
    width_binds = rows * width >= columns * height
    new_rows = tf.where(width_binds, width * rows // columns, height)
    new_columns = tf.where(width_binds, width, height * columns // rows)
    image = resize(image, new_rows, new_columns)
    top, left = (
        tf.cast(tf.round((new - side) / 2), tf.int32)
        for new, side in zip((new_rows, new_columns), image_size, strict=True)
    )
    return image[top : top + image_size[0], left : left + image_size[1]]
