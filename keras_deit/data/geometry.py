"""Decoding, resizing and cropping, the same in training, evaluation and serving."""

import tensorflow as tf

from keras_deit._files import existing_file


def decode_image(image_bytes):
    """Decodes a JPEG, PNG, BMP or GIF (its first frame).

    - A JPEG, progressive or not, has the pixels that PIL gives; one of CMYK has those
      of PIL's `convert("RGB")` within a grey level. Without Adobe's marker its inks are
      taken as they are, where PIL inverts them.
    - The orientation in EXIF is left alone, as in the papers' training.
    - A grey image has three equal channels, a palette is applied, and transparency is
      left out: the colors below it stay as they are stored.
    - Of 16 bits the upper 8 are kept. A WebP is read too, unless it is animated.
    - A file that was cut off is an error, never half a picture.

    Args:
        image_bytes: The encoded image, a scalar string.

    Returns:
        RGB pixels, uint8, shape (height, width, 3).
    """
    return _for_format(image_bytes, _decode_jpeg, _decode_other)


def _decode_jpeg(image_bytes):
    """The accurate transform gives the pixels that PIL gives."""
    return tf.io.decode_jpeg(image_bytes, 3, dct_method="INTEGER_ACCURATE")


def _decode_other(image_bytes):
    image = tf.io.decode_image(image_bytes, 3, expand_animations=False)
    image = tf.ensure_shape(image, (None, None, 3))
    # TensorFlow takes the 8 bits of a BMP for grey; they are numbers of colors.
    is_bmp_of_8_bits = tf.strings.regex_full_match(
        tf.strings.substr(image_bytes, 0, 30), r"(?s)BM\C{26}\x08\x00"
    )
    return tf.cond(
        is_bmp_of_8_bits,
        lambda: tf.gather(_bmp_colors(image_bytes), tf.cast(image[..., 0], tf.int32)),
        lambda: image,
    )


def _bmp_colors(image_bytes):
    """The RGB colors of a BMP, which lie between its headers and its pixels."""
    header = tf.io.decode_raw(tf.strings.substr(image_bytes, 10, 8), tf.int32)
    begin = 14 + header[1]
    table = tf.strings.substr(image_bytes, begin, header[0] - begin)
    return tf.reshape(tf.io.decode_raw(table, tf.uint8), (-1, 4))[:, 2::-1]


def _for_format(image_bytes, jpeg, other):
    """What one of two functions makes of the bytes, shape (rows, columns, 3)."""
    image = tf.cond(
        tf.io.is_jpeg(image_bytes),
        lambda: jpeg(image_bytes),
        lambda: other(image_bytes),
    )
    return tf.ensure_shape(image, (None, None, 3))


def pixels_of(image):
    """Takes pixels as they are, and decodes an encoded image.

    Args:
        image: An encoded image, a scalar string; or pixels, uint8, shape
            (rows, columns, 3).

    Returns:
        RGB pixels, uint8, shape (rows, columns, 3).
    """
    image = tf.convert_to_tensor(image)
    return decode_image(image) if image.dtype == tf.string else image


def image_shape(image):
    """Tells the size of an image; of a JPEG only the header is read.

    Args:
        image: An encoded image or pixels; see `pixels_of`.

    Returns:
        (rows, columns), int32 scalars.
    """
    image = tf.convert_to_tensor(image)
    if image.dtype == tf.string:
        shape = tf.cond(
            tf.io.is_jpeg(image),
            lambda: tf.io.extract_jpeg_shape(image),
            lambda: tf.shape(_decode_other(image)),
        )
    else:
        shape = tf.shape(image)
    return shape[0], shape[1]


def cropped(image, top, left, height, width):
    """Cuts a box out of an image; of a JPEG only the box is decoded.

    Args:
        image: An encoded image or pixels; see `pixels_of`.
        top: First row of the box.
        left: First column of the box.
        height: Rows of the box, at least 1.
        width: Columns of the box, at least 1.

    Returns:
        The box of `pixels_of(image)`, uint8, shape (height, width, 3). A box that is
        not inside of the image is an error of TensorFlow, and so is one that reaches
        over the end of a file that was cut off.
    """
    image = tf.convert_to_tensor(image)
    top, left, height, width = (
        tf.cast(number, tf.int32) for number in (top, left, height, width)
    )

    def cut(pixels):
        return tf.slice(pixels, [top, left, 0], [height, width, 3])

    def decode_and_crop(image_bytes):
        # The color of a column is interpolated from its neighbors: they come along.
        columns = tf.io.extract_jpeg_shape(image_bytes)[1]
        begin = tf.maximum(left - 1, 0)
        end = tf.minimum(left + width + 1, columns)
        box = [top, begin, height, end - begin]
        pixels = tf.io.decode_and_crop_jpeg(
            image_bytes, box, 3, dct_method="INTEGER_ACCURATE"
        )
        return tf.slice(pixels, [0, left - begin, 0], [height, width, 3])

    if image.dtype != tf.string:
        return cut(image)
    return _for_format(image, decode_and_crop, lambda data: cut(_decode_other(data)))


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

    Each pass is rounded, halves upward, and clipped to whole grey levels. Weights are
    float32 where PIL has fixed-point numbers, so that a few pixels differ by one level.

    Args:
        image: Pixels, uint8, shape (rows, columns, 3).
        height: New height, in pixels.
        width: New width, in pixels.

    Returns:
        Pixels, uint8, shape (height, width, 3).
    """
    rows, columns = image_shape(image)
    turned = _transposed(tf.reshape(image, (rows, columns * 3)))
    turned = _resize_rows(tf.reshape(turned, (columns, 3 * rows)), width)
    image = _transposed(tf.reshape(turned, (width * 3, rows)))
    return tf.reshape(_resize_rows(image, height), (height, width, 3))


def _transposed(matrix):
    """A stack of one matrix: TensorFlow has a faster way for these."""
    return tf.linalg.matrix_transpose(matrix[None])[0]


def _resize_rows(matrix, count):
    """Resizes (rows, length) to (count, length).

    For `tf.image.resize` a row is one pixel of `length` channels: to add up whole rows
    is several times faster than to add up pixels of three channels.
    """
    resized = tf.image.resize(
        matrix[:, None],
        (count, 1),
        method=tf.image.ResizeMethod.BICUBIC,
        antialias=True,
    )
    return tf.cast(tf.clip_by_value(resized[:, 0] + 0.5, 0, 255), tf.uint8)


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
    new_rows, new_columns = resized_shape(rows, columns, image_size, crop_ratio)
    image = resize(image, new_rows, new_columns)
    top, left = (
        tf.cast(tf.round((new - side) / 2), tf.int32)
        for new, side in zip((new_rows, new_columns), image_size, strict=True)
    )
    return image[top : top + image_size[0], left : left + image_size[1]]


def resized_shape(rows, columns, image_size: tuple[int, int], crop_ratio: float):
    """Tells what `evaluation_view` resizes an image to before it crops.

    Args:
        rows: Of the image, a scalar tensor of whole numbers.
        columns: Of the image, of the same type.
        image_size: Height and width of the crop, in pixels.
        crop_ratio: As in `evaluation_view`.

    Returns:
        (rows, columns), scalars of that type.
    """
    height, width = (tf.cast(int(side / crop_ratio), rows.dtype) for side in image_size)
    width_binds = rows * width >= columns * height
    new_rows = tf.where(width_binds, width * rows // columns, height)
    new_columns = tf.where(width_binds, width, height * columns // rows)
    return new_rows, new_columns
