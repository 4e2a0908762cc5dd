import zipfile

import numpy as np
import pytest

from keras_deit.weights.loader import load_model, load_weights
from keras_deit.weights.readers import write_safetensors
from tests.weights.students import (
    STUDENT,
    assert_unchanged,
    build_student,
    save_student,
    tensors_of,
    write_pth,
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model of one block and five classes, and the folder with all its files."""
    folder = tmp_path_factory.mktemp("weights")
    model = build_student()
    save_student(model, folder)
    return model, folder


def assert_refused(model, path, match, **arguments):
    before = model.get_weights()
    with pytest.raises(ValueError, match=match) as refusal:
        load_weights(model, path, **arguments)
    assert_unchanged(model, before)
    return str(refusal.value)


@pytest.mark.parametrize(
    ("head", "faults"),
    [
        ({"weight": (7, 48), "bias": (7,)}, [r"head.weight (5, 24): (7, 48)"]),
        ({"weight": (5, 48), "bias": (5,)}, [r"head.weight (5, 24): (5, 48)"]),
        ({"weight": (24, 5), "bias": (5,)}, [r"head.weight (5, 24): (24, 5)"]),
        ({"weight": (7, 24), "bias": (5,)}, [r"head.weight (5, 24): (7, 24)"]),
        ({"weight": (5, 24), "bias": (7,)}, [r"head.bias (5,): (7,)"]),
        ({"weight": (5, 24), "bias": (5, 1)}, [r"head.bias (5,): (5, 1)"]),
        ({"weight": (5, 24, 1, 1), "bias": (5,)}, ["head.weight (5, 24): (5, 24, 1,"]),
        ({"weight": (), "bias": ()}, ["head.weight (5, 24): ()", "head.bias (5,): ()"]),
        (
            {"weight": (6, 24), "bias": (7,)},
            ["head.weight (5, 24): (6, 24)", "head.bias (5,): (7,)"],
        ),
        (
            {"weight": (7, 24)},
            ["head.weight (5, 24): (7, 24)", "head.bias (5,): absent"],
        ),
        ({"bias": (7,)}, ["head.weight (5, 24): absent", "head.bias (5,): (7,)"]),
    ],
)
def test_refuses_a_head_that_is_no_head_of_this_width(head, faults, saved, tmp_path):
    tensors = tensors_of(saved[1])
    del tensors["head.weight"], tensors["head.bias"]
    for leaf, shape in head.items():
        tensors[f"head.{leaf}"] = np.zeros(shape, "float32")
    write_safetensors(tmp_path / "a.safetensors", tensors, {})
    message = assert_refused(build_student(), tmp_path / "a.safetensors", "must hold")
    listed = message.partition("but: ")[2].split("; ")
    assert len(listed) == len(faults)
    for fault, expected in zip(listed, faults, strict=True):
        assert fault.startswith(expected)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"depth": 0}, r"block_0/norm1/gamma: not in the model[;.]"),
        ({"depth": 2}, r"block_1/norm1/gamma \(24,\): absent in the file;"),
        ({"distilled": False}, r"distillation_head/bias: not in the model[;.]"),
        ({"embed_dim": 48}, r"norm/gamma \(48,\): \(24,\) in the file;"),
    ],
)
def test_refuses_another_architecture_and_changes_nothing(changes, fault, saved):
    path = saved[1] / "student.keras"
    message = assert_refused(build_student(**changes), path, fault)
    assert message.startswith(f"`path` must hold the weights of '{STUDENT}', but: ")
    assert message.endswith(f". Received: path={str(path)!r}.")


@pytest.fixture(params=[".safetensors", ".pth"])
def faulty(request, saved, tmp_path):
    """A file that lacks one weight, has one too many, and two of another shape."""
    tensors = tensors_of(saved[1])
    del tensors["norm.weight"]
    tensors["extra"] = np.zeros(3, "float32")
    tensors["cls_token"] = np.zeros((1, 24), "float32")
    tensors["blocks.0.mlp.fc1.weight"] = tensors["blocks.0.mlp.fc1.weight"].T
    path = tmp_path / f"faulty{request.param}"
    if request.param == ".pth":
        return write_pth(path, {"model": tensors})
    write_safetensors(path, tensors, {})
    return path


def test_lists_all_faults_together(faulty):
    message = assert_refused(build_student(), faulty, "must hold the weights of")
    assert message == (
        f"`path` must hold the weights of '{STUDENT}', but: "
        "cls_token (1, 1, 24): (1, 24) in the file; "
        "blocks.0.mlp.fc1.weight (96, 24): (24, 96) in the file; "
        "norm.weight (24,): absent in the file; "
        f"extra: not in the model. Received: path={str(faulty)!r}."
    )


def test_what_is_not_strict_loads_the_rest_and_says_so(faulty, saved):
    model = build_student()
    before = {w.path: w.numpy() for w in model.weights}
    report = load_weights(model, faulty, strict=False)
    fresh = ["prefix_tokens/class_token", "block_0/mlp/fc1/kernel", "norm/gamma"]
    assert report.fresh == fresh
    unused = ["cls_token", "blocks.0.mlp.fc1.weight", "extra"]
    assert sorted(report.unused) == sorted(unused)
    assert set(report.loaded) == set(before) - set(fresh)
    theirs = {w.path: w for w in saved[0].weights}
    for weight in model.weights:
        expected = before if weight.path in fresh else theirs
        np.testing.assert_array_equal(weight, expected[weight.path])


def test_refuses_a_file_whose_matrices_are_transposed(saved, tmp_path):
    tensors = {name: value.T for name, value in tensors_of(saved[1]).items()}
    write_safetensors(tmp_path / "a.safetensors", tensors, {})
    path = tmp_path / "a.safetensors"
    message = assert_refused(
        build_student(), path, r"qkv.weight \(72, 24\): \(24, 72\)"
    )
    assert "patch_embed.proj.weight (24, 3, 4, 4): (4, 4, 3, 24) in the" in message


def test_a_keras_file_need_not_fit_if_not_strict(saved):
    model = build_student(depth=2, distilled=False)
    before = {w.path: w.numpy() for w in model.weights}
    report = load_weights(model, saved[1] / "student.keras", strict=False)
    assert report.fresh == [
        path for path in before if path.startswith(("block_1/", "position_embedding/"))
    ]
    assert sorted(report.unused) == [
        "distillation_head/bias",
        "distillation_head/kernel",
        "position_embedding/embedding",
        "prefix_tokens/distillation_token",
    ]
    theirs = {w.path: w for w in saved[0].weights}
    for weight in model.weights:
        expected = before if weight.path in report.fresh else theirs
        np.testing.assert_array_equal(weight, expected[weight.path])


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_refuses_a_cut_keras_file(share, saved, tmp_path):
    whole = (saved[1] / "student.keras").read_bytes()
    (tmp_path / "cut.keras").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=r"must be a whole \.keras file"):
        load_model(tmp_path / "cut.keras")


def test_refuses_a_keras_file_with_another_byte(saved, tmp_path):
    path = tmp_path / "damaged.keras"
    with zipfile.ZipFile(saved[1] / "student.keras") as archive:
        start = archive.getinfo("model.weights.h5").header_offset
    content = bytearray((saved[1] / "student.keras").read_bytes())
    content[start + 5000] ^= 1
    path.write_bytes(content)
    assert_refused(build_student(), path, r"damaged\.keras' holds no model: Bad CRC-32")


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


@pytest.mark.parametrize("name", ["student.h5", "student.npz", "keras", "pth.tar"])
def test_refuses_another_ending(name, tmp_path):
    (tmp_path / name).touch()
    with pytest.raises(ValueError, match="Received: path='.*") as refusal:
        load_weights(build_student(depth=0), tmp_path / name)
    assert str(refusal.value) == (
        "`path` must end in one of ['.keras', '.weights.h5', '.safetensors', '.pth', "
        f"'.pth.tar']. Received: path={str(tmp_path / name)!r}."
    )


def test_refuses_a_zip_that_is_no_model(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.keras", "w") as archive:
        archive.writestr("hello.txt", "hello")
    with pytest.raises(ValueError, match=r"a\.keras' holds no model: .*config\.json"):
        load_model(tmp_path / "a.keras")


def test_refuses_weights_that_are_no_floating_point_numbers(saved, tmp_path):
    model, folder = saved
    tensors = tensors_of(folder)
    tensors["norm.weight"] = tensors["norm.weight"].astype("int64")
    write_safetensors(tmp_path / "integers.safetensors", tensors, {})
    rule = r"must hold floating-point weights, but \['norm.weight'\] are not. Received"
    assert_refused(model, tmp_path / "integers.safetensors", rule)


def test_refuses_a_header_that_is_too_large(saved, tmp_path):
    path = tmp_path / "header.safetensors"
    header = b"{" + b" " * (2**21) + b"}"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    assert_refused(saved[0], path, "header too large: 2097154 bytes")
