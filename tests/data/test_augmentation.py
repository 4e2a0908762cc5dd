import numpy as np
import pytest
import tensorflow as tf

from keras_deit.data import augmentation as module
from keras_deit.data.augmentation import (
    Augmentation,
    color_jitter,
    erase,
    training_view,
)
from keras_deit.data.color import (
    adjust_brightness,
    adjust_color,
    adjust_contrast,
    invert,
)
from keras_deit.data.geometry import resize
from keras_deit.data.rand_augment import parse_policy, rand_augment
from keras_deit.data.views import (
    draw_crop,
    draw_erased_box,
    draw_flip,
    draw_jitter,
    draw_noise,
    view_key,
)
from tests.data.pictures import noise, smooth

POLICY = "rand-m9-mstd0.5-inc1"
WHOLE = {"crop_area": (1.0, 1.0), "crop_aspect_ratio": (1.0, 1.0)}


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


def test_a_view_of_an_encoded_image_is_that_of_its_pixels():
    image, key = noise(40, 60), view_key(0, 1, 2)
    encoded = tf.io.encode_png(image)
    np.testing.assert_array_equal(
        training_view(encoded, key, (24, 16), Augmentation()),
        training_view(image, key, (24, 16), Augmentation()),
    )


def test_rand_augment_and_erasing_follow_the_crop_in_this_order():
    image, key = smooth(40, 60), view_key(0, 0, 3)
    plain = training_view(image, key, (24, 16), Augmentation())
    policy = f"{POLICY}-p1"
    augmentation = Augmentation(rand_augment=policy, erasing=1.0)
    expected = erase(rand_augment(plain, key, parse_policy(policy)), key, 1.0)
    view = training_view(image, key, (24, 16), augmentation)
    np.testing.assert_array_equal(view, expected)
    assert np.any(view != plain)


def test_jitter_and_erasing_follow_the_crop_in_this_order():
    image, key = smooth(40, 60), view_key(0, 0, 3)
    plain = training_view(image, key, (24, 16), Augmentation())
    augmentation = Augmentation(color_jitter=0.4, erasing=1.0)
    expected = erase(color_jitter(plain, key, 0.4), key, 1.0)
    view = training_view(image, key, (24, 16), augmentation)
    np.testing.assert_array_equal(view, expected)


def test_the_engine_of_keras_cv_carries_out_what_it_has(monkeypatch):
    def operations():
        return {"Invert": lambda image, argument: invert(image)}

    monkeypatch.setattr(module, "keras_cv_operations", operations)
    image, key = noise(24, 24), key_with(flip=False)
    augmentation = Augmentation(
        **WHOLE, rand_augment="rand-n1-p1-inc1", engine="keras-cv"
    )
    view = training_view(image, key, (24, 24), augmentation)
    np.testing.assert_array_equal(view, 255 - image)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # KerasCV's own
def test_the_engine_of_keras_cv_gives_the_same_bytes_inside_tf_data():
    pytest.importorskip("keras_cv")
    augmentation = Augmentation(rand_augment=f"{POLICY}-p1", engine="keras-cv")

    def view(example_id):
        key = view_key(0, 0, example_id)
        return training_view(tf.constant(smooth(40, 48)), key, (32, 32), augmentation)

    alone, together = (
        list(tf.data.Dataset.range(24).map(view, num_parallel_calls=calls))
        for calls in (1, 8)
    )
    np.testing.assert_array_equal(alone, together)
    assert len({pixels.numpy().tobytes() for pixels in alone}) > 20


def test_a_view_with_everything_is_the_same_inside_tf_data():
    image = smooth(40, 48)
    augmentation = Augmentation(rand_augment=POLICY, erasing=0.5)

    def view(example_id):
        key = view_key(0, 0, example_id)
        return training_view(tf.constant(image), key, (32, 32), augmentation)

    views = tf.data.Dataset.range(6).map(view, num_parallel_calls=8)
    assert views.element_spec == tf.TensorSpec((32, 32, 3), tf.uint8)
    eagerly = [view(example_id).numpy() for example_id in range(6)]
    np.testing.assert_array_equal(list(views), eagerly)
    assert len({pixels.tobytes() for pixels in eagerly}) == 6


