import inspect
import json
import os

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from keras_deit.data.geometry import evaluation_view
from keras_deit.export import edge
from keras_deit.export.edge import tflite
from keras_deit.export.sensitivity import read_sensitivity
from keras_deit.export.tflite_file import builtin_operators
from keras_deit.export.trials import Comparison, Speed, Trial
from keras_deit.models.inference import head_logits
from keras_deit.weights.create import create_model


@pytest.fixture(scope="module")
def file(tmp_path_factory, model, images, labels):
    path = tmp_path_factory.mktemp("edge") / "new" / "animals.tflite"
    return tflite(
        model,
        path,
        precision="float32",
        labels=labels,
        images=images,
        image_labels=[0, 1, 2],
    )


@pytest.fixture(scope="module")
def interpreter(file):
    return Interpreter(str(file))


@pytest.fixture(scope="module")
def int8_file(tmp_path_factory, small_model, images):
    path = tmp_path_factory.mktemp("int8") / "m.tflite"
    return tflite(
        small_model,
        path,
        precision="int8",
        images=images,
        calibration_images=images[:2],
        sensitivity=True,
    )


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def certificate_of(file):
    return json.loads(file.with_suffix(".certificate.json").read_text())


def test_gives_the_logits_of_the_model(interpreter, model, images):
    run = interpreter.get_signature_runner("serving_default")
    for image in images:
        view = evaluation_view(image, (48, 40), 0.8).numpy()[None].astype("float32")
        answer = run(pixels=view)
        assert set(answer) == {"logits", "probabilities"}
        expected = head_logits(model(view, training=False), "fused")
        np.testing.assert_allclose(answer["logits"], expected, atol=1e-4)
        softmax = np.exp(expected) / np.exp(expected).sum()
        np.testing.assert_allclose(answer["probabilities"], softmax, atol=1e-4)


def test_takes_one_image_of_float_pixels(interpreter):
    signatures = interpreter.get_signature_list()
    assert list(signatures) == ["serving_default"]
    assert signatures["serving_default"]["inputs"] == ["pixels"]
    run = interpreter.get_signature_runner("serving_default")
    details = run.get_input_details()["pixels"]
    assert details["shape"].tolist() == [1, 48, 40, 3]
    assert details["dtype"] == np.float32


def test_holds_built_in_operators_only(file):
    operators = builtin_operators(file.read_bytes())
    assert operators == sorted(set(operators))
    assert {"CONV_2D", "SOFTMAX", "FULLY_CONNECTED"} <= set(operators)
    assert not {"CUSTOM", "DELEGATE"} & set(operators)
    assert not any(name.startswith("FLEX") for name in operators)


def test_labels_and_certificate_lie_beside_the_file(file, labels, images):
    assert names_in(file.parent) == [
        "animals.certificate.json",
        "animals.labels.txt",
        "animals.tflite",
    ]
    text = (file.parent / "animals.labels.txt").read_text()
    assert text == "".join(f"{label}\n" for label in labels)
    certificate = certificate_of(file)
    assert certificate["kind"] == "TFLite"
    assert certificate["precision"] == "float32"
    assert certificate["preprocessing"]["crop_ratio"] == 0.8
    assert certificate["operators"] == builtin_operators(file.read_bytes())
    assert certificate["bytes"] == file.stat().st_size
    assert certificate["num_threads"] == os.cpu_count()
    assert certificate["token_selection_agreement"] == {}
    trial = certificate["signatures"]["serving_default"]
    assert trial["comparison"]["num_images"] == len(images)
    assert trial["comparison"]["max_difference"] <= 1e-4
    assert trial["accuracy"] == trial["model_accuracy"]
    assert trial["speed"]["throughput_batch"] == 1


def test_int8_takes_bytes_and_returns_floats(int8_file, images):
    run = Interpreter(str(int8_file)).get_signature_runner("serving_default")
    pixels = run.get_input_details()["pixels"]
    assert pixels["dtype"] is np.uint8
    assert pixels["quantization"] == (1.0, 0)
    view = evaluation_view(images[0], (32, 32), 1.0).numpy()[None]
    answer = run(pixels=view)
    assert answer["logits"].dtype == np.float32
    assert answer["probabilities"].dtype == np.float32
    assert answer["probabilities"].sum() == pytest.approx(1, abs=1e-6)
    certificate = certificate_of(int8_file)
    assert certificate["calibration_images"] == 2
    comparison = certificate["signatures"]["serving_default"]["comparison"]
    assert 1e-3 < comparison["relative_difference"] < 0.4


def test_int8_says_which_layers_it_hurts(int8_file):
    assert names_in(int8_file.parent) == [
        "m.certificate.json",
        "m.labels.txt",
        "m.sensitivity.csv",
        "m.tflite",
    ]
    rows = read_sensitivity(int8_file.with_suffix(".sensitivity.csv"))
    layers = {(row.layer, row.operator) for row in rows}
    assert ("block_0/mlp/fc1", "FULLY_CONNECTED") in layers
    assert ("patch_embedding/projection", "CONV_2D") in layers
    assert ("output", "FULLY_CONNECTED") in layers


def test_the_default_is_8_bit_weights():
    assert inspect.signature(tflite).parameters["precision"].default == "dynamic_int8"


