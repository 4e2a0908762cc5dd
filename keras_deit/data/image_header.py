"""What an image file says of itself, without decoding it; in TensorFlow's graph."""

import tensorflow as tf

PNG_START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"  # the size is in the first chunk
GIF_TRAILER = b"\x3b"
GIF_EXTENSION, GIF_IMAGE = 0x21, 0x2C
# What a small file could keep a decoder busy with, for minutes or hours.
MAX_GIF_BLOCKS = 2**15  # 8 MB, if they are full
MAX_JPEG_SCANS = 100  # progressive ones have about ten; each visits all pixels:
MAX_SCANNED_PIXELS = 2**29  # sixteen scans of the largest image
MAX_PNG_TEXTS = 16  # that are packed: each is unpacked to up to 8 MB


def stated_shape(image_bytes):
    """Reads the size of an image from the header of its file.

    Args:
        image_bytes: A JPEG, PNG, GIF, WebP or BMP, a scalar string. Of a GIF it is the
            larger of its canvas and its first frame.

    Returns:
        (rows, columns), int64 scalars as they are stated. What is none of these, too
        short, or made to keep a decoder busy is an error of TensorFlow.
    """
    start = tf.strings.substr(image_bytes, 0, 32)
    head = tf.io.decode_raw(start, tf.uint8)

    def begins(place, text):
        padded = tf.strings.join([start, b"\0" * 32])  # a short file is no error yet
        return tf.equal(tf.strings.substr(padded, place, len(text)), text)

    return tf.case(
        [
            (begins(0, b"\xff\xd8\xff"), lambda: _of_jpeg(image_bytes)),
            (
                begins(0, b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"),
                lambda: _of_png(image_bytes, head),
            ),
            (is_gif(image_bytes), lambda: _of_gif(image_bytes)),
            (begins(0, b"RIFF") & begins(8, b"WEBPVP8 "), lambda: _of_webp(head)),
            (begins(0, b"RIFF") & begins(8, b"WEBPVP8L"), lambda: _of_webp_l(head)),
            (begins(0, b"RIFF") & begins(8, b"WEBPVP8X"), lambda: _of_webp_x(head)),
            (begins(0, b"BM"), lambda: _of_bmp(head)),
        ],
        default=_unknown,
        exclusive=False,
    )


def is_gif(image_bytes):
    """Whether a file, a scalar string, begins as a GIF."""
    return tf.strings.regex_full_match(tf.strings.substr(image_bytes, 0, 4), "GIF8")


def first_gif_frame(image_bytes):
    """Cuts a GIF off after its first frame, so that no decoder unpacks the others.

    The frame is moved to the corner of the canvas. TensorFlow's decoder makes an image
    of the frame's size, and would leave black what lies beyond that.

    Args:
        image_bytes: A whole GIF, a scalar string.

    Returns:
        The file with one frame, a scalar string. What is no GIF is an error.
    """
    data = tf.io.decode_raw(image_bytes, tf.uint8)
    image = _gif_image(data)
    end = _skip(data, _colors_end(data, image + 9) + 1, "blocks")
    place = image + 1  # left and top, two bytes each
    before = tf.strings.substr(image_bytes, tf.zeros_like(place), place)
    after = tf.strings.substr(image_bytes, place + 4, end - place - 4)
    return tf.strings.join([before, b"\0" * 4, after, GIF_TRAILER])


def _byte(data, place):
    return tf.cast(data[place], tf.int64)


def _little(data, start, count):
    """A number whose lowest byte comes first."""
    return sum(_byte(data, start + i) * 256**i for i in range(count))


def _big(data, start, count):
    """A number whose highest byte comes first."""
    return sum(_byte(data, start + count - 1 - i) * 256**i for i in range(count))


def _of_jpeg(image_bytes):
    shape = tf.io.extract_jpeg_shape(image_bytes, tf.int64)
    scans = _scans(image_bytes)
    # Of an image that is too large for this, whoever asked refuses the size itself.
    work = scans * tf.minimum(shape[0] * shape[1], MAX_SCANNED_PIXELS // 16)
    few = (scans <= MAX_JPEG_SCANS) & (work <= MAX_SCANNED_PIXELS)
    with tf.control_dependencies([tf.debugging.Assert(few, ["Many scans."])]):
        return tf.identity(shape[0]), tf.identity(shape[1])


def _scans(image_bytes):
    """Counts the headers of scans in a JPEG: FF DA 00, 6 + 2n, n components."""
    data = tf.io.decode_raw(image_bytes, tf.uint8)
    marker, kind, high, low, count = (data[i : i - 4 or None] for i in range(5))
    begins = (marker == 0xFF) & (kind == 0xDA) & (high == 0) & (low == 6 + 2 * count)
    return tf.math.count_nonzero(begins)


def _of_png(image_bytes, head):
    data = tf.io.decode_raw(image_bytes, tf.uint8)
    a, b, c, d = (data[i : i - 3 or None] for i in range(4))
    is_text = (a == ord("z")) | (a == ord("i"))  # zTXt and iTXt
    is_text &= (b == ord("T")) & (c == ord("X")) & (d == ord("t"))
    few = tf.math.count_nonzero(is_text) <= MAX_PNG_TEXTS
    with tf.control_dependencies([tf.debugging.Assert(few, ["Many texts."])]):
        return _big(head, 20, 4), _big(head, 16, 4)


def _of_bmp(head):
    columns, rows = (tf.cast(_little(head, s, 4), tf.int32) for s in (18, 22))
    return tf.cast(tf.abs(rows), tf.int64), tf.cast(columns, tf.int64)  # top-down: < 0


def _of_webp(head):
    return _little(head, 28, 2) % 2**14, _little(head, 26, 2) % 2**14


def _of_webp_l(head):
    bits = _little(head, 21, 4)  # 14 of columns - 1, 14 of rows - 1
    return bits // 2**14 % 2**14 + 1, bits % 2**14 + 1


def _of_webp_x(head):
    return _little(head, 27, 3) + 1, _little(head, 24, 3) + 1


def _unknown():
    size = tf.constant(-1, tf.int64)
    with tf.control_dependencies([tf.debugging.Assert(False, ["Not an image."])]):
        return tf.identity(size), tf.identity(size)


def _of_gif(image_bytes):
    data = tf.io.decode_raw(image_bytes, tf.uint8)
    image = _gif_image(data)
    left, top, width, height = (_little(data, image + 1 + i, 2) for i in (0, 2, 4, 6))
    columns, rows = _little(data, 6, 2), _little(data, 8, 2)
    return tf.maximum(rows, top + height), tf.maximum(columns, left + width)


def _gif_image(data):
    """The place of the first frame, behind the colors and the extensions."""
    colors_end = _colors_end(data, tf.constant(10, tf.int64))
    image = _skip(data, colors_end + 2, "extensions")
    is_image = tf.debugging.Assert(tf.equal(data[image], GIF_IMAGE), ["No frame."])
    with tf.control_dependencies([is_image]):
        return tf.identity(image)


def _colors_end(data, flags_at):
    """The place behind flags and the table of colors that they may announce."""
    flags = _byte(data, flags_at)
    size = 3 * tf.bitwise.left_shift(tf.constant(2, tf.int64), flags % 8)
    return flags_at + 1 + tf.where(flags >= 128, size, 0)


def _skip(data, place, what):
    """The place behind "blocks", or behind any number of "extensions" made of them.

    A block begins with its length; one without length is the last. One flat loop, so
    that its steps can be counted: what has too many is an error.
    """

    def goes_on(place, inside):
        if what == "blocks":
            return inside
        return inside | tf.equal(data[place], GIF_EXTENSION)

    def step(place, inside):
        byte = _byte(data, place)  # the length of a block, or an extension's mark
        return tf.where(inside, place + 1 + byte, place + 2), byte > 0

    inside = tf.constant(what == "blocks")
    place, inside = tf.while_loop(
        goes_on, step, [place, inside], maximum_iterations=MAX_GIF_BLOCKS
    )
    is_end = tf.debugging.Assert(~inside, ["Too many blocks."])
    with tf.control_dependencies([is_end]):
        return tf.identity(place)
