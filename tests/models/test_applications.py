import inspect
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_deit.models.applications import (
    APPLICATIONS,
    application_model,
    prepare_pixels,
)
from keras_deit.models.complexity import count_macs, count_parameters
from keras_deit.models.preprocessing import Preprocessing, preprocessing_of
from keras_deit.weights.loader import load_model

ROOT = Path(__file__).parents[2]
# Keras' function for these does nothing, because the networks do it themselves.
DO_IT_THEMSELVES = [
    name
    for name in APPLICATIONS
    if name.startswith(("EfficientNet", "ConvNeXt", "MobileNetV3"))
]
LOAD_AND_RUN = """
import sys
from pathlib import Path

import numpy as np

import keras_deit
from keras_deit.weights.loader import load_model

for path in Path(sys.argv[1]).glob("*.keras"):
    images = np.load(path.with_suffix(".images.npy"))
    np.save(path.with_suffix(".there.npy"), load_model(path)(images))
"""


def some_images(size, count=2):
    shape = (count, size, size, 3)
    return np.random.default_rng(0).uniform(0, 255, shape).astype("float32")


def preprocess_input_of(name):
    """The function that Keras has beside a network."""
    return inspect.getmodule(getattr(keras.applications, name)).preprocess_input


def own_first_layers(name):
    """What a network of Keras does to pixels itself, before anything is learned."""
    with keras.StatelessScope(initialize_variables=False):
        network = getattr(keras.applications, name)(
            include_top=False, weights=None, input_shape=(32, 32, 3)
        )
    return [
        layer
        for layer in network.layers
        if isinstance(layer, keras.layers.Rescaling | keras.layers.Normalization)
    ]


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return application_model("keras:MobileNetV2", 5, 32)


@pytest.fixture(scope="module")
def small():
    return application_model("keras:MobileNetV3Small", 2)


