import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_deit.data.image_header import first_gif_frame, is_gif, stated_shape
from tests.data.hostile_files import (
    COLORS,
    bmp,
    encoded,
    gif,
    gif_bomb,
    gif_extension,
    gif_frame,
    jpeg,
    jpeg_of_scans,
    png,
    webp_extended,
    webp_lossless,
    webp_lossy,
)
from tests.data.pictures import smooth

FAILED = (tf.errors.InvalidArgumentError, tf.errors.OutOfRangeError)
FRAME = gif_frame([[1, 2], [3, 0]])


@pytest.fixture(autouse=True)
def seeded():
    """No seed: to set one makes TensorFlow prepare each function anew, for a second."""


@tf.function(input_signature=[tf.TensorSpec((), tf.string)], autograph=False)
def stated(data):
    return stated_shape(data)


@tf.function(input_signature=[tf.TensorSpec((), tf.string)], autograph=False)
def first(data):
    return first_gif_frame(data)


def shape_of(data):
    return tuple(int(side) for side in stated(data))


HEADERS = {"jpeg": jpeg, "png": png, "bmp": bmp, "gif": gif}
HEADERS |= {"lossy": webp_lossy, "lossless": webp_lossless, "extended": webp_extended}


@pytest.mark.parametrize("format", HEADERS)
def test_rows_and_columns_stand_in_the_header(format):
    parts = [FRAME] if format == "gif" else []
    for columns, rows in ((5, 3), (2, 700), (16_000, 9)):
        received = shape_of(HEADERS[format](columns, rows, *parts))
        assert received == (max(rows, 2), max(columns, 2))


def test_the_largest_numbers_are_read_as_they_are():
    assert shape_of(png(2**32 - 1, 2**31)) == (2**31, 2**32 - 1)
    assert shape_of(jpeg(65_500, 65_499)) == (65_499, 65_500)
    assert shape_of(webp_lossless(2**14, 1)) == (1, 2**14)
    assert shape_of(webp_extended(2**24, 2**24 - 1)) == (2**24 - 1, 2**24)


def test_the_two_upper_bits_of_a_lossy_webp_scale_and_do_not_count():
    assert shape_of(webp_lossy(5 + 2**14, 3 + 2**15)) == (3, 5)


def test_a_bmp_that_begins_above_has_rows_below_zero():
    assert shape_of(bmp(5, -3)) == (3, 5)


def test_a_gif_is_as_large_as_its_canvas_and_its_first_frame_together():
    assert shape_of(gif(7, 9, FRAME)) == (9, 7)
    assert shape_of(gif(1, 1, FRAME)) == (2, 2)
    assert shape_of(gif(4, 4, gif_frame([[1]], left=10, top=20))) == (21, 11)
    huge = gif_frame(np.zeros((30, 40), int))
    assert shape_of(gif(4, 4, FRAME, huge)) == (4, 4)  # later frames do not count


def test_colors_and_extensions_of_a_gif_are_skipped():
    comment = gif_extension(0xFE, b"a,b", b"!" * 255, b",")
    control = gif_extension(0xF9, b"\0\0\0\0")
    for colors in (COLORS, ()):
        frame = gif_frame([[1, 2]], colors=COLORS)
        assert shape_of(gif(1, 1, comment, control, frame, colors=colors)) == (1, 2)
    many = bytes(range(256)) * 3
    table = b"GIF89a\1\0\1\0\x87\0\0" + many + FRAME  # 256 colors
    assert shape_of(table) == (2, 2)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True, "optimize": True}),
        ("PNG", {}),
        ("GIF", {}),
        ("BMP", {}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"exif": b"Exif\0\0"}),  # extended
    ],
)
def test_files_of_pillow_say_how_large_they_are(kind, options):
    assert shape_of(encoded(smooth(41, 57), kind, **options)) == (41, 57)


@pytest.mark.parametrize("format", HEADERS)
def test_a_header_that_was_cut_off_is_an_error(format):
    whole = HEADERS[format](5, 3, *([FRAME] if format == "gif" else []))
    needed = {"png": 24, "bmp": 26, "lossy": 30, "lossless": 25, "extended": 30}
    needed = needed.get(format, len(whole))
    if format == "gif":
        needed = whole.index(b",") + 9
    for length in range(needed):
        with pytest.raises(FAILED):
            stated(whole[:length])
    assert shape_of(whole[:needed]) == (3, 5)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        bytes(64),
        b"RIFF1234WEBPANIM" + bytes(64),
        b"RIFF1234WAVEVP8 " + bytes(64),
        b"II*\0" + bytes(64),
    ],
)
def test_what_is_no_image_is_an_error(data):
    with pytest.raises(tf.errors.InvalidArgumentError, match="Not an image"):
        stated(data)


