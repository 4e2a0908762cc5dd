import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_deit.models.factory import build_model
from keras_deit.weights.loader import LoadReport, load_model, load_weights

STUDENT = "deit_micro_distilled_patch4_32"
HEADS = [
    "class_head/kernel",
    "class_head/bias",
    "distillation_head/kernel",
    "distillation_head/bias",
]


def build_student(num_classes=5, **arguments):
    sizes = {"depth": 2, "embed_dim": 24, "num_heads": 2}
    return build_model(STUDENT, num_classes, **{**sizes, **arguments})


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model of two blocks and five classes, and the folder with both its files."""
    folder = tmp_path_factory.mktemp("weights")
    model = build_student()
    model.save(folder / "student.keras")
    model.save_weights(folder / "student.weights.h5")
    return model, folder


def assert_unchanged(model, before):
    for now, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_a_report_is_one_line_that_names_all_but_the_loaded():
    report = LoadReport(
        Path("a.keras"), loaded=["w", "v"], resampled=["p"], fresh=["h", "i"]
    )
    assert str(report) == "a.keras: 2 weights loaded; resampled: p; left fresh: h, i"
    report = LoadReport(Path("a.keras"), loaded=["w"], unused=["u"])
    assert str(report) == "a.keras: 1 weights loaded; unused: u"
    assert str(LoadReport(Path("a.keras"))) == "a.keras: 0 weights loaded"


@pytest.mark.parametrize("name", ["student.keras", "student.weights.h5"])
def test_fills_a_model_and_reports_every_weight(name, saved):
    source, folder = saved
    model = build_student()
    report = load_weights(model, folder / name)
    assert_unchanged(model, source.get_weights())
    assert report.path == folder / name
    assert report.loaded == [weight.path for weight in model.weights]
    assert report.resampled == report.fresh == report.unused == []


@pytest.mark.parametrize("as_type", [str, Path])
def test_loads_a_model_that_is_not_compiled(as_type, saved):
    source, folder = saved
    model = load_model(as_type(folder / "student.keras"))
    assert model.name == STUDENT
    assert not model.compiled
    assert_unchanged(model, source.get_weights())


def test_leaves_heads_for_another_number_of_classes_fresh(saved):
    source, folder = saved
    model = build_student(num_classes=7)
    before = {w.path: w.numpy() for w in model.weights}
    report = load_weights(model, folder / "student.keras")
    assert report.fresh == HEADS
    assert [*report.loaded, *HEADS] == list(before)
    theirs = {w.path: w for w in source.weights}
    for weight in model.weights:
        expected = before if weight.path in HEADS else theirs
        np.testing.assert_array_equal(weight, expected[weight.path])


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"depth": 1}, "block_1/norm1/gamma: not in the model;"),
        ({"depth": 3}, r"block_2/norm1/gamma \(24,\): absent in the file;"),
        ({"distilled": False}, "distillation_head/bias: not in the model;"),
        ({"embed_dim": 48}, r"norm/gamma \(48,\): \(24,\) in the file;"),
        (
            {"image_size": 16},
            r"position_embedding/embedding \(1, 18, 24\): \(1, 66, 24\) in the file\.",
        ),
    ],
)
def test_refuses_another_architecture_and_changes_nothing(changes, fault, saved):
    _, folder = saved
    model = build_student(**changes)
    before = model.get_weights()
    with pytest.raises(ValueError, match=fault) as refusal:
        load_weights(model, folder / "student.keras")
    message = str(refusal.value)
    assert message.startswith(f"`path` must hold the weights of '{STUDENT}', but: ")
    assert message.endswith(f"Received: path={str(folder / 'student.keras')!r}.")
    assert_unchanged(model, before)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"depth": 1}, r"layers/encoder_block_1/.*absent: \(24,\) in the file"),
        ({"depth": 3}, r"layers/encoder_block_2/.*\(24,\): absent in the file"),
        ({"num_classes": 7}, r"layers/dense/vars/1 \(7,\): \(5,\) in the file"),
    ],
)
def test_refuses_a_weights_file_that_does_not_fit_exactly(changes, fault, saved):
    _, folder = saved
    model = build_student(**changes)
    before = model.get_weights()
    with pytest.raises(ValueError, match=f"`path` must hold the weights of.*{fault}"):
        load_weights(model, folder / "student.weights.h5")
    assert_unchanged(model, before)


def test_a_weights_file_does_not_depend_on_dropout(saved):
    source, folder = saved
    model = build_student(drop_path_rate=0.5)  # its layers have seeds of their own
    load_weights(model, folder / "student.weights.h5")
    assert_unchanged(model, source.get_weights())


def test_refuses_a_weights_file_that_is_no_hdf5(tmp_path):
    (tmp_path / "a.weights.h5").write_text("<html>not found</html>")
    with pytest.raises(ValueError, match=r"a\.weights\.h5' is no HDF5 file"):
        load_weights(build_student(depth=0), tmp_path / "a.weights.h5")


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_refuses_a_cut_keras_file(share, saved, tmp_path):
    whole = (saved[1] / "student.keras").read_bytes()
    (tmp_path / "cut.keras").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=r"must be a whole \.keras file"):
        load_model(tmp_path / "cut.keras")


@pytest.mark.parametrize(
    "load", [load_model, lambda path: load_weights(build_student(depth=0), path)]
)
def test_refuses_a_missing_file(load, tmp_path):
    path = tmp_path / "none.keras"
    with pytest.raises(FileNotFoundError) as refusal:
        load(path)
    assert str(refusal.value) == f"There is no file {str(path)!r}."


@pytest.mark.parametrize("name", ["student.weights.h5", "keras"])
def test_refuses_to_make_a_model_of_another_file(name, tmp_path):
    (tmp_path / name).touch()
    rule = "A model must be a whole .keras file, as `model.save` writes it. "
    with pytest.raises(ValueError, match=f"{rule}Received: path='.*{name}'"):
        load_model(tmp_path / name)


@pytest.mark.parametrize("name", ["student.h5", "student.npz", "keras"])
def test_refuses_another_ending(name, tmp_path):
    (tmp_path / name).touch()
    rule = r"`path` must end in one of \['.keras', '.weights.h5'\]. "
    with pytest.raises(ValueError, match=rf"{rule}Received: path='.*{name}'"):
        load_weights(build_student(depth=0), tmp_path / name)


def test_refuses_a_zip_that_is_no_model(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.keras", "w") as archive:
        archive.writestr("hello.txt", "hello")
    with pytest.raises(ValueError, match=r"a\.keras' holds no model: .*config\.json"):
        load_model(tmp_path / "a.keras")


def test_a_weights_file_of_a_trained_model_is_loaded(tmp_path):
    source = build_student(depth=1)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    source.compile("adam", loss={"class": loss, "distillation": loss})
    x, y = np.zeros((2, 32, 32, 3), "float32"), np.eye(5, dtype="float32")[:2]
    source.train_on_batch(x, {"class": y, "distillation": y})
    source.save_weights(tmp_path / "trained.weights.h5")  # holds the optimizer as well
    model = build_student(depth=1)
    load_weights(model, tmp_path / "trained.weights.h5")
    assert_unchanged(model, source.get_weights())
