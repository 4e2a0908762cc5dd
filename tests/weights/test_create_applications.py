import inspect

import h5py
import keras
import numpy as np
import pytest

from keras_deit.weights.create import create_model


def some_images():
    rng = np.random.default_rng(0)
    return rng.uniform(0, 255, (2, 32, 32, 3)).astype("float32")


NETWORK = "keras:MobileNet"


@pytest.fixture(scope="module")
def of_keras(tmp_path_factory):
    """A network of Keras with a head of ours, and the folder with all its files."""
    folder = tmp_path_factory.mktemp("of_keras")
    model = create_model(NETWORK, num_classes=3, image_size=32)
    rng = np.random.default_rng(0)
    for weight in model.weights:  # the statistics, too
        weight.assign(rng.uniform(0.5, 1, weight.shape) * 0.1)
    model.save(folder / "teacher.keras")
    model.save_weights(folder / "teacher.weights.h5")
    theirs = keras.applications.MobileNet(
        include_top=False, weights=None, input_shape=(32, 32, 3), pooling="avg"
    )
    theirs.set_weights(model.get_layer("network").get_weights())
    theirs.save(folder / "mobilenet_notop.h5")  # as Keras' own files are laid out
    return model, folder


@pytest.mark.parametrize("file", ["teacher.keras", "teacher.weights.h5"])
def test_a_network_of_keras_comes_back_from_a_file(file, of_keras, capsys):
    model, folder = of_keras
    keras.layers.Dense(2).build((None, 2))  # names are counted on
    twin = create_model(NETWORK, 3, 32, weights=folder / file)
    np.testing.assert_array_equal(twin(some_images()), model(some_images()))
    assert capsys.readouterr() == ("", "")


def test_a_network_of_keras_for_other_classes_has_a_fresh_head(of_keras, capsys):
    model, folder = of_keras
    twin = create_model(NETWORK, 4, 64, weights=str(folder / "teacher.keras"))
    assert twin.output_shape == (None, 4)
    theirs = model.get_layer("network").get_weights()
    for ours, saved in zip(
        twin.get_layer("network").get_weights(), theirs, strict=True
    ):
        np.testing.assert_array_equal(ours, saved)
    assert "left fresh: class_head/kernel, class_head/bias" in capsys.readouterr().err


def test_a_file_of_keras_fills_the_network_and_leaves_the_head_fresh(of_keras, capsys):
    model, folder = of_keras
    path = folder / "mobilenet_notop.h5"
    twin = create_model(NETWORK, 3, 32, weights=path)
    for ours, theirs in zip(twin.get_weights()[:-2], model.get_weights(), strict=False):
        np.testing.assert_array_equal(ours, theirs)
    assert np.any(twin.get_weights()[-2] != model.get_weights()[-2])
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == (
        f"{NETWORK}: weights of {path} loaded; "
        "left fresh: class_head/kernel, class_head/bias\n"
    )


@pytest.fixture
def keras_home(tmp_path, monkeypatch):
    """An empty cache of Keras, and no network."""
    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path))
    for scheme in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(scheme, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    return tmp_path


def test_pretrained_weights_of_keras_come_from_its_cache(keras_home, of_keras, capsys):
    model, folder = of_keras
    (keras_home / "models").mkdir()
    cached = keras_home / "models" / "mobilenet_1_0_128_tf_no_top.h5"
    cached.write_bytes((folder / "mobilenet_notop.h5").read_bytes())
    twin = create_model(NETWORK, 3, 128, weights="pretrained")
    for ours, theirs in zip(twin.get_weights()[:-2], model.get_weights(), strict=False):
        np.testing.assert_array_equal(ours, theirs)
    message = f"{NETWORK}: weights of imagenet loaded; left fresh: class_head/kernel"
    assert message in capsys.readouterr().err


def test_says_what_to_do_where_keras_cannot_download(keras_home):
    with pytest.raises(FileNotFoundError) as caught:
        create_model("keras:ResNet50", 3, 32, weights="pretrained")
    message = str(caught.value)
    assert message.startswith("Keras' weights of ResNet50 are not in its cache and can")
    assert "https://storage.googleapis.com/" in message
    assert "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5" in message
    assert "Connection refused" in message
    assert message.endswith(
        "Put that file into ~/.keras/models ($KERAS_HOME/models), or give a file: "
        "weights=FILE (--weights=FILE)."
    )


@pytest.mark.parametrize(
    ("name", "file", "message"),
    [
        ("keras:MobileNetV2", "mobilenet_notop.h5", r"MobileNetV2 refuses: .*weights="),
        ("keras:MobileNetV2", "teacher.keras", "must hold the weights of 'MobileNetV2"),
        (NETWORK, "damaged.h5", "MobileNet refuses: .*damaged.h5"),
        (NETWORK, "empty.h5", "MobileNet refuses: .*empty.h5"),
        (
            NETWORK,
            "weights.pth",
            "`weights` of a network of keras.applications must be",
        ),
    ],
)
def test_refuses_a_file_that_does_not_fit_a_network_of_keras(
    name, file, message, of_keras
):
    folder = of_keras[1]
    (folder / "damaged.h5").write_bytes((folder / "teacher.keras").read_bytes()[:999])
    h5py.File(folder / "empty.h5", "w").close()
    with pytest.raises(ValueError, match=message):
        create_model(name, 3, 32, weights=folder / file)


def test_refuses_a_missing_file_of_keras(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no file '.*none_notop.h5'"):
        create_model(NETWORK, 3, 32, weights=tmp_path / "none_notop.h5")


@pytest.mark.parametrize("override", [{"dtype": "bfloat16"}, {"keep_rate": 0.7}])
def test_a_network_of_keras_has_nothing_to_override(override):
    message = f"no fields to override.* set_dtype_policy.*overrides=.*{[*override][0]}"
    with pytest.raises(ValueError, match=message.replace(" set", ".*set")):
        create_model(NETWORK, 3, **override)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["EfficientNetB0", "ResNet50", "ConvNeXtTiny", "Xception"]
)
def test_pretrained_networks_see_what_they_see_in_keras(name, tmp_path, monkeypatch):
    """The whole way, with weights of our own in the place of Keras' file."""
    build = getattr(keras.applications, name)
    arguments = {"include_top": False, "pooling": "avg", "input_shape": (75, 75, 3)}
    donor = build(weights=None, **arguments)
    path = str(tmp_path / "notop.h5")
    for weight in donor.weights:
        if weight.path.startswith("normalization"):
            values = {"mean": (0.485, 0.456, 0.406), "variance": (0.229, 0.224, 0.225)}
            weight.assign(values.get(weight.name, 0))
    donor.save(path)
    monkeypatch.setattr("keras.src.utils.file_utils.get_file", lambda *_, **__: path)
    theirs = build(weights="imagenet", **arguments)
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 75, 75, 3)).astype("float32")
    preprocess_input = inspect.getmodule(build).preprocess_input
    expected = theirs(preprocess_input(pixels.copy()))
    model = create_model(f"keras:{name}", 3, 75, weights="pretrained")
    features = keras.Model(model.input, model.layers[-1].input)(pixels)
    scale = np.abs(expected).max()
    assert np.ptp(expected, axis=0).max() > 0.1 * scale
    np.testing.assert_allclose(features / scale, expected / scale, atol=1e-4)