def test_a_gif_is_known_by_its_first_letters():
    assert is_gif(b"GIF89a").numpy()
    assert is_gif(b"GIF87a").numpy()
    for other in (b"", b"GIF", b" GIF8", b"gif8", b"\xff\xd8\xff\xe0"):
        assert not is_gif(other).numpy()


def test_a_gif_ends_behind_its_first_frame():
    one = gif(4, 4, gif_extension(0xFE, b"x"), FRAME)
    assert first(one).numpy() == one
    assert first(one[:-1]).numpy() == one  # the trailer was missing
    end = len(one) - 1
    assert first(one[:end] + gif_extension(0xFE, b"y") + FRAME + b";") == one
    bomb = gif_bomb(frames=3, side=100)
    assert first(bomb) == gif(8, 8, gif_frame(np.ones((8, 8), int)))
    with Image.open(io.BytesIO(first(bomb).numpy())) as image:
        assert image.n_frames == 1


def test_the_first_frame_is_moved_to_the_corner():
    comment = gif_extension(0xFE, b",")
    far = gif(40, 30, comment, gif_frame([[1, 2], [3, 0]], left=258, top=3))
    assert first(far).numpy() == gif(40, 30, comment, FRAME)


def test_a_frame_may_come_in_blocks_of_any_size():
    for block in (1, 2, 254, 255):
        one = gif(9, 9, gif_frame(np.ones((9, 9), int), block=block))
        assert first(one[:-1] + FRAME * 3 + b";").numpy() == one


def test_a_frame_that_was_cut_off_is_an_error():
    one = gif(4, 4, FRAME)
    for length in range(len(one) - 1):
        with pytest.raises(FAILED):
            first(one[:length])


def test_blocks_without_end_are_an_error(monkeypatch):
    monkeypatch.setattr("keras_deit.data.image_header.MAX_GIF_BLOCKS", 40)

    @tf.function(input_signature=[tf.TensorSpec((), tf.string)], autograph=False)
    def cut(data):
        return first_gif_frame(data)

    # Each extension is three steps: what it is, a block, and the last one.
    comment = gif_extension(0xFE, b"x")
    for parts in ([comment] * 13, [gif_extension(0xFE, *[b"x"] * 38)]):
        assert cut(gif(4, 4, *parts, FRAME)) == gif(4, 4, *parts, FRAME)
    for many in (comment * 14, gif_extension(0xFE, *[b"x"] * 39)):
        with pytest.raises(tf.errors.InvalidArgumentError, match="blocks|frame"):
            cut(gif(4, 4, many, FRAME))
    large = gif_frame(np.ones((10, 10), int), block=1)  # 76 blocks
    with pytest.raises(tf.errors.InvalidArgumentError, match="Too many blocks"):
        cut(gif(10, 10, large))


def test_a_jpeg_of_too_many_scans_is_an_error():
    assert jpeg_of_scans(94).count(b"\xff\xda") == 100
    assert shape_of(jpeg_of_scans(94)) == (64, 64)
    with pytest.raises(tf.errors.InvalidArgumentError, match="Many scans"):
        stated(jpeg_of_scans(95))


def test_many_scans_of_a_large_jpeg_are_an_error(monkeypatch):
    name = "keras_deit.data.image_header.MAX_SCANNED_PIXELS"
    monkeypatch.setattr(name, 16 * 64 * 64)
    files = [jpeg_of_scans(10), jpeg_of_scans(11)]  # 16 and 17, of 64 x 64
    shapes = tf.data.Dataset.from_tensor_slices(files).map(stated_shape)
    assert len(list(shapes.ignore_errors())) == 1


def test_only_headers_of_scans_count_as_scans():
    # What a camera appends, a film or a thumbnail, holds the marker by chance.
    assert shape_of(jpeg_of_scans(0) + b"\xff\xda\x00\x08\x02" * 500) == (64, 64)