@pytest.mark.slow
def test_a_dial_costs_little_where_the_weights_are_small(tmp_path, images):
    model, path = create_model("deit_tiny_patch16_224", num_classes=7), tmp_path / "m"
    sizes = []
    for rates in ((), (1.0, 0.7, 0.5)):
        file = path.with_suffix(".tflite")
        tflite(model, file, images=images[:1], keep_rates=rates, min_agreement=0)
        names = {"serving_default", *(f"keep_{100 * rate:.0f}" for rate in rates)}
        assert set(Interpreter(str(file)).get_signature_list()) == names
        sizes.append(file.stat().st_size)
    assert model.count_params() < sizes[0] < sizes[1] < 1.05 * sizes[0]


@pytest.fixture
def converted(monkeypatch):
    """What a conversion gives, without one; nothing is tried."""

    def converted(content):
        monkeypatch.setattr(edge, "_converter", lambda models, folder: None)
        monkeypatch.setattr(edge, "_convert", lambda *_: (content, []))
        monkeypatch.setattr(edge, "_trials", lambda *_: {})

    return converted


def test_a_file_without_the_weights_is_refused(tmp_path, small_model, converted):
    least = 2 * small_model.count_params()  # half of four bytes each
    converted(bytes(least - 1))
    message = rf"too small to hold.*bytes={least - 1}, at least {least} are expected"
    with pytest.raises(RuntimeError, match=message):
        tflite(small_model, tmp_path / "models" / "m.tflite", "float32")
    assert names_in(tmp_path) == []


def test_a_file_that_differs_leaves_what_was_there(
    tmp_path, small_model, converted, monkeypatch
):
    converted(bytes(4 * small_model.count_params()))
    comparison = Comparison(3, 0.01, 0.001, 1.0, 0.0)
    trial = Trial(comparison, None, None, Speed(1.0, 1.0, 1.0, 1))
    monkeypatch.setattr(edge, "_trials", lambda *_: {"serving_default": trial})
    monkeypatch.setattr(edge, "_facts", lambda *_: {})
    suffixes = (".tflite", ".labels.txt", ".sensitivity.csv", ".certificate.json")
    old = {f"m{suffix}": f"old {suffix}" for suffix in suffixes}
    for name, text in old.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(RuntimeError, match=r"differs from the model in 'serving_defa"):
        tflite(small_model, tmp_path / "m.tflite", "float32")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == old


def test_an_operator_that_is_not_built_in_leaves_nothing(
    tmp_path, small_model, converted, monkeypatch
):
    def fail(content):
        raise RuntimeError("A TFLite file must have built-in operators only.")

    converted(bytes(small_model.count_params()))
    monkeypatch.setattr(edge, "builtin_operators", fail)
    with pytest.raises(RuntimeError, match="built-in operators only"):
        tflite(small_model, tmp_path / "models" / "m.tflite")
    assert names_in(tmp_path) == []


def test_what_int8_hurt_in_an_older_file_goes_with_it(
    tmp_path, small_model, converted, monkeypatch
):
    converted(bytes(small_model.count_params()))
    monkeypatch.setattr(edge, "_facts", lambda *_: {})
    monkeypatch.setattr(edge, "certify", lambda path, *_, **__: path.write_text("{}"))
    (tmp_path / "m.sensitivity.csv").write_text("old")
    tflite(small_model, tmp_path / "m.tflite")
    assert names_in(tmp_path) == ["m.certificate.json", "m.labels.txt", "m.tflite"]


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("m.tflit", {}, r"`path` must end in \.tflite\. Received: path='.*m\.tflit'\."),
        (
            "m.tflite",
            {"precision": "bfloat16"},
            r"must be one of \['dynamic_int8', 'float16', 'float32', 'int8'\]",
        ),
        (
            "m.tflite",
            {"precision": "int8"},
            r"int8 needs `calibration_images`: .*Received: calibration_images=None\.",
        ),
        (
            "m.tflite",
            {"precision": "int8", "calibration_images": []},
            r"must hold at least one image\.",
        ),
        (
            "m.tflite",
            {"sensitivity": True},
            r"`sensitivity` are for int8\. Received: precision='dynamic_int8'\.",
        ),
        (
            "m.tflite",
            {"precision": "float32", "calibration_images": []},
            r"`calibration_images` and .* Received: precision='float32'\.",
        ),
        (
            "m.tflite",
            {"keep_rates": (0.505,)},
            r"`keep_rates` must be different whole percents",
        ),
        (
            "m.tflite",
            {"labels": ["cat"]},
            r"`labels` must have one name for each class\. Received: labels=1, classe",
        ),
        ("m.tflite", {"images": []}, r"`images` must hold at least one image\."),
        (
            "m.tflite",
            {"head": "distillation"},
            r"The model has one head, 'class'\. Received: head='distillation'\.",
        ),
    ],
)
def test_a_bad_argument_is_refused_and_nothing_made(
    tmp_path, small_model, name, arguments, message
):
    with pytest.raises(ValueError, match=message):
        tflite(small_model, tmp_path / "models" / name, **arguments)
    assert names_in(tmp_path) == []


def test_a_place_that_cannot_be_written_is_refused(tmp_path, small_model, images):
    (tmp_path / "file").write_text("1")
    with pytest.raises(OSError, match="file"):
        tflite(small_model, tmp_path / "file" / "m.tflite", images=images)
    assert (tmp_path / "file").read_text() == "1"
