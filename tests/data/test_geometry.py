import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_deit.data.geometry import (
    cropped,
    decode_image,
    evaluation_view,
    image_shape,
    pixels_of,
    read_image,
    resize,
)

BICUBIC = Image.Resampling.BICUBIC
ENCODINGS = {
    "whole colors": ("JPEG", {"subsampling": "4:4:4"}),
    "half the colors": ("JPEG", {"subsampling": "4:2:2"}),
    "a quarter of the colors": ("JPEG", {"subsampling": "4:2:0"}),
    "progressive": ("JPEG", {"progressive": True}),
    "png": ("PNG", {}),
    "bmp": ("BMP", {}),
    "gif": ("GIF", {}),
}


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def differences(ours, theirs):
    """All differences, in grey levels."""
    ours, theirs = (np.asarray(image, np.int32) for image in (ours, theirs))
    assert ours.shape == theirs.shape
    return np.abs(ours - theirs)


def distance(ours, theirs):
    """The largest difference, in grey levels."""
    return differences(ours, theirs).max()


def reference_view(image, size, crop_ratio):
    """Resize the shorter side, crop the center: as torchvision does it, with PIL."""
    short = int(size / crop_ratio)
    width, height = image.size
    if width <= height:
        image = image.resize((short, int(short * height / width)), BICUBIC)
    else:
        image = image.resize((int(short * width / height), short), BICUBIC)
    width, height = image.size
    top, left = round((height - size) / 2), round((width - size) / 2)
    return image.crop((left, top, left + size, top + size))


@pytest.fixture(scope="module")
def china(photographs):
    with Image.open(photographs[0]) as image:
        return image.convert("RGB")


def test_an_image_of_its_own_size_is_taken_whole():
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    np.testing.assert_array_equal(evaluation_view(image, (32, 32), 1.0), image)
    np.testing.assert_array_equal(resize(image, 32, 32), image)


def test_an_odd_rest_is_rounded_to_the_even_half_as_torchvision_does():
    # Each column has its own grey: 13 columns and 10 rows become 10 x 10, and the
    # crop begins at round(1.5) = 2. With 11 columns it begins at round(0.5) = 0.
    for columns, begin in ((13, 2), (11, 0)):
        image = np.broadcast_to(np.arange(columns)[None, :, None], (10, columns, 3))
        view = evaluation_view(image.astype(np.uint8), (10, 10), 1.0).numpy()
        assert view[0, :, 0].tolist() == list(range(begin, begin + 10))


def test_a_view_that_is_not_square_is_covered_by_the_image():
    # 8 x 8 to 4 x 6: the width binds, 6 x 6, and one row above and below is cut.
    image = np.zeros((8, 8, 3), np.uint8)
    image[:4] = 240
    view = evaluation_view(image, (4, 6), 1.0).numpy()
    assert view.shape == (4, 6, 3)
    assert (view[0] > view[-1]).all()
    expected = resize(image, 6, 6)[1:5]
    np.testing.assert_array_equal(view, expected)
    # On its side the height binds.
    view = evaluation_view(image, (6, 4), 1.0)
    np.testing.assert_array_equal(view, resize(image, 6, 6)[:, 1:5])


@pytest.mark.parametrize("crop_ratio", [1.0, 0.8])
@pytest.mark.parametrize("size", [(48, 40), (40, 48), (30, 90)])
@pytest.mark.parametrize("shape", [(60, 97), (97, 60), (31, 31)])
def test_a_view_has_the_size_asked_for(shape, size, crop_ratio):
    view = evaluation_view(np.full((*shape, 3), 7, np.uint8), size, crop_ratio)
    assert tuple(view.shape) == (*size, 3)
    assert view.dtype == tf.uint8
    np.testing.assert_array_equal(np.unique(view), [7])


@pytest.mark.parametrize(
    "size",
    [
        (100, 150),
        (64, 64),
        (256, 383),
        (700, 1000),
        (427, 100),
        (640, 640),
    ],
)
def test_resizes_as_pillow_does(china, size):
    ours = resize(np.asarray(china), *size)
    assert ours.dtype == tf.uint8
    theirs = china.resize(size[::-1], BICUBIC)
    assert distance(ours, theirs) <= 1
    assert np.mean(differences(ours, theirs) > 0) < 0.005


def test_enlarges_as_pillow_does(photographs):
    with Image.open(photographs[1]) as image:
        small = image.convert("RGB").crop((200, 100, 261, 147))
    ours = resize(np.asarray(small), 224, 300)
    assert distance(ours, small.resize((300, 224), BICUBIC)) <= 2


def test_overshoot_is_clipped_to_grey_levels():
    edge = np.zeros((16, 16, 3), np.uint8)
    edge[:, 8:] = 255
    ours = resize(edge, 64, 64)
    assert distance(ours, Image.fromarray(edge).resize((64, 64), BICUBIC)) <= 2
    assert (ours.numpy().min(), ours.numpy().max()) == (0, 255)


