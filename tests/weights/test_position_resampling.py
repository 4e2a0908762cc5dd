from pathlib import Path

import keras
import numpy as np
import pytest

from keras_deit.models.factory import build_model
from keras_deit.weights.loader import load_weights
from keras_deit.weights.position_resampling import (
    bicubic_matrix,
    resample_positions,
    token_grid,
)
from keras_deit.weights.readers import read_checkpoint, write_safetensors
from keras_deit.weights.saver import save_weights

GOLDEN = Path(__file__).parents[1] / "golden" / "pos_embed_resample.npz"


def keys(distance):
    """The cubic kernel with A = -0.75, in the form of Keys' paper."""
    d = abs(distance)
    if d <= 1:
        return 1.25 * d**3 - 2.25 * d**2 + 1
    return -0.75 * d**3 + 3.75 * d**2 - 6 * d + 3 if d < 2 else 0.0


def sampled(grid, new_rows, new_columns):
    """Each new value from its 16 neighbors, one after the other."""
    rows, columns = grid.shape[:2]
    result = np.zeros((new_rows, new_columns, *grid.shape[2:]))
    for i in range(new_rows):
        for j in range(new_columns):
            y = (i + 0.5) * rows / new_rows - 0.5
            x = (j + 0.5) * columns / new_columns - 0.5
            for tap in np.ndindex(4, 4):
                row, column = np.floor([y, x]).astype(int) - 1 + tap
                inside = (np.clip(row, 0, rows - 1), np.clip(column, 0, columns - 1))
                result[i, j] += keys(y - row) * keys(x - column) * grid[inside]
    return result


def test_two_numbers_become_four():
    # The new ones stand at -0.25, 0.25, 0.75 and 1.25 of the old 0 and 1. The second
    # is 0.25 after the first old one; its taps are -1, 0, 1, 2 at distances 1.25, 0.25,
    # 0.75, 1.75, with weights -0.10546875, 0.87890625, 0.26171875, -0.03515625; and the
    # outer ones are the border again. The first mirrors that: taps -2 to 1.
    near, far = 0.87890625 - 0.10546875, 0.26171875 - 0.03515625
    tail = -0.10546875  # of old 1, seen from -0.25
    expected = [[1 - tail, tail], [near, far], [far, near], [tail, 1 - tail]]
    np.testing.assert_allclose(bicubic_matrix(2, 4), expected, rtol=0, atol=1e-15)


def test_one_number_is_repeated():
    np.testing.assert_allclose(bicubic_matrix(1, 3), np.ones((3, 1)), atol=1e-15)


@pytest.mark.parametrize("size", [1, 2, 14, 24])
def test_the_same_length_is_the_identity(size):
    np.testing.assert_array_equal(bicubic_matrix(size, size), np.eye(size))


@pytest.mark.parametrize(("old", "new"), [(14, 24), (24, 14), (2, 9), (9, 2), (3, 4)])
def test_each_number_is_a_mean_of_at_most_four(old, new):
    matrix = bicubic_matrix(old, new)
    assert matrix.shape == (new, old)
    assert matrix.dtype == "float64"
    np.testing.assert_allclose(matrix.sum(axis=1), 1, rtol=0, atol=1e-14)
    assert np.count_nonzero(matrix, axis=1).max() <= 4
    np.testing.assert_allclose(matrix, matrix[::-1, ::-1], atol=1e-14)  # no side first


@pytest.mark.parametrize("new_grid", [(5, 7), (2, 3), (9, 4), (3, 5), (5, 3)])
def test_equals_the_sum_over_sixteen_neighbors(new_grid):
    grid = np.random.default_rng(0).normal(size=(3, 5, 2))
    resampled = resample_positions(grid.reshape(1, 15, 2), (3, 5), new_grid)
    expected = sampled(grid, *new_grid).reshape(1, -1, 2)
    np.testing.assert_allclose(resampled, expected, rtol=0, atol=1e-6)


def test_a_gradient_down_the_rows_does_not_turn():
    # A value per row, the same in all columns: 4 x 2 patches become 2 x 4.
    rows = np.repeat(np.arange(4.0), 2).reshape(1, 8, 1)
    resampled = resample_positions(rows, (4, 2), (2, 4)).reshape(2, 4)
    # At 0.5 stands -0.09375 (0 + 2) + 0.59375 (0 + 1); at 2.5 what mirrors it.
    np.testing.assert_allclose(resampled, [[0.40625] * 4, [2.59375] * 4], atol=1e-6)
    columns = np.tile(np.arange(2.0), 4).reshape(1, 8, 1)
    resampled = resample_positions(columns, (4, 2), (2, 4)).reshape(2, 4)
    np.testing.assert_allclose(resampled, [bicubic_matrix(2, 4)[:, 1]] * 2, atol=1e-6)


