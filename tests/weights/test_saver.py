import json
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import keras
import numpy as np
import pytest
import safetensors.numpy

from keras_deit.models.factory import build_model
from keras_deit.weights.create import create_model
from keras_deit.weights.loader import load_weights
from keras_deit.weights.readers import read_checkpoint
from keras_deit.weights.saver import save_weights
from tests.weights.students import STUDENT, assert_unchanged, build_student

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
FAMILIES = {
    "deit": (STUDENT, {"depth": 1}),
    "t2t_performer": ("t2t_vit_micro_32", {"depth": 1}),
    "t2t_transformer": ("t2t_vit_micro_32", {"depth": 1, "attention": "transformer"}),
    "evit": (
        "evit_tiny_patch16_224",
        {"image_size": 64, "embed_dim": 24, "depth": 2, "reorganize_at": [1]},
    ),
    "regnety": ("regnety_micro_32", {"depth": 2}),
}
SUFFIXES = (".keras", ".weights.h5", ".safetensors")


def build_family(family, seed=0):
    """A model whose every weight is random, statistics of batches as well."""
    name, changes = FAMILIES[family]
    model = build_model(name, 5, **changes)
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        weight.assign(rng.uniform(0.1, 1, weight.shape))
    return model


def digest(logits):
    heads = logits.values() if isinstance(logits, dict) else [logits]
    return sha256(b"".join(np.asarray(head).tobytes() for head in heads)).hexdigest()


def some_images(model):
    shape = (2, *model.input_shape[1:])
    return np.random.default_rng(1).integers(0, 256, shape).astype("float32")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.safetensors"


@pytest.mark.parametrize("family", FAMILIES)
def test_every_weight_comes_back_to_the_bit(family, path):
    source = build_family(family)
    assert save_weights(source, path) is None
    model = build_family(family, seed=1)
    report = load_weights(model, path)
    assert report.loaded == [weight.path for weight in model.weights]
    assert report.resampled == report.fresh == report.unused == []
    assert_unchanged(model, source.get_weights())


@pytest.mark.parametrize(
    ("file", "name", "num_classes", "changes"),
    [
        (
            "containers/tiny.safetensors",
            "deit_tiny_distilled_patch16_224",
            3,
            {"image_size": 32, "embed_dim": 12, "depth": 1},
        ),
        (
            "t2t_transformer_96.pth.tar",
            "t2t_vit_t_14",
            7,
            {"image_size": 96, "embed_dim": 48, "depth": 2}
            | {"num_heads": 3, "token_dim": 32},
        ),
        (
            "regnety_small.safetensors",
            "regnety_002",
            7,
            {"initial_width": 16, "width_slope": 10.0, "width_multiplier": 1.8}
            | {"depth": 7, "image_size": 96},
        ),
    ],
)
def test_an_official_file_comes_back_to_the_bit(file, name, num_classes, changes, path):
    model = create_model(name, num_classes, weights=GOLDEN / file, **changes)
    save_weights(model, str(path))
    official = read_checkpoint(GOLDEN / file).tensors
    ours = safetensors.numpy.load_file(path)
    assert set(ours) == set(official)
    for key, value in ours.items():
        assert value.dtype == official[key].dtype
        assert value.shape == official[key].shape
        if key.endswith("num_batches_tracked"):
            assert value == 0
        else:
            np.testing.assert_array_equal(value, official[key])


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "bfloat16"])
def test_the_file_is_float32_whatever_the_model(dtype, path):
    model = build_student(dtype=dtype)
    save_weights(model, path)
    checkpoint = read_checkpoint(path)
    assert all(v.dtype == "float32" for v in checkpoint.tensors.values())
    twin = build_student(dtype=dtype)
    load_weights(twin, path)
    assert_unchanged(twin, model.get_weights())


def test_metadata_names_the_model_and_its_grid(path):
    save_weights(build_student(image_size=(32, 48)), path)
    expected = {"format": "pt", "model": STUDENT, "grid": "8x12"}
    assert read_checkpoint(path).metadata == expected
    save_weights(build_model("regnety_micro_32", 5, depth=1), path)
    assert read_checkpoint(path).metadata == {
        "format": "pt",
        "model": "regnety_micro_32",
    }


def test_a_failing_write_leaves_the_old_file(path, monkeypatch):
    def fail(tensors, filename, metadata):
        Path(filename).write_bytes(b"half")
        raise OSError("No space left on device")

    model = build_student()
    save_weights(model, path)
    whole = path.read_bytes()
    monkeypatch.setattr("safetensors.numpy.save_file", fail)
    with pytest.raises(OSError, match="No space left"):
        save_weights(model, path)
    assert path.read_bytes() == whole
    assert list(path.parent.iterdir()) == [path]


def test_replaces_an_older_file_even_the_one_the_weights_are_from(path):
    save_weights(build_student(), path)
    model = build_student()
    load_weights(model, path)
    before = model.get_weights()
    save_weights(model, path)
    load_weights(model, path)
    assert_unchanged(model, before)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("name", ["a.pth", "a.keras", "a.weights.h5", "safetensors"])
def test_refuses_another_ending(name, tmp_path):
    rule = r"`path` must end in \.safetensors\. Received: path='.*"
    with pytest.raises(ValueError, match=f"{rule}{name}'"):
        save_weights(build_student(depth=0), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


IN_A_NEW_PROCESS = """
import json, sys
from pathlib import Path
from keras_deit import create_model
from tests.weights.test_saver import FAMILIES, SUFFIXES, digest, some_images

found = {}
for family, (name, changes) in FAMILIES.items():
    for suffix in SUFFIXES:
        path = Path(sys.argv[1]) / f"{family}{suffix}"
        model = create_model(name, 5, weights=path, **changes)
        found[f"{family}{suffix}"] = digest(model(some_images(model)))
print(json.dumps(found))
"""


@pytest.mark.slow
def test_a_new_process_has_the_same_logits_from_every_kind_of_file(tmp_path):
    expected = {}
    for family in FAMILIES:
        model = build_family(family)
        model.save(tmp_path / f"{family}.keras")
        model.save_weights(tmp_path / f"{family}.weights.h5")
        save_weights(model, tmp_path / f"{family}.safetensors")
        own = digest(model(some_images(model)))
        expected |= {f"{family}{suffix}": own for suffix in SUFFIXES}
    assert len(set(expected.values())) == len(FAMILIES)
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", IN_A_NEW_PROCESS, tmp_path],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout) == expected


def test_refuses_a_model_without_official_names(tmp_path):
    layers = [keras.Input((3,)), keras.layers.Dense(2)]
    rule = "Only models of `create_model` have official names; save others with "
    with pytest.raises(ValueError, match=rule):
        save_weights(keras.Sequential(layers), tmp_path / "dense.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(OSError, match="/gone/w.safetensors' cannot be written"):
        save_weights(build_student(), tmp_path / "gone" / "w.safetensors")
