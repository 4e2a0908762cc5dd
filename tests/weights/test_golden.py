"""The official models, from their own checkpoints, with their own outputs.

Checkpoints that are too large for the repository lie in the shared material.
"""

import gzip
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_deit.models.reorganization import with_keep_rate, with_kept_patches
from keras_deit.weights.create import create_model
from keras_deit.weights.loader import load_weights
from keras_deit.weights.position_resampling import resample_positions

GOLDEN = Path(__file__).parents[1] / "golden"
CONTAINERS = GOLDEN / "containers"
DEIT = {"embed_dim": 48, "depth": 3, "num_heads": 3}
T2T = {"embed_dim": 48, "depth": 2, "num_heads": 3, "mlp_ratio": 3.0}
TINY = {"embed_dim": 12, "depth": 1, "num_heads": 3}
REGNET_SMALL = {
    "initial_width": 16,
    "width_slope": 10.0,
    "width_multiplier": 1.8,
    "depth": 7,
    "group_width": 8,
}


@pytest.fixture
def golden(shared):
    """`golden(name)`: a file, from the repository or from the shared material."""

    def find(name):
        here = GOLDEN / name
        return here if here.exists() else shared("golden") / name

    return find


def assert_near(values, reference, atol=1e-4):
    np.testing.assert_allclose(values, reference, rtol=0, atol=atol)


def tokens_of(model, layer, pixels):
    return keras.Model(model.inputs[0], model.get_layer(layer).output)(pixels)


def load(name, path, num_classes=7, image_size=None, **overrides):
    """A model from a file that fills every one of its weights."""
    model = create_model(name, num_classes, image_size, **overrides)
    report = load_weights(model, path)
    assert len(report.loaded) == len(model.weights)
    assert report.unused == []
    return model, report


def test_deit(golden):
    arrays = np.load(golden("deit_plain.npz"))
    path = golden("deit_plain.pth")
    model, report = load("deit_tiny_patch16_224", path, image_size=64, **DEIT)
    assert report.choice == "model"
    pixels = arrays["pixels"]
    assert_near(model(pixels), arrays["logits"])
    assert_near(tokens_of(model, "norm", pixels), arrays["tokens_final"], 1e-3)


def test_distilled_deit(golden):
    arrays = np.load(golden("deit_distilled.npz"))
    path = golden("deit_distilled.pth")
    name = "deit_tiny_distilled_patch16_224"
    model, _ = load(name, path, image_size=64, reorganize_at=(), **DEIT)
    pixels = arrays["pixels"]
    logits = model(pixels)
    assert_near(logits["class"], arrays["logits_class"])
    assert_near(logits["distillation"], arrays["logits_distillation"])
    assert_near((logits["class"] + logits["distillation"]) / 2, arrays["logits"])
    assert_near(tokens_of(model, "block_0", pixels), arrays["tokens_block0"], 1e-3)
    assert_near(tokens_of(model, "norm", pixels), arrays["tokens_final"], 1e-3)


@pytest.mark.parametrize(
    ("stem", "size", "token_dim", "choice"),
    [
        ("performer_64", 64, 32, "state_dict_ema"),
        ("performer_96", 96, 64, "state_dict"),
        ("transformer_64", 64, 64, "state_dict_ema"),
        ("transformer_96", 96, 32, None),
    ],
)
def test_t2t_vit(golden, stem, size, token_dim, choice):
    arrays = np.load(golden(f"t2t_{stem}.npz"))
    path = golden(f"t2t_{stem}.pth.tar")
    sizes = {"image_size": size, "token_dim": token_dim, **T2T}
    model, report = load("t2t_vit_14", path, attention=stem[:-3], **sizes)
    assert report.choice == choice
    assert ("state_dict" in report.others) == (stem == "performer_64")
    assert_near(model(arrays["pixels"]), arrays["logits"])
    tokens = tokens_of(model, "tokens_to_token", arrays["pixels"])
    assert_near(tokens, arrays["t2t_tokens"], 1e-3)


