"""Images from strangers: bounded before they are decoded, and none fails the others."""

import tensorflow as tf

from keras_deit.data.geometry import decode_image, evaluation_view, resized_shape
from keras_deit.data.image_header import first_gif_frame, is_gif, stated_shape

MAX_BYTES = 2**25  # of a file: 32 MiB
MAX_PIXELS = 2**25  # of an image, decoded or resized: 33.5 million
IMAGES_AT_ONCE = 4  # decoded side by side
STATUS = OK, TOO_MANY_BYTES, TOO_MANY_PIXELS, NOT_DECODABLE = (
    "ok",
    "too_many_bytes",
    "too_many_pixels",
    "not_decodable",
)


def bounded_views(
    files,
    image_size: tuple[int, int],
    crop_ratio: float,
    max_bytes: int = MAX_BYTES,
    max_pixels: int = MAX_PIXELS,
):
    """Makes the evaluation view of each encoded image, or a black one and a reason.

    The size of a file is looked at first, then that of the image, which stands in the
    file's header, and only then is it decoded. Works in graphs, and survives saving.

    Args:
        files: The files, strings (n,): JPEG, PNG, BMP, WebP that is not animated, or
            GIF, of which nothing after the first frame is looked at.
        image_size: Height and width of a view, in pixels.
        crop_ratio: As in `evaluation_view`.
        max_bytes: Most bytes of a file.
        max_pixels: Most pixels of an image, and of what it is resized to: a long and
            narrow one grows.

    Returns:
        A pair: pixels, uint8, shape (n, height, width, 3), zeros unless all is well;
        and the status of each, strings (n,), each one of `STATUS`.
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

    @tf.autograph.experimental.do_not_convert
    def numbered_view(place, data):
        view, status = tf.cond(
            tf.strings.length(data) <= max_bytes,
            lambda: view_of(data),
            lambda: (blank, tf.constant(TOO_MANY_BYTES)),
        )
        return place, view, status

    # Graphs have no `try`: a data set leaves out what fails, and the places tell who is
    # missing. One more element lets the batch never be empty.
    count = tf.size(files, tf.int64)
    seen = tf.data.Dataset.from_tensor_slices(files).enumerate()
    seen = seen.map(numbered_view, IMAGES_AT_ONCE).ignore_errors()
    last = tf.data.Dataset.from_tensors((count, blank, NOT_DECODABLE))
    seen = seen.concatenate(last).batch(count + 1)
    places, views, statuses = seen.get_single_element()
    shape = tf.stack([count + 1, *blank.shape])
    views = tf.scatter_nd(places[:, None], views, shape)
    missing = tf.fill([count + 1], NOT_DECODABLE)
    statuses = tf.tensor_scatter_nd_update(missing, places[:, None], statuses)
    return tf.ensure_shape(views[:-1], (None, *blank.shape)), statuses[:-1]


def _decoded_view(data, image_size, crop_ratio):
    data = tf.cond(is_gif(data), lambda: first_gif_frame(data), lambda: data)
    return evaluation_view(decode_image(data), image_size, crop_ratio)


def _area(rows, columns):
    return tf.cast(rows, tf.float64) * tf.cast(columns, tf.float64)
