import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_deit.data.geometry import decode_image, evaluation_view, read_image, resize

BICUBIC = Image.Resampling.BICUBIC


def pixels_of(image):
    return np.asarray(image, np.int32)


def distance(ours, theirs):
    """The largest difference, in grey levels."""
    ours = pixels_of(ours)
    assert ours.shape == pixels_of(theirs).shape
    return np.abs(ours - pixels_of(theirs)).max()


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
    assert distance(ours, theirs) <= 2
    assert np.mean(pixels_of(ours) != pixels_of(theirs)) < 0.01


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


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_grey_image_has_three_equal_channels(tmp_path, china, suffix):
    path = tmp_path / f"grey.{suffix}"
    china.convert("L").save(path)
    image = decode_image(path.read_bytes()).numpy()
    assert image.shape == (427, 640, 3)
    with Image.open(path) as written:
        for channel in range(3):
            np.testing.assert_array_equal(image[..., channel], np.asarray(written))


def test_transparency_is_left_out(tmp_path):
    path = tmp_path / "image.png"
    Image.new("RGBA", (4, 3), (10, 20, 30, 0)).save(path)
    image = decode_image(path.read_bytes())
    assert tuple(image.shape) == (3, 4, 3)
    assert np.unique(image.numpy().reshape(-1, 3), axis=0).tolist() == [[10, 20, 30]]


def test_a_gif_stands_for_its_first_frame(tmp_path):
    path = tmp_path / "image.gif"
    frames = [Image.new("RGB", (4, 3), color) for color in ("red", "blue")]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    image = decode_image(path.read_bytes())
    assert tuple(image.shape) == (3, 4, 3)
    assert np.unique(image.numpy().reshape(-1, 3), axis=0).tolist() == [[255, 0, 0]]


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
