import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_deit.data.bounded import (
    NOT_DECODABLE,
    OK,
    STATUS,
    TOO_MANY_BYTES,
    TOO_MANY_PIXELS,
    bounded_views,
)
from keras_deit.data.geometry import evaluation_view
from tests.data.hostile_files import (
    COLORS,
    NOT_IMAGES,
    TOO_LARGE,
    after_magic_numbers,
    animated,
    bmp,
    encoded,
    gif,
    gif_bomb,
    gif_extension,
    gif_frame,
    jpeg,
    png,
    png_chunk,
    png_with_text,
    smooth_files,
    webp_lossy,
)
from tests.data.pictures import noise, smooth

SIZE = (24, 32)
LIMIT = 2**20


@pytest.fixture(autouse=True)
def seeded():
    """No seed: to set one makes TensorFlow prepare each function anew, for a second."""


# Traced once, for any bounds: to trace takes a thousand times longer than to run.
@tf.function(
    input_signature=[tf.TensorSpec((), t) for t in (tf.string, tf.int32, tf.float64)],
    autograph=False,
)
def view_of(data, max_bytes=LIMIT, max_pixels=float(LIMIT)):
    views, statuses = bounded_views(data[None], SIZE, 1.0, max_bytes, max_pixels)
    return views[0], statuses[0]


@tf.function(input_signature=[tf.TensorSpec((None,), tf.string)], autograph=False)
def views_of(files):
    return bounded_views(files, SIZE, 1.0, LIMIT, LIMIT)


def answer(data, **bounds):
    """The view and the status of a file; without "ok" all is black."""
    pixels, status = view_of(data, **bounds)
    status = status.numpy().decode()
    assert status in STATUS
    assert status == OK or not pixels.numpy().any()
    return pixels.numpy(), status


def of_pillow(data):
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def test_an_image_of_its_own_size_is_taken_as_it_is():
    picture = noise(24, 32)
    pixels, status = answer(encoded(picture, "PNG"))
    assert status == "ok"
    np.testing.assert_array_equal(pixels, picture)


def test_another_one_is_seen_as_in_evaluation():
    picture = smooth(48, 80)
    pixels, status = answer(encoded(picture, "PNG"))
    assert status == OK
    np.testing.assert_array_equal(pixels, evaluation_view(picture, SIZE, 1.0))
    files = tf.constant([encoded(picture, "PNG")])
    pixels, status = (x[0] for x in bounded_views(files, (20, 24), 0.8))
    assert status == OK
    np.testing.assert_array_equal(pixels, evaluation_view(picture, (20, 24), 0.8))


@pytest.mark.parametrize("format", smooth_files())
def test_each_format_has_the_pixels_of_pillow(format):
    file = smooth_files()[format]
    pixels, status = answer(file)
    assert status == OK
    np.testing.assert_array_equal(pixels, of_pillow(file))


def test_limits_are_the_last_that_is_allowed():
    file = encoded(noise(48, 72), "PNG")

    def status(**bounds):
        return answer(file, **bounds)[1]

    assert status(max_bytes=len(file)) == OK
    assert status(max_bytes=len(file) - 1) == TOO_MANY_BYTES
    assert status(max_pixels=48 * 72) == OK
    assert status(max_pixels=48 * 72 - 1) == TOO_MANY_PIXELS


def test_an_image_must_not_grow_too_large_when_it_is_resized():
    # A row of 10 becomes 24 rows of 240: 5760 pixels; 10 of 1 become 320 by 32.
    for shape, grown in (((1, 10), 24 * 240), ((10, 1), 320 * 32)):
        file = encoded(noise(*shape), "PNG")
        for bound, status in ((grown, OK), (grown - 1, TOO_MANY_PIXELS)):
            assert answer(file, max_pixels=bound)[1] == status


@pytest.mark.parametrize("name", TOO_LARGE)
def test_a_header_that_states_too_many_pixels_is_believed(name):
    assert answer(TOO_LARGE[name])[1] == TOO_MANY_PIXELS


@pytest.mark.parametrize("name", NOT_IMAGES)
def test_what_cannot_be_decoded_is_black(name):
    assert answer(NOT_IMAGES[name])[1] == NOT_DECODABLE


def test_too_many_bytes_are_not_looked_at():
    assert answer(bytes(2**20 + 1))[1] == TOO_MANY_BYTES
    assert answer(encoded(noise(24, 32), "PNG") + bytes(2**20))[1] == TOO_MANY_BYTES


def test_noise_behind_a_magic_number_is_no_image():
    for name, file in after_magic_numbers().items():
        status = answer(file)[1]
        # Of a BMP any bytes are pixels.
        assert status != OK or name.startswith("bmp"), name


