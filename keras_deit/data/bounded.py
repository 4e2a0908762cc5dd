"""Images from strangers: bounded before they are decoded, and none fails the others."""

import tensorflow as tf

from keras_deit.data.geometry import decode_image, evaluation_view, resized_shape
from keras_deit.data.image_header import first_gif_frame, is_gif, stated_shape

MAX_BYTES = 2**25  # of a file: 32 MiB
MAX_PIXELS = 2**25  # of an image, decoded or resized: 33.5 million
STATUS = OK, TOO_MANY_BYTES, TOO_MANY_PIXELS, NOT_DECODABLE = (
    "ok",
    "too_many_bytes",
    "too_many_pixels",
    "not_decodable",
)


def bounded_view(
    image_bytes,
    image_size: tuple[int, int],
    crop_ratio: float,
    max_bytes: int = MAX_BYTES,
    max_pixels: int = MAX_PIXELS,
):
    """Makes the evaluation view of an encoded image, or a black one and a reason.

    The size of the file is looked at first, then that of the image, which stands in the
    file's header, and only then is it decoded. Works in graphs, and survives saving.

    Args:
        image_bytes: The file, a scalar string: JPEG, PNG, BMP, WebP that is not
            animated, or GIF, of which the first frame is all that is looked at, without
            the canvas around it.
        image_size: Height and width of the view, in pixels.
        crop_ratio: As in `evaluation_view`.
        max_bytes: Most bytes of a file.
        max_pixels: Most pixels of the image, and of what it is resized to: a long and
            narrow one grows.

    Returns:
        A pair: pixels, uint8, shape (height, width, 3), zeros unless all is well; and
        the status, a scalar string, one of `STATUS`.
    """
    blank = tf.zeros((*image_size, 3), tf.uint8)

    def view_of(data):
        rows, columns = stated_shape(data)
        resized = resized_shape(rows, columns, image_size, crop_ratio)
        # A header may state up to 2^32 rows: a product is only safe in floating point.
        pixels = tf.maximum(_area(rows, columns), _area(*resized))
        return tf.cond(
            pixels <= max_pixels,
            lambda: (_decoded_view(data, image_size, crop_ratio), tf.constant(OK)),
            lambda: (blank, tf.constant(TOO_MANY_PIXELS)),
        )

    return tf.cond(
        tf.strings.length(image_bytes) <= max_bytes,
        lambda: _or_else(view_of, image_bytes, (blank, NOT_DECODABLE)),
        lambda: (blank, tf.constant(TOO_MANY_BYTES)),
    )


def _decoded_view(data, image_size, crop_ratio):
    data = tf.cond(is_gif(data), lambda: first_gif_frame(data), lambda: data)
    return evaluation_view(decode_image(data), image_size, crop_ratio)


def _or_else(compute, data, otherwise):
    """What a function gives, or something else if it fails: graphs have no `try`."""
    compute = tf.autograph.experimental.do_not_convert(compute)
    attempt = tf.data.Dataset.from_tensors(data).map(compute).ignore_errors()
    instead = tf.data.Dataset.from_tensors(otherwise)
    return attempt.concatenate(instead).take(1).get_single_element()


def _area(rows, columns):
    return tf.cast(rows, tf.float64) * tf.cast(columns, tf.float64)
