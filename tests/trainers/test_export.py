import json

import numpy as np
import pytest

from keras_deit import create_model, with_keep_rate
from trainers.__main__ import main


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def model(student):
    return f"--model={student.folder}/last.keras"


def test_writes_both_artifacts_with_their_proofs(artifacts):
    assert names_in(artifacts.folder) == [
        "1",
        "digits.certificate.json",
        "digits.labels.txt",
        "digits.tflite",
    ]
    assert "saved_model.pb" in names_in(artifacts.folder / "1")
    proofs = [
        artifacts.folder / "1" / "certificate.json",
        artifacts.folder / "digits.certificate.json",
    ]
    for proof in proofs:
        assert str(proof) in artifacts.said
        assert json.loads(proof.read_text())["crop_ratio"] == 1.0
    assert f"SavedModel: {artifacts.folder}/1 " in artifacts.said
    assert f"TFLite: {artifacts.folder}/digits.tflite " in artifacts.said


def test_the_labels_beside_the_model_are_taken(artifacts):
    text = (artifacts.folder / "digits.labels.txt").read_text()
    assert text == "".join(f"{digit}\n" for digit in range(10))


@pytest.fixture
def exported(monkeypatch, run_program, tmp_path):
    """Runs `export` whose work is left out: what it would have exported."""
    received = {}

    def saved_model(model, path, labels, images, head):
        run.model = model
        received["saved_model"] = (path, labels, len(images), head)
        return path / "1"

    def tflite(model, path, labels, images, head):
        run.model = model
        received["tflite"] = (path, labels, len(images), head)

    monkeypatch.setattr("keras_deit.export.saved_model", saved_model)
    monkeypatch.setattr("keras_deit.export.tflite", tflite)

    def run(*arguments):
        received.clear()
        done = run_program("export", f"--output={tmp_path}/models/m", *arguments)
        assert (done.code, done.err) == (0, "")
        return dict(received)

    return run


def test_formats_head_labels_and_images_can_be_chosen(exported, model, tmp_path, pets):
    labels = [f"digit {number}" for number in range(10)]
    (tmp_path / "names.txt").write_text("\n".join(labels))
    names = f"--labels={tmp_path}/names.txt"
    received = exported(
        model, "--formats=tflite", "--head=class", names, f"--dataset={pets}"
    )
    path = tmp_path / "models" / "m" / "m.tflite"
    assert received == {"tflite": (path, labels, 4, "class")}
    received = exported(model, "--formats=saved_model")
    digits = [str(number) for number in range(10)]
    assert received == {"saved_model": (path.parent, digits, 32, "fused")}
    assert set(exported(model)) == {"saved_model", "tflite"}


def test_without_labels_the_classes_are_numbered(exported, student, tmp_path):
    copy = tmp_path / "copy.keras"
    copy.write_bytes((student.folder / "last.keras").read_bytes())
    received = exported(f"--model={copy}", "--formats=tflite")
    assert received["tflite"][1] == [str(number) for number in range(10)]


def test_a_variant_with_its_weights_is_exported(
    exported, micro, micro_weights, names_of_imagenet
):
    received = exported(*micro, "--formats=tflite", "--keep_rate=0.5")
    assert received["tflite"][1] == [str(number) for number in range(10)]
    twin = create_model("deit_micro_patch4_32", 10, weights=micro_weights)
    pixels = np.random.default_rng(0).random((2, 32, 32, 3), np.float32) * 255
    np.testing.assert_array_equal(
        exported.model(pixels, training=False),
        with_keep_rate(twin, 0.5)(pixels, training=False),
    )


def test_1000_classes_are_called_as_imagenet_does(
    exported, answering, names_of_imagenet
):
    received = exported(*answering(np.full(1000, 1e-3)), "--formats=saved_model")
    assert received["saved_model"][1] == list(names_of_imagenet)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--formats=onnx",), "`formats` must be one of ['saved_model', 'tflite']."),
        (("--formats=",), "`formats` must name one."),
        (("--formats=tflit",), "Did you mean 'tflite'?"),
        (("--dataset=nowhere",), "There is no folder 'nowhere'"),
        (("--labels=nowhere.txt",), "nowhere.txt"),
    ],
)
def test_bad_input_ends_in_one_message_and_nothing_is_made(
    refusal, model, tmp_path, arguments, part
):
    message = refusal("export", model, f"--output={tmp_path}/models/m", *arguments)
    assert part in message
    assert names_in(tmp_path) == []


def test_labels_of_another_number_are_refused(refusal, model, tmp_path):
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    flags = (f"--output={tmp_path}/m", f"--labels={tmp_path}/names.txt")
    message = refusal("export", model, *flags)
    assert "must have one name for each class" in message
    assert "labels=2, classes=10" in message
    assert names_in(tmp_path) == ["names.txt"]


def test_a_head_that_the_model_has_not_is_refused(refusal, teacher, tmp_path):
    model = f"--model={teacher.folder}/last.keras"
    flags = (f"--output={tmp_path}/m", "--head=distillation")
    assert "The model has one head, 'class'." in refusal("export", model, *flags)
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("output", ["file", "file/models"])
def test_an_output_that_cannot_be_written_is_refused(refusal, model, tmp_path, output):
    (tmp_path / "file").write_text("dear reader")
    message = refusal("export", model, f"--output={tmp_path}/{output}")
    assert f"{tmp_path}/file" in message
    assert (tmp_path / "file").read_text() == "dear reader"


def test_an_unreadable_image_is_named(refusal, model, tmp_path, pets):
    for path in pets.rglob("*.png"):
        path.write_text("hello")
    flags = (f"--output={tmp_path}/models/m", f"--dataset={pets}")
    message = refusal("export", model, *flags)
    assert message.startswith("4 of 4 images cannot be decoded")
    assert not (tmp_path / "models").exists()


def test_an_artifact_that_differs_is_refused(refusal, model, tmp_path, monkeypatch):
    monkeypatch.setattr("keras_deit.export.certificate.TOLERANCE", -1.0)
    message = refusal("export", model, f"--output={tmp_path}/models/m")
    assert "The exported artifact differs from the model" in message
    assert names_in(tmp_path) == []


def test_a_variant_is_written_with_its_proof(run_program, answering, tmp_path):
    flags = (*answering([0.25, 0.75]), "--formats=tflite")
    done = run_program("export", *flags, f"--output={tmp_path}/micro")
    assert done.code == 0, done.err
    assert names_in(tmp_path / "micro") == [
        "micro.certificate.json",
        "micro.labels.txt",
        "micro.tflite",
    ]
    assert (tmp_path / "micro" / "micro.labels.txt").read_text() == "0\n1\n"


def test_the_output_may_be_the_folder_one_is_in(model, tmp_path, monkeypatch):
    folder = tmp_path / "digits"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert main(["export", model, "--output=.", "--formats=tflite"]) == 0
    assert "digits.tflite" in names_in(folder)