@pytest.mark.parametrize("format", smooth_files())
def test_a_file_cut_off_anywhere_is_whole_or_nothing(format):
    picture = np.tile(smooth(24, 32)[:2, :3], (12, 11, 1))[:, :32] // 128 * 128
    options = {"jpeg": {"quality": 5}, "progressive jpeg": {"progressive": True}}
    kind = {"progressive jpeg": "JPEG", "lossless webp": "WEBP"}.get(format, format)
    options = options.get(format, {"lossless": format == "lossless webp"})
    file = encoded(picture, kind.upper(), **options)
    lengths = [*range(0, len(file), 1 if len(file) < 700 else 41), len(file)]
    pixels, status = views_of([file[:length] for length in lengths])
    whole = of_pillow(file)
    assert status[-1] == OK
    for view, one in zip(pixels.numpy(), status.numpy(), strict=True):
        np.testing.assert_array_equal(view, whole if one == OK.encode() else 0 * whole)
    # Until the last tenth there is no picture yet.
    assert set(status.numpy()[: len(lengths) * 9 // 10 - 3]) == {NOT_DECODABLE.encode()}


def test_of_a_gif_the_first_frame_is_seen_and_no_other():
    first, other = np.arange(768).reshape(SIZE) % 4, np.full(SIZE, 2)
    expected = np.reshape(COLORS, (4, 3))[first]
    parts = [gif_extension(0xFE, b"hello"), gif_extension(0xF9, bytes(4))]
    forms = [{}, {"interlaced": True}, {"block": 3}, {"colors": COLORS}]
    for options in forms:
        frame = gif_frame(first, **options)
        for later in (b"", gif_frame(other), gif_frame(other)[:30]):
            colors = () if "colors" in options else COLORS
            pixels, status = answer(gif(32, 24, *parts, frame, later, colors=colors))
            assert status == OK
            np.testing.assert_array_equal(pixels, expected)


def test_later_frames_of_a_bomb_are_never_unpacked():
    pixels, status = answer(gif_bomb())  # 450 million pixels in 0.6 MB
    assert status == OK
    assert np.unique(pixels.reshape(-1, 3), axis=0).tolist() == [[250, 0, 0]]


def test_a_first_frame_is_seen_wherever_it_lies_on_its_canvas():
    numbers = np.arange(768).reshape(SIZE) % 4
    for canvas in ((32, 24), (5, 7), (90, 80)):
        for left, top in ((0, 0), (3, 0), (0, 20), (58, 56)):
            pixels, status = answer(gif(*canvas, gif_frame(numbers, left, top)))
            assert status == OK
            np.testing.assert_array_equal(pixels, np.reshape(COLORS, (4, 3))[numbers])


def test_inks_and_sixteen_bits_and_transparency_are_images():
    inks = Image.fromarray(noise(24, 32)).convert("CMYK")
    levels = np.arange(768, dtype=np.uint16).reshape(SIZE) * 85
    clear = Image.new("RGBA", (32, 24), (9, 8, 7, 0))
    assert answer(encoded(inks, "JPEG"))[1] == OK
    pixels, status = answer(encoded(levels, "PNG"))
    assert status == OK
    np.testing.assert_array_equal(pixels[..., 0], levels // 256)
    pixels, status = answer(encoded(clear, "PNG"))
    assert status == OK
    assert (pixels == [9, 8, 7]).all()


def test_an_animated_png_is_its_first_picture():
    pixels, status = answer(animated("PNG"))
    assert status == OK
    np.testing.assert_array_equal(pixels, noise(*SIZE))


def test_comments_of_any_length_do_no_harm():
    pixels, status = answer(png_with_text(2**19))
    assert status == OK
    np.testing.assert_array_equal(pixels, noise(*SIZE))


def test_texts_that_are_unpacked_one_after_another_are_no_image():
    whole = encoded(noise(*SIZE), "PNG")
    text = png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"hello"))
    other = png_chunk(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(b"hello"))
    assert answer(whole[:33] + 8 * text + 8 * other + whole[33:])[1] == OK
    assert answer(whole[:33] + 8 * text + 9 * other + whole[33:])[1] == NOT_DECODABLE


def test_a_png_whose_size_stands_behind_another_chunk_is_no_image():
    whole = encoded(noise(*SIZE), "PNG")
    lie = png_chunk(b"prVt", struct.pack(">II", 8, 8))
    assert answer(whole[:8] + lie + whole[8:])[1] == NOT_DECODABLE


def test_no_file_has_no_view():
    views, statuses = views_of(tf.zeros([0], tf.string))
    assert (views.shape, statuses.shape) == ((0, *SIZE, 3), (0,))


def test_a_header_alone_is_no_image():
    for file in (jpeg(5, 5), png(5, 5), bmp(5, 5), webp_lossy(5, 5), gif(5, 5)):
        assert answer(file)[1] == NOT_DECODABLE


def test_none_fails_the_others_and_all_survives_saving(tmp_path):
    good = list(smooth_files().values())
    bad = [*TOO_LARGE.values(), *NOT_IMAGES.values(), bytes(2**20 + 1)]
    mixed = [bad.pop() if i % 3 else good[i // 3 % len(good)] for i in range(40)]
    alone = [answer(file) for file in mixed]
    module = tf.Module()
    module.views = views_of
    tf.saved_model.save(module, tmp_path)
    loaded = tf.saved_model.load(str(tmp_path)).views
    for views in (views_of, loaded):
        pixels, status = views(mixed)
        np.testing.assert_array_equal(pixels, np.stack([view for view, _ in alone]))
        assert [one.decode() for one in status.numpy()] == [one for _, one in alone]
    assert {one for _, one in alone} == set(STATUS)


def test_it_is_the_same_inside_tf_data():
    files = [*smooth_files().values(), b"text", TOO_LARGE["png"]]
    dataset = tf.data.Dataset.from_tensor_slices(files).map(view_of)
    for file, (pixels, status) in zip(files, dataset, strict=True):
        expected, name = answer(file)
        assert status == name
        np.testing.assert_array_equal(pixels, expected)
