import h5py
import keras
import numpy as np
import pytest

from keras_deit.weights.h5_layout import layout_faults
from keras_deit.weights.loader import load_weights
from tests.weights.students import assert_unchanged, build_student


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model of one block and five classes, and the file of its weights."""
    path = tmp_path_factory.mktemp("weights") / "student.weights.h5"
    model = build_student()
    model.save_weights(path)
    return model, path


def test_names_what_is_missing_superfluous_and_of_another_shape(tmp_path):
    def weights_of(*units):
        layers = [keras.layers.Dense(n, use_bias=False) for n in units]
        model = keras.Sequential([keras.Input((2,)), *layers])
        path = tmp_path / f"{len(units)}.weights.h5"
        model.save_weights(path)
        return model, path

    one, one_path = weights_of(3)
    two, two_path = weights_of(4, 5)
    assert layout_faults(one_path, one) == layout_faults(two_path, two) == []
    assert layout_faults(one_path, two) == [
        "layers/dense/vars/0 (2, 4): (2, 3) in the file",
        "layers/dense_1/vars/0 (4, 5): absent in the file",
    ]
    assert layout_faults(two_path, one) == [
        "layers/dense/vars/0 (2, 3): (2, 4) in the file",
        "layers/dense_1/vars/0 absent: (4, 5) in the file",
    ]


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"depth": 0}, r"layers/encoder_block/.*absent: \(24,\) in the file"),
        ({"depth": 2}, r"layers/encoder_block_1/.*\(24,\): absent in the file"),
        ({"num_classes": 7}, r"layers/dense/vars/1 \(7,\): \(5,\) in the file"),
        ({"image_size": 48}, r"vars/0 \(1, 146, 24\): \(1, 66, 24\) in the file"),
    ],
)
def test_refuses_a_weights_file_that_does_not_fit_exactly(
    changes, fault, strict, saved
):
    model = build_student(**changes)
    before = model.get_weights()
    with pytest.raises(ValueError, match=f"`path` must hold the weights of.*{fault}"):
        load_weights(model, saved[1], strict=strict)
    assert_unchanged(model, before)


def test_a_weights_file_does_not_depend_on_dropout(saved):
    source, path = saved
    model = build_student(drop_rate=0.5)
    load_weights(model, path)
    assert_unchanged(model, source.get_weights())


def test_the_states_of_optimizers_and_random_generators_are_no_faults(saved, tmp_path):
    model, path = saved
    trained = tmp_path / "trained.weights.h5"
    trained.write_bytes(path.read_bytes())
    with h5py.File(trained, "r+") as file:
        file["optimizer/vars/0"] = np.zeros(3)
        file["layers/dropout/seed_generator/vars/0"] = np.zeros(2)
        file["optimizers/vars/0"] = np.zeros(3)
    assert layout_faults(trained, model) == [
        "optimizers/vars/0 absent: (3,) in the file"
    ]


def test_the_weights_of_a_trained_model_are_loaded(tmp_path):
    source = build_student(depth=0, distilled=False)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    source.compile("adam", loss, run_eagerly=True)
    x, y = np.zeros((2, 32, 32, 3), "float32"), np.eye(5, dtype="float32")[:2]
    source.train_on_batch(x, y)
    source.save_weights(tmp_path / "trained.weights.h5")  # holds the optimizer as well
    model = build_student(depth=0, distilled=False)
    load_weights(model, tmp_path / "trained.weights.h5")
    assert_unchanged(model, source.get_weights())


def test_leaves_nothing_behind(saved, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    layout_faults(saved[1], saved[0])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"<html>not found</html>", b""])
def test_refuses_a_file_that_is_no_hdf5(content, saved, tmp_path):
    (tmp_path / "a.weights.h5").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.weights\.h5' is no HDF5 file: "):
        load_weights(saved[0], tmp_path / "a.weights.h5")


def test_refuses_a_cut_file(saved, tmp_path):
    model, path = saved
    whole = path.read_bytes()
    (tmp_path / "cut.weights.h5").write_bytes(whole[: len(whole) // 2])
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"cut\.weights\.h5' is no HDF5 file: .*trunc"):
        load_weights(model, tmp_path / "cut.weights.h5")
    assert_unchanged(model, before)