def test_jitter_applies_the_drawn_factors_in_the_drawn_order():
    adjustments = (adjust_brightness, adjust_contrast, adjust_color)
    orders = set()
    for example_id in range(8):
        key = view_key(0, 0, example_id)
        order, factors = draw_jitter(key, 3, 0.4)
        expected = tf.constant(smooth(24, 24))
        for number in order.numpy():
            expected = adjustments[number](expected, factors[number])
        result = color_jitter(tf.constant(smooth(24, 24)), key, 0.4)
        np.testing.assert_array_equal(result, expected)
        orders.add(tuple(order.numpy()))
    assert len(orders) > 2


def test_an_erased_box_is_noise_of_the_mean_and_deviation_of_imagenet():
    # 0.485 * 255 = 123.7 +- 0.229 * 255 = 58.4; clipping at 0 and 255 takes a little.
    image, key = np.zeros((200, 100, 3), np.uint8), view_key(0, 0, 5)
    erased = erase(tf.constant(image), key, 1.0).numpy()
    top, left, height, width = map(int, draw_erased_box(key, 200, 100))
    box = erased[top : top + height, left : left + width].astype(float)
    assert box.size > 3 * 400
    np.testing.assert_allclose(box.mean((0, 1)), [123.7, 116.3, 103.5], atol=8)
    np.testing.assert_allclose(box.std((0, 1)), [57.6, 56.5, 56.0], atol=5)
    assert (box.min(), box.max()) == (0, 255)
    erased[top : top + height, left : left + width] = 0
    assert not erased.any()


def test_noise_is_rounded_to_whole_grey_levels():
    image, key = np.zeros((40, 40, 3), np.uint8), view_key(0, 0, 5)
    top, left, height, width = map(int, draw_erased_box(key, 40, 40))
    z = draw_noise(key, (height, width, 3)).numpy()[0, 0].astype(float)
    levels = 255 * (np.array([0.485, 0.456, 0.406]) + [0.229, 0.224, 0.225] * z)
    erased = erase(tf.constant(image), key, 1.0).numpy()
    assert erased[top, left].tolist() == np.clip(np.round(levels), 0, 255).tolist()


def test_a_quarter_of_the_views_is_erased():
    image = tf.zeros((16, 16, 3), tf.uint8)
    keys = tf.data.Dataset.range(400).map(lambda i: view_key(0, 0, i))
    views = keys.map(lambda key: tf.reduce_any(erase(image, key, 0.25) > 0))
    share = np.mean([bool(erased) for erased in views])
    assert share == pytest.approx(0.25, abs=0.08)


def test_the_defaults_are_those_of_the_papers():
    augmentation = Augmentation()
    assert augmentation.crop_area == (0.08, 1.0)
    assert augmentation.crop_aspect_ratio == (3 / 4, 4 / 3)
    assert augmentation.flip
    assert augmentation.rand_augment is None
    assert augmentation.color_jitter == augmentation.erasing == 0
    assert augmentation.engine == "own"


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


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ({"rand_augment": "rand-m9"}, "`rand_augment` must have the part inc1"),
        ({"rand_augment": ""}, '`rand_augment` must begin with "rand"'),
        ({"color_jitter": -0.1}, "`color_jitter` must be finite, and not below 0"),
        ({"color_jitter": float("inf")}, "`color_jitter` must be finite"),
        (
            {"color_jitter": 0.3, "rand_augment": POLICY},
            "`color_jitter` must be 0 beside `rand_augment`",
        ),
        ({"erasing": 1.1}, r"`erasing` must be in \[0, 1\]"),
        ({"erasing": -0.1}, r"`erasing` must be in \[0, 1\]"),
        (
            {"engine": "keras_cv", "rand_augment": POLICY},
            r"`engine` must be one of \['keras-cv', 'own'\]. Did you mean 'keras-cv'",
        ),
        ({"engine": "keras-cv"}, "`engine` must be 'own' without `rand_augment`"),
    ],
)
def test_what_is_out_of_bounds_or_excludes_each_other_is_refused(arguments, rule):
    with pytest.raises(ValueError, match=rule + r".*Received: "):
        Augmentation(**arguments)