@pytest.mark.parametrize("num_prefix_tokens", [0, 1, 2])
def test_prefix_rows_stay_untouched(num_prefix_tokens):
    rng = np.random.default_rng(0)
    embedding = rng.normal(size=(1, num_prefix_tokens + 6, 3)).astype("float32")
    resampled = resample_positions(embedding, (2, 3), (4, 4))
    assert resampled.shape == (1, num_prefix_tokens + 16, 3)
    assert resampled.dtype == "float32"
    prefix, patches = np.split(embedding, [num_prefix_tokens], axis=1)
    np.testing.assert_array_equal(resampled[:, :num_prefix_tokens], prefix)
    alone = resample_positions(patches, (2, 3), (4, 4))
    np.testing.assert_array_equal(resampled[:, num_prefix_tokens:], alone)


def test_the_same_grid_changes_nothing():
    embedding = np.random.default_rng(0).normal(size=(1, 8, 3)).astype("float32")
    resampled = resample_positions(embedding, (2, 3), (2, 3))
    np.testing.assert_array_equal(resampled, embedding)


def test_half_precision_is_resampled_in_full():
    embedding = np.random.default_rng(0).normal(size=(1, 6, 3)).astype("float16")
    resampled = resample_positions(embedding, (2, 3), (4, 4))
    full = resample_positions(embedding.astype("float32"), (2, 3), (4, 4))
    np.testing.assert_array_equal(resampled, full)


@pytest.mark.parametrize("grid", [(24, 24), (10, 18)])
def test_equals_pytorch(grid):
    arrays = np.load(GOLDEN)
    expected = arrays[f"pos_embed_{grid[0]}x{grid[1]}"]
    resampled = resample_positions(arrays["pos_embed_14x14"], (14, 14), grid)
    np.testing.assert_allclose(resampled, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "size", "grid"),
    [
        ("deit_micro_distilled_patch4_32", (32, 48), (8, 12)),
        ("t2t_vit_micro_32", (48, 32), (12, 8)),
    ],
)
def test_knows_the_grid_of_a_model(name, size, grid):
    assert token_grid(build_model(name, 5, size, depth=0)) == grid


def test_another_model_has_no_grid():
    assert token_grid(keras.Sequential([keras.layers.Dense(2)])) is None


def build(image_size=32, name="deit_micro_distilled_patch4_32", **changes):
    sizes = {"depth": 0, "embed_dim": 8, "num_heads": 2}
    return build_model(name, 5, image_size, **{**sizes, **changes})


def positions_of(model):
    return model.get_layer("position_embedding").embedding.numpy()


def save(model, path):
    model.save(path) if path.suffix == ".keras" else save_weights(model, path)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """`files(size, suffix)`: positions of a model for images of that size; its file."""
    folder = tmp_path_factory.mktemp("positions")
    models = {}

    def find(size, suffix):
        if size not in models:
            models[size] = build(size)
        path = folder / f"{models[size].input_shape[1:3]}{suffix}"
        if not path.exists():
            save(models[size], path)
        return positions_of(models[size]), path

    return find