@pytest.mark.parametrize(
    ("keep_rate", "fuse", "run"),
    [(0.7, True, "07_fused"), (0.5, False, "05_unfused"), (1.0, True, "10")],
)
def test_evit(golden, keep_rate, fuse, run):
    arrays = np.load(golden("evit.npz"))
    sizes = {"image_size": 96, "embed_dim": 48, "num_heads": 3}
    path = golden("evit.pth")
    model, _ = load("evit_tiny_patch16_224", path, fuse=fuse, **sizes)
    model = with_keep_rate(model, keep_rate)
    assert_near(model(arrays["pixels"]), arrays[f"logits_{run}"])
    if keep_rate == 1:
        return
    logits, kept = with_kept_patches(model)(arrays["pixels"])
    assert_near(logits, arrays[f"logits_{run}"])
    # The official indices are among the tokens that the last cut left, fused one last.
    patches = np.tile(np.arange(36), (2, 1))
    for block, ours in zip((3, 6, 9), kept, strict=True):
        indices = arrays[f"idx_{run}_block{block}"]
        patches = np.take_along_axis(patches, indices, axis=1)
        np.testing.assert_array_equal(ours, patches)
        if fuse:
            patches = np.concatenate([patches, np.full((2, 1), -1)], axis=1)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_regnety(golden, suffix):
    arrays = np.load(golden("regnety_small.npz"))
    path = golden(f"regnety_small{suffix}")
    model, _ = load("regnety_002", path, image_size=96, **REGNET_SMALL)
    assert_near(model(arrays["pixels"]), arrays["logits"])


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_the_smallest_published_regnety(shared, tmp_path, suffix):
    arrays = np.load(shared("golden") / "regnety_002.npz")
    path = tmp_path / f"regnety_002{suffix}"
    packed = (shared("golden") / f"{path.name}.gz").read_bytes()
    path.write_bytes(gzip.decompress(packed))
    model, _ = load("regnety_002", path, image_size=96)
    assert_near(model(arrays["pixels"]), arrays["logits"])


@pytest.mark.parametrize(
    ("file", "reference"),
    [
        ("tiny.pth", "tiny"),
        ("tiny.safetensors", "tiny"),
        ("tiny_training_loop.pth", "tiny"),
        ("tiny_float16.safetensors", "tiny_float16"),
        ("tiny_bfloat16.safetensors", "tiny_bfloat16"),
    ],
)
def test_one_model_in_many_containers(file, reference):
    arrays = np.load(CONTAINERS / f"{reference}.npz")
    name = "deit_tiny_distilled_patch16_224"
    model, report = load(name, CONTAINERS / file, 3, 32, **TINY)
    logits = model(arrays["pixels"])
    assert_near(logits["class"], arrays["logits_class"])
    assert_near(logits["distillation"], arrays["logits_distillation"])
    if "training_loop" in file:
        assert report.choice == "model"
        assert {"model_ema", "optimizer", "epoch", "args"} <= set(report.others)


HOSTILE = {
    "calls_eval.pth": "__builtin__.eval",
    "calls_os_system.pth": "posix.system",
    "calls_os_system_for_weights.pth": "posix.system",
    "calls_os_system_plain_pickle.pth": "it is a bare pickle",
    "truncated.pth": "it is cut or damaged",
    "truncated.safetensors": "incomplete metadata",
    "empty.pth": "it is empty",
    "not_a_checkpoint.pth": "it is no zip and starts with",
    "pickle_cut.pth": "its pickle is damaged",
    "storage_missing.pth": "it has no entry 'data/3'",
    "storage_short.pth": "has 18432 bytes instead of 9216 x 4",
    "header_length_huge.safetensors": "header too large",
    "header_length_past_end.safetensors": "header too large",
    "header_not_json.safetensors": "invalid JSON in header",
    "dtype_unknown.safetensors": "Q7",
    "offsets_past_end.safetensors": "invalid offset",
    "shape_contradicts_offsets.safetensors": "invalid shape",
    "missing_key.pth": r"blocks.0.mlp.fc2.bias \(12,\): absent in the file",
    "missing_key.safetensors": r"blocks.0.mlp.fc2.bias \(12,\): absent in the file",
    "wrong_shape.pth": r"blocks.0.attn.proj.weight \(12, 12\): \(12, 10\) in the file",
    "wrong_shape.safetensors": r"proj.weight \(12, 12\): \(12, 10\) in the file",
    "transposed_shape.pth": r"mlp.fc1.weight \(48, 12\): \(12, 48\) in the file",
    "transposed_shape.safetensors": r"fc1.weight \(48, 12\): \(12, 48\) in the file",
    "extra_key.pth": "blocks.1.norm1.weight: not in the model",
    "extra_key.safetensors": "blocks.1.norm1.weight: not in the model",
}


def test_knows_all_hostile_files():
    assert set(HOSTILE) == {path.name for path in (GOLDEN / "hostile").iterdir()}


@pytest.mark.parametrize("file", HOSTILE)
def test_refuses_a_hostile_file_and_leaves_the_model(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = create_model("deit_tiny_distilled_patch16_224", 3, 32, **TINY)
    before = model.get_weights()
    with pytest.raises(ValueError, match=HOSTILE[file]) as refusal:
        load_weights(model, GOLDEN / "hostile" / file)
    assert file in str(refusal.value)
    for now, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)
    assert list(tmp_path.iterdir()) == []  # nothing was executed


@pytest.mark.parametrize("grid", [(24, 24), (10, 18)])
def test_position_embeddings_for_another_grid(grid):
    arrays = np.load(GOLDEN / "pos_embed_resample.npz")
    resampled = resample_positions(arrays["pos_embed_14x14"], (14, 14), grid)
    assert_near(resampled, arrays[f"pos_embed_{grid[0]}x{grid[1]}"], 1e-6)
