import json

import numpy as np
import pytest

from keras_deit import create_model, with_keep_rate
from keras_deit.data.sources import load_source
from keras_deit.export.certificate import Limits
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
        certificate = json.loads(proof.read_text())
        assert certificate["preprocessing"]["crop_ratio"] == 1.0
        trial = certificate["signatures"]["serving_default"]
        assert trial["comparison"]["num_images"] == 40
        assert 0 < trial["accuracy"] < 1  # the digits' classes are the model's
    assert certificate["precision"] == "dynamic_int8"
    assert f"Written: {artifacts.folder}/1\n" in artifacts.said
    assert f"Written: {artifacts.folder}/digits.tflite\n" in artifacts.said
    assert "TFLite dynamic_int8 of" in artifacts.said
    last = artifacts.said.splitlines()[-1]
    assert last == f"Done: 2 of 2 artifacts with their proofs in {artifacts.folder}/"


def test_the_labels_beside_the_model_are_taken(artifacts):
    text = (artifacts.folder / "digits.labels.txt").read_text()
    assert text == "".join(f"{digit}\n" for digit in range(10))


@pytest.fixture
def exported(monkeypatch, run_program, tmp_path):
    """Runs `export` whose work is left out: what it would have exported, in order."""
    received = []

    def leave_out(name):
        def export(model, path, **options):
            run.model = model
            received.append((name, path, options))
            return path

        monkeypatch.setattr(f"keras_deit.export.{name}", export)

    for name in ("saved_model", "tflite", "openvino", "onnx"):
        leave_out(name)
    monkeypatch.setattr("trainers.export._print_sensitivity", lambda path: None)
    monkeypatch.setattr("keras_deit.export.engines.find_spec", lambda name: name)

    def run(*arguments):
        received.clear()
        done = run_program("export", f"--output={tmp_path}/models/m", *arguments)
        assert (done.code, done.err) == (0, "")
        return list(received)

    return run


def test_formats_head_labels_and_images_can_be_chosen(exported, model, tmp_path, pets):
    labels = [f"digit {number}" for number in range(10)]
    (tmp_path / "names.txt").write_text("\n".join(labels))
    names = f"--labels={tmp_path}/names.txt"
    flags = ("--formats=tflite", "--head=class", names, f"--dataset={pets}")
    ((name, path, options),) = exported(model, *flags, "--num_images=3")
    assert (name, path) == ("tflite", tmp_path / "models" / "m" / "m.tflite")
    assert (options["labels"], options["head"]) == (labels, "class")
    assert len(options["images"]) == 3
    assert options["image_labels"] is None  # cats and dogs are no digits
    ((name, path, options),) = exported(model, "--formats=saved_model")
    assert (name, path) == ("saved_model", tmp_path / "models" / "m")
    assert len(options["images"]) == len(options["image_labels"]) == 256
    assert options["labels"] == [str(number) for number in range(10)]
    assert {"keep_rates", "explain"}.isdisjoint(options)
    assert [name for name, *_ in exported(model)] == ["saved_model", "tflite"]


def test_images_and_their_classes_belong_together(exported, model):
    ((_, _, options),) = exported(model, "--formats=tflite", "--num_images=359")
    source = load_source("digits", "validation")
    digits = {e["image"].numpy().tobytes(): int(e["label"]) for e in source.in_order()}
    pairs = zip(options["images"], options["image_labels"], strict=True)
    assert all(digits[image.tobytes()] == label for image, label in pairs)
    assert len(set(options["image_labels"][:60])) == 10  # drawn from all


def test_a_precision_is_part_of_a_files_name(exported, model, tmp_path):
    formats = "tflite:float16,saved_model:bfloat16,openvino:bfloat16,onnx,openvino"
    received = exported(model, f"--formats={formats}", "--min_agreement=0.5")
    folder = tmp_path / "models" / "m"
    assert [(n, p, o.get("precision")) for n, p, o in received] == [
        ("tflite", folder / "m.float16.tflite", "float16"),
        ("saved_model", folder, "bfloat16"),
        ("openvino", folder / "m.bfloat16.xml", "bfloat16"),
        ("onnx", folder / "m.onnx", None),
        ("openvino", folder / "m.xml", "float32"),
    ]
    assert {options["min_agreement"] for *_, options in received} == {0.5}


def test_the_dial_goes_where_it_can(exported, model):
    flags = ("--keep_rates=1,0.7", "--explain", "--sensitivity")
    formats = "--formats=saved_model,saved_model:bfloat16,tflite:int8,onnx"
    received = [options for *_, options in exported(model, *flags, formats)]
    asked = ("keep_rates", "explain", "sensitivity")
    assert [tuple(options.get(name) for name in asked) for options in received] == [
        ((1.0, 0.7), True, None),
        (None, None, None),
        ((1.0, 0.7), None, True),
        (None, None, None),
    ]
    assert len(received[2]["calibration_images"]) == 128
    assert all("calibration_images" not in received[i] for i in (0, 1, 3))


def test_without_labels_the_classes_are_numbered(exported, student, tmp_path):
    copy = tmp_path / "copy.keras"
    copy.write_bytes((student.folder / "last.keras").read_bytes())
    received = exported(f"--model={copy}", "--formats=tflite")
    assert received[0][2]["labels"] == [str(number) for number in range(10)]


def test_a_variant_with_its_weights_is_exported(
    exported, micro, micro_weights, names_of_imagenet
):
    received = exported(*micro, "--formats=tflite", "--keep_rate=0.5")
    assert received[0][2]["labels"] == [str(number) for number in range(10)]
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
    assert received[0][2]["labels"] == list(names_of_imagenet)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--formats=onxx",), "Did you mean 'onnx'?"),
        (("--formats=onnx:float16",), "`formats=onnx` must be one of ['float32']."),
        (
            ("--formats=tflite", "--explain"),
            "`explain` has no meaning for these formats",
        ),
        (("--keep_rates=1,half",), "`keep_rates` must be numbers."),
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
    assert "images cannot be decoded" in message
    assert not (tmp_path / "models").exists()


@pytest.mark.slow
def test_an_artifact_that_differs_is_refused(refusal, model, tmp_path, monkeypatch):
    limits = {"float32": Limits(-1.0, None, 1.0)}
    monkeypatch.setattr("keras_deit.export.certificate.LIMITS", limits)
    flags = ("--num_images=2", f"--output={tmp_path}/models/m")
    message = refusal("export", model, *flags)
    assert "The exported artifact differs from the model" in message
    assert names_in(tmp_path) == []


@pytest.mark.slow
def test_a_variant_is_written_with_its_proof(run_program, answering, tmp_path):
    flags = (*answering([0.25, 0.75]), "--formats=tflite", "--num_images=2")
    done = run_program("export", *flags, f"--output={tmp_path}/micro")
    assert done.code == 0, done.err
    assert names_in(tmp_path / "micro") == [
        "micro.certificate.json",
        "micro.labels.txt",
        "micro.tflite",
    ]
    assert (tmp_path / "micro" / "micro.labels.txt").read_text() == "0\n1\n"


@pytest.mark.slow
def test_the_output_may_be_the_folder_one_is_in(model, tmp_path, monkeypatch):
    folder = tmp_path / "digits"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert (
        main(["export", model, "--output=.", "--formats=tflite", "--num_images=2"]) == 0
    )
    assert "digits.tflite" in names_in(folder)