@pytest.mark.parametrize("suffix", [".keras", ".safetensors"])
@pytest.mark.parametrize(
    ("old_size", "new_size"),
    [
        (32, 64),
        (32, (48, 32)),
        (32, (16, 64)),  # as many patches
        ((32, 48), (48, 32)),  # as many patches
        ((32, 48), 64),
        ((32, 48), 16),
    ],
)
def test_a_file_for_another_grid_is_resampled(old_size, new_size, suffix, files):
    positions, path = files(old_size, suffix)
    model = build(new_size)
    report = load_weights(model, path)
    assert report.resampled == ["position_embedding/embedding"]
    assert report.fresh == report.unused == []
    assert len(report.loaded) == len(model.weights) - 1
    old, new = (
        (size // 4,) * 2 if isinstance(size, int) else (size[0] // 4, size[1] // 4)
        for size in (old_size, new_size)
    )
    expected = sampled(positions[0, 2:].reshape(*old, -1), *new).reshape(1, -1, 8)
    ours = positions_of(model)
    np.testing.assert_array_equal(ours[:, :2], positions[:, :2])
    np.testing.assert_allclose(ours[:, 2:], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("suffix", [".keras", ".safetensors"])
@pytest.mark.parametrize("size", [32, (32, 48)])
def test_a_file_for_the_same_grid_is_copied(size, suffix, files):
    positions, path = files(size, suffix)
    model = build(size)
    report = load_weights(model, path)
    assert "position_embedding/embedding" in report.loaded
    np.testing.assert_array_equal(positions_of(model), positions)


def without_grid(path, new_path, **metadata):
    write_safetensors(new_path, read_checkpoint(path).tensors, metadata)
    return new_path


# No grid, no numbers, or one of another number of patches: 66 of the 98 rows.
@pytest.mark.parametrize(
    "grid", [{}, {"grid": "8"}, {"grid": "8x8"}, {"grid": "a12x8"}]
)
def test_positions_that_may_be_any_oblong_are_refused(grid, files, tmp_path):
    positions, path = files((32, 48), ".safetensors")
    path = without_grid(path, tmp_path / "any.safetensors", **grid)
    model = build((48, 64))
    before = model.get_weights()
    fault = r"pos_embed \(1, 194, 8\): \(1, 98, 8\) in the file\."
    with pytest.raises(ValueError, match=fault):
        load_weights(model, path)
    for now, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)
    model = build((32, 48))  # as many, and nothing speaks against it
    assert load_weights(model, path).resampled == []
    np.testing.assert_array_equal(positions_of(model), positions)


@pytest.mark.parametrize("grid", [{}, {"grid": "0x0"}, {"grid": f"{'9' * 5000}x1"}])
def test_positions_without_a_grid_are_a_square_if_they_can_be(grid, files, tmp_path):
    positions, path = files(32, ".safetensors")
    path = without_grid(path, tmp_path / "square.safetensors", **grid)
    model = build((16, 64))
    load_weights(model, path)
    expected = resample_positions(positions, (8, 8), (4, 16))
    np.testing.assert_array_equal(positions_of(model), expected)


@pytest.mark.parametrize(
    "shape",
    [(1, 2, 8), (1, 1, 8), (1, 0, 8), (1, 18, 4), (2, 18, 8), (1, 66, 8, 1), ()],
)
def test_what_are_no_positions_of_this_width_are_refused(shape, files, tmp_path):
    _, path = files(32, ".safetensors")
    tensors = {**read_checkpoint(path).tensors, "pos_embed": np.zeros(shape, "f4")}
    write_safetensors(tmp_path / "bad.safetensors", tensors, {"grid": "0x0"})
    model = build()
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"but: pos_embed \(1, 66, 8\): \(.*\) in the"):
        load_weights(model, tmp_path / "bad.safetensors")
    for now, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_a_plain_model_has_one_row_before_the_patches(tmp_path):
    plain = "deit_micro_patch4_32"
    source = build(name=plain)
    path = save(source, tmp_path / "plain.safetensors")
    model = build(64, name=plain)
    load_weights(model, path)
    expected = resample_positions(positions_of(source), (8, 8), (16, 16))
    np.testing.assert_array_equal(positions_of(model), expected)


def test_learned_positions_are_resampled_in_a_frozen_model_too(files):
    positions, path = files(32, ".safetensors")
    model = build(64)
    model.trainable = False
    assert load_weights(model, path).resampled == ["position_embedding/embedding"]
    expected = resample_positions(positions, (8, 8), (16, 16))
    np.testing.assert_array_equal(positions_of(model), expected)


@pytest.mark.parametrize("suffix", [".keras", ".safetensors"])
@pytest.mark.parametrize("size", [64, (16, 64)])
def test_waves_of_another_grid_stay_the_models_own(size, suffix, tmp_path):
    waves = {"name": "t2t_vit_micro_32", "token_dim": 8}
    source = build(**waves)
    source.get_layer("position_embedding").embedding.assign_add(
        np.ones((1, 65, 8), "float32")
    )
    path = save(source, tmp_path / f"waves{suffix}")
    model = build(size, **waves)
    before = positions_of(model)
    report = load_weights(model, path)
    assert report.fresh == ["position_embedding/embedding"]
    assert report.resampled == report.unused == []
    np.testing.assert_array_equal(positions_of(model), before)
    model = build(**waves)
    assert load_weights(model, path).fresh == []
    np.testing.assert_array_equal(positions_of(model), positions_of(source))
