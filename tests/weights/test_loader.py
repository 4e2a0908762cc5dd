from pathlib import Path

import keras
import ml_dtypes
import numpy as np
import pytest

from keras_deit.models.factory import build_model
from keras_deit.weights.loader import LoadReport, load_model, load_weights
from keras_deit.weights.readers import read_checkpoint, write_safetensors
from keras_deit.weights.saver import save_weights
from tests.weights.students import (
    FILES,
    MATCHED,
    STUDENT,
    assert_unchanged,
    build_student,
    save_student,
    tensors_of,
    write_pth,
)

HEADS = [
    "class_head/kernel",
    "class_head/bias",
    "distillation_head/kernel",
    "distillation_head/bias",
]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model of one block and five classes, and the folder with all its files."""
    folder = tmp_path_factory.mktemp("weights")
    model = build_student()
    save_student(model, folder)
    return model, folder


def test_a_report_is_one_line_that_names_all_but_the_loaded():
    report = LoadReport(
        Path("a.keras"), loaded=["w", "v"], resampled=["p"], fresh=["h", "i"]
    )
    assert str(report) == "a.keras: 2 weights loaded; resampled: p; left fresh: h, i"
    report = LoadReport(Path("a.keras"), loaded=["w"], unused=["u"])
    assert str(report) == "a.keras: 1 weights loaded; unused: u"
    assert str(LoadReport(Path("a.keras"))) == "a.keras: 0 weights loaded"
    report = LoadReport(Path("a.pth"), ["w"], choice="model", others=["ema", "epoch"])
    expected = "a.pth: 1 weights loaded from 'model'; not read: ema, epoch"
    assert str(report) == expected


@pytest.mark.parametrize("name", FILES)
def test_fills_a_model_and_reports_every_weight(name, saved):
    source, folder = saved
    model = build_student()
    report = load_weights(model, folder / name)
    assert_unchanged(model, source.get_weights())
    assert report.path == folder / name
    assert report.loaded == [weight.path for weight in model.weights]
    assert report.resampled == report.fresh == report.unused == []
    is_torch = name == "student.pth"
    assert report.choice == ("model" if is_torch else None)
    assert report.others == (["epoch"] if is_torch else [])


@pytest.mark.parametrize("as_type", [str, Path])
def test_loads_a_model_and_leaves_it_to_others_to_compile_it(as_type, tmp_path):
    source = build_student(depth=0)
    source.compile("adam", {"class": "mse", "distillation": "mse"})
    source.save(tmp_path / "compiled.keras")
    model = load_model(as_type(tmp_path / "compiled.keras"))
    assert model.name == STUDENT
    assert not model.compiled
    assert_unchanged(model, source.get_weights())


def test_takes_the_averaged_weights_of_two_state_dicts(saved, tmp_path):
    source, folder = saved
    averaged = tensors_of(folder)
    dicts = {"state_dict": dict.fromkeys(averaged), "state_dict_ema": averaged}
    dicts["state_dict"] = {name: 0 * value for name, value in averaged.items()}
    model = build_student()
    report = load_weights(model, write_pth(tmp_path / "t2t.pth.tar", dicts, epoch=3))
    assert (report.choice, report.others) == ("state_dict_ema", ["epoch", "state_dict"])
    assert_unchanged(model, source.get_weights())


@pytest.mark.parametrize("name", MATCHED)
def test_leaves_heads_for_another_number_of_classes_fresh(name, saved):
    source, folder = saved
    model = build_student(num_classes=7)
    before = {w.path: w.numpy() for w in model.weights}
    report = load_weights(model, folder / name)
    assert report.fresh == HEADS
    assert report.unused == []
    assert [*report.loaded, *HEADS] == list(before)
    theirs = {w.path: w for w in source.weights}
    for weight in model.weights:
        expected = before if weight.path in HEADS else theirs
        np.testing.assert_array_equal(weight, expected[weight.path])


def test_each_head_has_its_own_number_of_classes(saved, tmp_path):
    source, folder = saved
    tensors = tensors_of(folder)
    tensors["head.weight"] = np.zeros((7, 24), "float32")
    tensors["head.bias"] = np.zeros(7, "float32")
    write_safetensors(tmp_path / "a.safetensors", tensors, {})
    model = build_student()
    report = load_weights(model, tmp_path / "a.safetensors")
    assert report.fresh == HEADS[:2]
    np.testing.assert_array_equal(model.get_weights()[-2], source.get_weights()[-2])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_of_a_file_is_widened(dtype, saved, tmp_path):
    half = np.dtype(getattr(ml_dtypes, dtype, dtype))
    tensors = {name: v.astype(half) for name, v in tensors_of(saved[1]).items()}
    write_safetensors(tmp_path / "half.safetensors", tensors, {})
    model = build_student()
    load_weights(model, tmp_path / "half.safetensors")
    rounded = [v.astype(half).astype("float32") for v in saved[0].get_weights()]
    assert_unchanged(model, rounded)


@pytest.mark.parametrize(
    ("dtype", "name"),
    [*(("bfloat16", name) for name in FILES), ("mixed_bfloat16", "student.pth")],
)
def test_fills_a_model_of_half_precision(dtype, name, saved):
    model = build_student(dtype=dtype)
    load_weights(model, saved[1] / name)
    for weight, source in zip(model.weights, saved[0].get_weights(), strict=True):
        value = source.astype(ml_dtypes.bfloat16) if "bf" in weight.dtype else source
        np.testing.assert_array_equal(weight.numpy(), value)


def test_what_was_loaded_does_not_depend_on_the_file(saved, tmp_path):
    for suffix in (".safetensors", ".pth"):  # these are mapped, not read
        path = tmp_path / f"student{suffix}"
        path.write_bytes((saved[1] / path.name).read_bytes())
        model = build_student()
        load_weights(model, path)
        with path.open("r+b") as file:
            file.write(bytes(path.stat().st_size))
        assert_unchanged(model, saved[0].get_weights())


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".keras"])
def test_frozen_random_features_are_loaded(suffix, tmp_path):
    source = build_model("t2t_vit_micro_32", 5, depth=0)
    path = tmp_path / f"t2t{suffix}"
    save_weights(source, tmp_path / "t2t.safetensors")
    if suffix == ".keras":
        source.save(path)
    elif suffix == ".pth":
        tensors = read_checkpoint(tmp_path / "t2t.safetensors").tensors
        write_pth(path, {"model": tensors})
    keras.utils.set_random_seed(1)
    model = build_model("t2t_vit_micro_32", 5, depth=0)
    frozen = [w for w in model.weights if w.path.endswith("/random_features")]
    theirs = [w for w in source.weights if w.path.endswith("/random_features")]
    assert [weight.trainable for weight in frozen] == [False, False]
    assert np.any(frozen[0].numpy() != theirs[0].numpy())
    report = load_weights(model, path)
    assert len(report.loaded) == len(model.weights)
    assert_unchanged(model, source.get_weights())


def test_counts_of_batches_are_neither_missing_nor_unused(tmp_path):
    source = build_model("regnety_micro_32", 5, depth=1)
    save_weights(source, tmp_path / "with.safetensors")
    tensors = dict(read_checkpoint(tmp_path / "with.safetensors").tensors)
    counts = [name for name in tensors if name.endswith(".num_batches_tracked")]
    assert len(counts) == 5
    for name in counts:
        del tensors[name]
    write_safetensors(tmp_path / "without.safetensors", tensors, {})
    for name in ("with", "without"):
        model = build_model("regnety_micro_32", 5, depth=1)
        report = load_weights(model, tmp_path / f"{name}.safetensors")
        assert report.unused == report.fresh == []
        assert_unchanged(model, source.get_weights())