def test_caffe_takes_blue_green_red_less_their_mean_by_hand():
    orange = np.array([[[[255.0, 128.0, 0.0]]]], "float32")
    expected = [0 - 103.939, 128 - 116.779, 255 - 123.68]
    prepared = prepare_pixels("ResNet50", orange)
    np.testing.assert_allclose(prepared[0, 0, 0], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("MobileNet", [1, 128 / 127.5 - 1, -1]),
        ("MobileNetV3Large", [1, 128 / 127.5 - 1, -1]),
        ("EfficientNetV2S", [255 / 128 - 1, 0, -1]),
        ("DenseNet121", [0.515 / 0.229, (128 / 255 - 0.456) / 0.224, -0.406 / 0.225]),
    ],
)
def test_others_scale_red_green_blue_by_hand(name, expected):
    orange = np.array([[[[255.0, 128.0, 0.0]]]], "float32")
    prepared = prepare_pixels(name, orange)
    np.testing.assert_allclose(prepared[0, 0, 0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", sorted(set(APPLICATIONS) - set(DO_IT_THEMSELVES)))
def test_prepares_pixels_as_keras_does(name):
    pixels = some_images(4)
    expected = preprocess_input_of(name)(pixels.copy())
    assert np.abs(expected - pixels).max() > 1
    ours = prepare_pixels(name, pixels)
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("name", DO_IT_THEMSELVES)
def test_for_some_networks_keras_leaves_the_pixels_as_they_are(name):
    pixels = some_images(4)
    np.testing.assert_array_equal(preprocess_input_of(name)(pixels), pixels)


@pytest.mark.parametrize(
    "name",
    [
        "MobileNetV3Small",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in DO_IT_THEMSELVES
            if name != "MobileNetV3Small"
        ),
    ],
)
def test_prepares_pixels_as_the_first_layers_of_the_network_do(name):
    pixels = x = some_images(4)
    for layer in own_first_layers(name):
        if isinstance(layer, keras.layers.Normalization) and layer.weights:
            # EfficientNetB0 to B7 read it: ImageNet's mean, and its deviation in the
            # place of the variance, which is why a last layer divides by its root again
            # (https://github.com/tensorflow/tensorflow/issues/49930).
            mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
            layer = keras.layers.Normalization(mean=mean, variance=std)
            x = layer(x) / np.sqrt(std)
        else:
            x = layer(x)
    ours = prepare_pixels(name, pixels)
    np.testing.assert_allclose(ours, x, rtol=1e-5, atol=2e-5)


def test_knows_every_network_of_this_keras():
    functions = dict(inspect.getmembers(keras.applications, inspect.isfunction))
    assert set(APPLICATIONS) == set(functions)


def test_a_network_gives_logits_in_float32(model):
    assert (model.name, model.input_shape) == ("MobileNetV2", (None, 32, 32, 3))
    logits = model(some_images(32))
    assert (tuple(logits.shape), logits.dtype) == ((2, 5), "float32")
    assert np.isfinite(logits).all()
    assert np.ptp(logits, axis=0).min() > 0  # it sees the image


def test_takes_whole_pixels_as_well(model):
    pixels = some_images(32).round()
    np.testing.assert_array_equal(model(pixels.astype("uint8")), model(pixels))


def test_without_a_size_an_image_has_224_pixels(small):
    assert small.input_shape == (None, 224, 224, 3)


def test_the_head_alone_is_found_by_its_name(model):
    heads = [w.path for w in model.weights if "_head/" in w.path]
    assert heads == ["class_head/kernel", "class_head/bias"]
    assert model.layers[-1].name == "class_head"
    assert len({w.path for w in model.weights}) == len(model.weights)


def test_says_how_pixels_are_prepared(model):
    half = (0.5, 0.5, 0.5)
    assert preprocessing_of(model) == Preprocessing(half, half, 0.875)


def test_pixels_are_normalized_once_where_keras_would_do_it_too(small):
    kinds = {type(layer) for layer in small._flatten_layers()}
    assert not kinds & {keras.layers.Rescaling, keras.layers.Normalization}
    assert preprocessing_of(small) == APPLICATIONS["MobileNetV3Small"]


def test_swapped_channels_do_not_hide_how_pixels_are_prepared():
    model = application_model("keras:VGG16", 2, 32)
    kinds = [type(layer).__name__ for layer in model.layers]
    assert kinds.count("PixelNormalization") == 1
    seen = preprocessing_of(model)  # red, green, blue
    np.testing.assert_allclose(np.multiply(seen.mean, 255), (123.68, 116.779, 103.939))
    features = model.get_layer("network")(prepare_pixels("VGG16", some_images(32)))
    expected = model.layers[-1](features)
    np.testing.assert_allclose(model(some_images(32)), expected, rtol=1e-5, atol=1e-6)


def test_running_statistics_stay_in_inference_mode(model):
    before = model.get_weights()
    model(some_images(32), training=False)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    model(some_images(32), training=True)
    moved = [
        w.path
        for w, old in zip(model.weights, before, strict=True)
        if np.any(old != np.array(w))
    ]
    model.set_weights(before)
    assert len(moved) == 2 * 52  # mean and variance of each of its batch norms
    assert all("/moving_" in path for path in moved)


def test_a_saved_network_says_the_same(model, tmp_path):
    model.save(tmp_path / "teacher.keras")
    twin = load_model(tmp_path / "teacher.keras")
    np.testing.assert_array_equal(twin(some_images(32)), model(some_images(32)))
    assert preprocessing_of(twin) == preprocessing_of(model)


def test_the_same_seed_gives_the_same_network(model):
    keras.utils.set_random_seed(0)
    twin = application_model("keras:MobileNetV2", 5, 32)
    for ours, theirs in zip(twin.weights, model.weights, strict=True):
        assert ours.path == theirs.path
        np.testing.assert_array_equal(ours, theirs)


def test_the_dtype_is_the_global_policy(model):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        half = application_model("keras:MobileNetV3Small", 5, (32, 64))
    finally:
        keras.config.set_dtype_policy(before)
    network = half.get_layer("network")
    assert network.output.dtype == "bfloat16"
    logits = half(np.zeros((1, 32, 64, 3)))  # an image may be no square, too
    assert (tuple(logits.shape), logits.dtype) == ((1, 5), "float32")
    assert model.get_layer("network").output.dtype == "float32"


def test_parameters_are_those_of_keras_without_its_head(model):
    # 2,257,984 without the top, of which 34,112 are running statistics; the head has
    # 1280 * 5 + 5.
    assert count_parameters(model) == 2_257_984 - 34_112 + 6_405


def test_refuses_an_unknown_network():
    with pytest.raises(ValueError, match="`name` must be .*Did you mean 'keras:VGG19'"):
        application_model("keras:VGG9", 5)


@pytest.mark.parametrize("num_classes", [1, 0, 2.0, None])
def test_refuses_fewer_than_two_classes(num_classes):
    message = f"`num_classes` must be at least 2. Received: num_classes={num_classes}"
    with pytest.raises(ValueError, match=message):
        application_model("keras:VGG16", num_classes)


@pytest.mark.parametrize("image_size", [0, -1, 32.0, (32,), "32"])
def test_refuses_what_is_no_size(image_size):
    with pytest.raises(ValueError, match="`image_size` must be a positive number"):
        application_model("keras:VGG16", 5, image_size)


@pytest.mark.parametrize(
    ("name", "least"), [("InceptionV3", 75), ("Xception", 71), ("NASNetMobile", 32)]
)
def test_says_how_large_an_image_must_be(name, least):
    size = (least, least - 1)
    message = rf"applications.{name} refuses: .*at least {least}x{least}.*image_size="
    with pytest.raises(ValueError, match=message) as caught:
        application_model(f"keras:{name}", 5, size)
    assert str(caught.value).endswith(f"image_size={size}, weights=None.")


def test_refuses_channels_first():
    keras.config.set_image_data_format("channels_first")
    try:
        with pytest.raises(ValueError, match="need the image data format 'channels_la"):
            application_model("keras:VGG16", 5)
    finally:
        keras.config.set_image_data_format("channels_last")


def test_an_error_of_another_kind_is_left_as_it_is(monkeypatch):
    def broken(**_):
        raise RuntimeError("URL fetch failure")

    monkeypatch.setattr(keras.applications, "VGG16", broken)
    with pytest.raises(RuntimeError, match="URL fetch failure"):
        application_model("keras:VGG16", 5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "million_macs"),
    [
        ("MobileNetV2", 224, 300),  # arXiv:1801.04381, table 4
        ("ResNet50", 224, 3_860),  # arXiv:1512.03385: 3.8 billion
        ("NASNetMobile", 224, 564),  # arXiv:1707.07012, table 2
    ],
)
def test_multiply_adds_are_those_of_the_papers(name, size, million_macs):
    model = application_model(f"keras:{name}", 1000, size)
    assert count_macs(model) / 1e6 == pytest.approx(million_macs, rel=0.01)


@pytest.mark.slow
def test_names_of_weights_do_not_depend_on_what_was_built_before():
    first, second = (
        [w.path for w in application_model("keras:Xception", 2, 71).weights]
        for _ in range(2)
    )
    assert first == second
    assert "conv2d_0/kernel" in first


@pytest.mark.slow
def test_saved_networks_say_the_same_in_a_new_process(tmp_path):
    here = {}
    for name, size in {
        "ResNet50": 32,  # swaps channels
        "EfficientNetB0": 32,
        "ConvNeXtTiny": 32,  # has a layer of its own
    }.items():
        model = application_model(f"keras:{name}", 3, size)
        np.save(tmp_path / f"{name}.images.npy", some_images(size))
        model.save(tmp_path / f"{name}.keras")
        here[name] = np.array(model(some_images(size)))
        assert np.isfinite(here[name]).all()
    process = subprocess.run(
        [sys.executable, "-c", LOAD_AND_RUN, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    for name, logits in here.items():
        there = np.load(tmp_path / f"{name}.there.npy")
        np.testing.assert_array_equal(there, logits)
