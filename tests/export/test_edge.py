import json

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from keras_deit.data.geometry import evaluation_view
from keras_deit.export import edge
from keras_deit.export.edge import builtin_operators, tflite
from keras_deit.models.inference import head_logits


@pytest.fixture(scope="module")
def file(tmp_path_factory, model, images, labels):
    folder = tmp_path_factory.mktemp("edge")
    return tflite(
        model, folder / "new" / "animals.tflite", labels=labels, images=images
    )


@pytest.fixture(scope="module")
def interpreter(file):
    return Interpreter(str(file))


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def file_with_operator(code, name=None):
    """A TFLite file with one operator code and nothing else."""
    import flatbuffers

    operator = schema.OperatorCodeT()
    operator.builtinCode, operator.customCode = code, name
    operator.deprecatedBuiltinCode = min(code, 127)
    model = schema.ModelT()
    model.operatorCodes = [operator]
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


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


def test_reads_the_name_of_an_operator_of_any_age():
    assert builtin_operators(file_with_operator(0)) == ["ADD"]
    assert builtin_operators(file_with_operator(150)) == ["GELU"]  # above 127


def test_labels_and_certificate_lie_beside_the_file(file, labels, images):
    assert names_in(file.parent) == [
        "animals.certificate.json",
        "animals.labels.txt",
        "animals.tflite",
    ]
    text = (file.parent / "animals.labels.txt").read_text()
    assert text == "".join(f"{label}\n" for label in labels)
    certificate = json.loads((file.parent / "animals.certificate.json").read_text())
    assert certificate["kind"] == "TFLite"
    assert certificate["precision"] == "float32"
    assert certificate["crop_ratio"] == 0.8
    assert certificate["operators"] == builtin_operators(file.read_bytes())
    assert certificate["bytes"] == file.stat().st_size
    comparison = certificate["comparisons"]["serving_default"]
    assert comparison["num_images"] == len(images)
    assert comparison["max_difference"] <= 1e-4


def test_a_file_that_differs_leaves_what_was_there(
    tmp_path, small_model, images, monkeypatch
):
    compare = edge.compare

    def apart(expected, received):
        return compare(expected, np.asarray(received) + 0.01)

    monkeypatch.setattr(edge, "compare", apart)
    (tmp_path / "old").mkdir()
    old = {
        name: f"old {name}"
        for name in ("m.tflite", "m.labels.txt", "m.certificate.json")
    }
    for name, text in old.items():
        (tmp_path / "old" / name).write_text(text)
    with pytest.raises(RuntimeError, match=r"differs from the model in 'serving_defa"):
        tflite(small_model, tmp_path / "old" / "m.tflite", images=images)
    left = {path.name: path.read_text() for path in (tmp_path / "old").iterdir()}
    assert left == old


def test_a_conversion_that_fails_leaves_nothing(tmp_path, small_model, monkeypatch):
    def fail(content):
        raise RuntimeError("A TFLite file must have built-in operators only.")

    monkeypatch.setattr(edge, "_convert", lambda model, folder: b"content")
    monkeypatch.setattr(edge, "_comparison", lambda *arguments: None)
    monkeypatch.setattr(edge, "builtin_operators", fail)
    with pytest.raises(RuntimeError, match="built-in operators only"):
        tflite(small_model, tmp_path / "models" / "m.tflite")
    assert names_in(tmp_path) == []


def test_an_operator_that_is_not_built_in_is_refused():
    custom = file_with_operator(schema.BuiltinOperator.CUSTOM, "FlexErf")
    message = r"A TFLite file must have built-in operators only\. Received: FlexErf\."
    with pytest.raises(RuntimeError, match=message):
        builtin_operators(custom)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("m.tflit", {}, r"`path` must end in \.tflite\. Received: path='.*m\.tflit'\."),
        (
            "m.tflite",
            {"precision": "int8"},
            r"`precision` must be one of \['float32'\]\. .*Received: precision='int8'",
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