@pytest.mark.parametrize(
    ("size", "crop_ratio"), [(224, 0.875), (384, 0.875), (224, 0.9), (96, 1.0)]
)
@pytest.mark.parametrize("side", ["landscape", "portrait", "odd"])
def test_views_as_the_official_evaluation_does(china, side, size, crop_ratio):
    image = {
        "landscape": china,
        "portrait": china.transpose(Image.Transpose.ROTATE_90),
        "odd": china.crop((3, 8, 480, 399)),
    }[side]
    ours = evaluation_view(np.asarray(image), (size, size), crop_ratio)
    assert distance(ours, reference_view(image, size, crop_ratio)) <= 2


def test_224_pixels_are_cut_from_256(china):
    image = np.asarray(china)  # 427 x 640
    whole = resize(image, 256, 256 * 640 // 427)  # 256 x 383
    view = evaluation_view(image, (224, 224), 0.875)
    np.testing.assert_array_equal(view, whole[16 : 16 + 224, 80 : 80 + 224])


def test_the_view_is_the_same_inside_tf_data(china):
    image = np.asarray(china)
    dataset = tf.data.Dataset.from_tensors(image)
    inside = next(iter(dataset.map(lambda x: evaluation_view(x, (64, 48), 0.9))))
    np.testing.assert_array_equal(inside, evaluation_view(image, (64, 48), 0.9))


def test_decodes_a_jpeg_to_the_pixels_of_pillow(photographs):
    for path in photographs:
        with Image.open(path) as image:
            theirs = image.convert("RGB")
        assert distance(decode_image(tf.io.read_file(str(path))), theirs) == 0


@pytest.mark.parametrize("suffix", ["png", "bmp"])
def test_decodes_a_lossless_image_to_its_pixels(tmp_path, china, suffix):
    path = tmp_path / f"image.{suffix}"
    china.crop((0, 0, 50, 41)).save(path)
    image = decode_image(path.read_bytes())
    assert image.dtype == tf.uint8
    assert distance(image, china.crop((0, 0, 50, 41))) == 0


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP"])
def test_a_grey_image_has_three_equal_channels(china, kind):
    file = encoded(china.convert("L"), kind)
    image = decode_image(file).numpy()
    assert image.shape == (427, 640, 3)
    with Image.open(io.BytesIO(file)) as written:
        for channel in range(3):
            np.testing.assert_array_equal(image[..., channel], np.asarray(written))


def test_transparency_is_left_out():
    for mode, color in (("RGBA", (10, 20, 30, 0)), ("LA", (10, 0))):
        image = decode_image(encoded(Image.new(mode, (4, 3), color), "PNG"))
        assert tuple(image.shape) == (3, 4, 3)
        expected = [10, 20, 30] if mode == "RGBA" else [10, 10, 10]
        assert np.unique(image.numpy().reshape(-1, 3), axis=0).tolist() == [expected]


@pytest.mark.parametrize("num_colors", [2, 64, 256])
@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF"])
def test_a_palette_is_applied(china, kind, num_colors):
    small = china.crop((0, 100, 90, 150))
    image = small.quantize(num_colors)
    file = encoded(image, kind)
    assert distance(decode_image(file), image.convert("RGB")) == 0
    box = cropped(file, 3, 7, 40, 30)
    assert distance(box, image.convert("RGB").crop((7, 3, 37, 43))) == 0


def test_the_upper_8_of_16_bits_are_kept():
    levels = np.array([[0, 255, 256, 511], [512, 40_000, 65_279, 65_535]], np.uint16)
    image = decode_image(encoded(Image.fromarray(levels), "PNG"))
    assert image[..., 1].numpy().tolist() == [[0, 0, 1, 1], [2, 156, 254, 255]]


def test_inks_are_decoded_as_pillow_does(china):
    small = china.crop((40, 60, 201, 171))
    inks = np.asarray(small.convert("CMYK")).copy()
    black = inks[..., :3].min(axis=2)
    inks[..., :3] -= black[..., None]
    inks[..., 3] = black
    file = encoded(Image.fromarray(inks, "CMYK"), "JPEG", quality=90)
    with Image.open(io.BytesIO(file)) as image:
        assert image.mode == "CMYK"
        theirs = image.convert("RGB")
    assert differences(theirs, small).mean() < 8
    assert distance(decode_image(file), theirs) <= 1
    assert distance(cropped(file, 9, 17, 80, 101), theirs.crop((17, 9, 118, 89))) <= 1


def test_the_orientation_of_a_camera_is_left_alone(china):
    turned = Image.Exif()
    turned[0x0112] = 6
    small = china.crop((0, 0, 60, 40))
    file = encoded(small, "JPEG", exif=turned)
    np.testing.assert_array_equal(
        decode_image(file), decode_image(encoded(small, "JPEG"))
    )
    assert [int(side) for side in image_shape(file)] == [40, 60]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF"])
def test_one_pixel_is_an_image(kind):
    file = encoded(Image.new("RGB", (1, 1), (200, 200, 200)), kind)
    assert decode_image(file).numpy().tolist() == [[[200, 200, 200]]]
    assert cropped(file, 0, 0, 1, 1).numpy().tolist() == [[[200, 200, 200]]]
    assert [int(side) for side in image_shape(file)] == [1, 1]
    image = resize(decode_image(file), 3, 2)
    assert (image.numpy() == 200).all()
    assert tuple(image.shape) == (3, 2, 3)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_file_that_was_cut_off_is_an_error_and_never_half_a_picture(china, encoding):
    kind, options = ENCODINGS[encoding]
    file = encoded(china.crop((0, 0, 160, 160)), kind, **options)
    for share in (0.5, 0.9):
        cut = file[: int(len(file) * share)]
        with pytest.raises(tf.errors.InvalidArgumentError):
            decode_image(cut)
        with pytest.raises(tf.errors.InvalidArgumentError):
            cropped(cut, 0, 20, 160, 80)


def test_a_gif_stands_for_its_first_frame(tmp_path):
    path = tmp_path / "image.gif"
    frames = [Image.new("RGB", (4, 3), color) for color in ("red", "blue")]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    image = decode_image(path.read_bytes())
    assert tuple(image.shape) == (3, 4, 3)
    assert np.unique(image.numpy().reshape(-1, 3), axis=0).tolist() == [[255, 0, 0]]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_box_is_that_of_the_whole_image(china, encoding):
    kind, options = ENCODINGS[encoding]
    file = encoded(china.crop((200, 100, 300, 177)), kind, **options)  # 77 x 100
    whole = decode_image(file).numpy()
    random = np.random.default_rng(0)
    boxes = [(0, 0, 77, 100), (76, 99, 1, 1), (0, 0, 1, 1), (5, 16, 20, 16)]
    for _ in range(10):
        height, width = random.integers(1, (78, 101))
        top, left = random.integers(0, (78 - height, 101 - width))
        boxes.append((top, left, height, width))
    for top, left, height, width in boxes:
        expected = whole[top : top + height, left : left + width]
        for image in (file, whole):
            box = cropped(image, top, left, height, width)
            assert box.dtype == tf.uint8
            np.testing.assert_array_equal(box, expected)


def test_a_box_that_is_not_inside_is_an_error(china):
    small = china.crop((0, 0, 40, 30))
    jpeg, png = encoded(small, "JPEG"), encoded(small, "PNG")
    boxes = [(-1, 0, 5, 5), (0, -1, 5, 5), (26, 0, 5, 5), (0, 36, 5, 5), (0, 40, 5, 5)]
    for image in (jpeg, png, np.asarray(small)):
        for box in boxes:
            with pytest.raises(tf.errors.InvalidArgumentError):
                cropped(image, *box)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_size_box_and_pixels_are_the_same_inside_tf_data(china, encoding):
    kind, options = ENCODINGS[encoding]
    file = encoded(china.crop((0, 0, 60, 41)), kind, **options)

    def parts(image):
        return image_shape(image), cropped(image, 4, 9, 20, 31), pixels_of(image)

    for image in (file, np.asarray(china.crop((0, 0, 60, 41)))):
        dataset = tf.data.Dataset.from_tensors(image).map(parts)
        (rows, columns), box, pixels = next(iter(dataset))
        assert (rows.dtype, int(rows), int(columns)) == (tf.int32, 41, 60)
        np.testing.assert_array_equal(pixels, pixels_of(image))
        np.testing.assert_array_equal(box, pixels[4:24, 9:40])
        assert dataset.element_spec[1].shape[2] == 3


def test_pixels_are_taken_as_they_are(china):
    np.testing.assert_array_equal(pixels_of(np.asarray(china)), np.asarray(china))


def test_what_is_no_image_is_refused():
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode_image(b"hello")


def test_reads_an_image_file(photographs):
    image = read_image(str(photographs[0]))
    assert (tuple(image.shape), image.dtype) == ((427, 640, 3), tf.uint8)
    np.testing.assert_array_equal(image, decode_image(photographs[0].read_bytes()))


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no file '.*/gone.png'\."):
        read_image(str(tmp_path / "gone.png"))
    with pytest.raises(IsADirectoryError, match=f"'{tmp_path}' is a folder, not a fi"):
        read_image(str(tmp_path))


def test_a_file_that_is_no_whole_image_is_refused_by_its_name(tmp_path, photographs):
    photograph = photographs[0].read_bytes()
    damaged = {"text.png": b"hello", "empty.png": b"", "cut.jpg": photograph[:9000]}
    for name, data in damaged.items():
        path = tmp_path / name
        path.write_bytes(data)
        rule = r"^`path` must be a whole JPEG, PNG, BMP or GIF image\. Received: path="
        with pytest.raises(ValueError, match=rf"{rule}'{path}'\.$"):
            read_image(str(path))
