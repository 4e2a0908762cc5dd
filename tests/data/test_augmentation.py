import numpy as np
import pytest
import tensorflow as tf

from keras_deit.data.augmentation import Augmentation, training_view
from keras_deit.data.geometry import resize
from keras_deit.data.views import draw_crop, draw_flip, view_key

WHOLE = {"crop_area": (1.0, 1.0), "crop_aspect_ratio": (1.0, 1.0)}


def noise(rows, columns):
    return np.random.default_rng(0).integers(0, 256, (rows, columns, 3), np.uint8)


def key_with(flip):
    """The first key that does, or does not, mirror its view."""
    keys = (view_key(0, 0, example_id) for example_id in range(50))
    return next(key for key in keys if bool(draw_flip(key)) == flip)


def test_a_view_is_the_drawn_box_resized():
    image, key = noise(40, 60), key_with(flip=False)
    augmentation = Augmentation(crop_area=(0.2, 0.4))
    box = draw_crop(key, 40, 60, (0.2, 0.4), (3 / 4, 4 / 3))
    top, left, height, width = map(int, box)
    assert height * width < 40 * 60 / 2
    expected = resize(image[top : top + height, left : left + width], 24, 16)
    view = training_view(image, key, (24, 16), augmentation)
    np.testing.assert_array_equal(view, expected)


def test_a_mirrored_view_is_the_same_view_from_right_to_left():
    image, key = noise(40, 60), key_with(flip=True)
    mirrored = training_view(image, key, (24, 16), Augmentation())
    straight = training_view(image, key, (24, 16), Augmentation(flip=False))
    np.testing.assert_array_equal(mirrored, straight[:, ::-1])
    assert np.any(mirrored != straight)


@pytest.mark.parametrize("flip", [False, True])
def test_without_flip_the_whole_image_at_its_own_size_is_left_alone(flip):
    image = noise(32, 32)
    augmentation = Augmentation(**WHOLE, flip=False)
    view = training_view(image, key_with(flip), (32, 32), augmentation)
    np.testing.assert_array_equal(view, image)


@pytest.mark.parametrize("shape", [(32, 32), (7, 50), (1, 1)])
def test_a_view_has_the_size_asked_for_whatever_the_image(shape):
    view = training_view(noise(*shape), view_key(0, 0, 0), (48, 40), Augmentation())
    assert tuple(view.shape) == (48, 40, 3)
    assert view.dtype == tf.uint8


def test_a_view_is_the_same_inside_tf_data_where_its_size_is_known():
    image, key = noise(40, 60), view_key(0, 1, 2)
    dataset = tf.data.Dataset.from_tensors(image)
    dataset = dataset.map(lambda x: training_view(x, key, (24, 16), Augmentation()))
    assert dataset.element_spec == tf.TensorSpec((24, 16, 3), tf.uint8)
    view = training_view(image, key, (24, 16), Augmentation())
    np.testing.assert_array_equal(next(iter(dataset)), view)


def test_the_defaults_are_those_of_the_papers():
    augmentation = Augmentation()
    assert augmentation.crop_area == (0.08, 1.0)
    assert augmentation.crop_aspect_ratio == (3 / 4, 4 / 3)
    assert augmentation.flip


@pytest.mark.parametrize("crop_area", [(0.0, 1.0), (0.5, 0.4), (0.5, 1.1)])
def test_a_range_of_areas_that_is_empty_or_out_of_bounds_is_refused(crop_area):
    rule = r"`crop_area` must be \(smallest, largest\), both in \(0, 1\]\. Received: "
    with pytest.raises(ValueError, match=rule + r"crop_area=\("):
        Augmentation(crop_area=crop_area)


@pytest.mark.parametrize("ratio", [(0.0, 1.0), (2.0, 1.0), (-1.0, 1.0)])
def test_a_range_of_aspect_ratios_that_is_empty_or_not_positive_is_refused(ratio):
    rule = r"`crop_aspect_ratio` must be \(smallest, largest\), both positive\. "
    with pytest.raises(ValueError, match=rule + r"Received: crop_aspect_ratio=\("):
        Augmentation(crop_aspect_ratio=ratio)
