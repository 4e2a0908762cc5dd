import json
import struct
import tracemalloc
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from keras_deit.weights.readers import (
    CHECKPOINT_SUFFIXES,
    SAFE_DTYPES,
    WRAPPERS,
    Checkpoint,
    read_checkpoint,
    write_safetensors,
)
from tests.weights.torch_files import Raw, call, name, tensor, write_torch

GOLDEN = Path(__file__).parents[1] / "golden"
STORAGES = {
    str(i): np.arange(6 * i, 6 * i + 6, dtype="<f4").tobytes() for i in range(4)
}
W = {key: np.arange(6.0).reshape(2, 3) + 6 * int(key) for key in STORAGES}


def read_torch_of(tmp_path, content, ending=".pth"):
    return read_checkpoint(write_torch(tmp_path / f"w{ending}", content, STORAGES))


def write_header(path, header, data=b""):
    header = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)
    return path


def assert_equal(got, expected):
    assert list(got) == list(expected)
    for key, value in expected.items():
        assert got[key].dtype == value.dtype, key
        assert got[key].shape == value.shape, key
        np.testing.assert_array_equal(got[key], value)


def test_a_bare_state_dict_is_the_whole_file(tmp_path):
    got = read_torch_of(tmp_path, {"a.weight": tensor(), "b": tensor(key="1")})
    path = tmp_path / "w.pth"
    assert (got.path, got.choice, got.others, got.metadata) == (path, None, [], {})
    np.testing.assert_array_equal(got.tensors["a.weight"], W["0"])
    np.testing.assert_array_equal(got.tensors["b"], W["1"])
    assert isinstance(got.tensors["b"].base, np.memmap)


def test_a_path_may_be_a_text(tmp_path):
    path = write_torch(tmp_path / "w.pth.tar", {"w": tensor()}, STORAGES)
    got = read_checkpoint(str(path))
    assert isinstance(got, Checkpoint)
    assert got.path == path
    assert list(got.tensors) == ["w"]


def test_one_wrapper_is_preferred_to_another(tmp_path):
    content = {"epoch": 3, 0: None}
    for i, wrapper in enumerate(WRAPPERS[::-1]):
        key = str(i % 4)
        content = {wrapper: {"w": tensor(key=key)}, **content}
        got = read_torch_of(tmp_path, content)
        assert got.choice == wrapper
        assert got.others == [str(other) for other in content if other != wrapper]
        np.testing.assert_array_equal(got.tensors["w"], W[key])
    assert WRAPPERS == ("state_dict_ema", "state_dict", "model", "model_ema", "net")


def test_a_wrapper_that_holds_no_dict_is_passed_by(tmp_path):
    content = {"state_dict_ema": None, "state_dict": 1, "model": {"w": tensor()}}
    got = read_torch_of(tmp_path, content)
    assert got.choice == "model"
    assert got.others == ["state_dict_ema", "state_dict"]
    got = read_torch_of(tmp_path, {"model": tensor(), "net": tensor(key="1")})
    assert got.choice is None
    assert list(got.tensors) == ["model", "net"]


def test_a_prefix_that_all_names_have_is_left_out(tmp_path):
    content = {"model": {"module.a": tensor(), "module.module.b": tensor(key="1")}}
    got = read_torch_of(tmp_path, content)
    assert list(got.tensors) == ["a", "module.b"]
    np.testing.assert_array_equal(got.tensors["module.b"], W["1"])
    assert list(read_torch_of(tmp_path, content["model"]).tensors) == ["a", "module.b"]
    content["model"]["b.module.c"] = tensor()
    names = ["module.a", "module.module.b", "b.module.c"]
    assert list(read_torch_of(tmp_path, content).tensors) == names


def test_reads_what_a_training_loop_saves():
    got = read_checkpoint(GOLDEN / "containers" / "tiny_training_loop.pth")
    assert got.choice == "model"
    assert got.others == [
        *("optimizer", "lr_scheduler", "epoch", "model_ema", "scaler", "args")
    ]
    plain = read_checkpoint(GOLDEN / "containers" / "tiny.pth")
    assert (plain.choice, plain.others) == ("model", [])
    assert_equal(got.tensors, plain.tensors)


def test_both_containers_hold_the_same():
    theirs = read_checkpoint(GOLDEN / "containers" / "tiny.pth").tensors
    ours = read_checkpoint(GOLDEN / "containers" / "tiny.safetensors").tensors
    assert len(ours) == 23
    assert_equal({key: ours[key] for key in theirs}, theirs)


@pytest.mark.parametrize(
    ("dtype", "digits"), [(np.float16, 2**-11), (ml_dtypes.bfloat16, 2**-8)]
)
def test_reads_short_floats(dtype, digits):
    exact = read_checkpoint(GOLDEN / "containers" / "tiny.safetensors").tensors
    file = f"tiny_{np.dtype(dtype).name}.safetensors"
    got = read_checkpoint(GOLDEN / "containers" / file).tensors
    assert got.keys() == exact.keys()
    for key, value in got.items():
        assert value.dtype == dtype
        assert not value.flags.writeable
        rounded = value.astype("float32")
        np.testing.assert_allclose(rounded, exact[key], rtol=digits, atol=1e-6)


@pytest.mark.parametrize(
    ("file", "changed"),
    [("missing_key", 22), ("extra_key", 24), ("wrong_shape", 23)],
)
def test_tells_nothing_of_what_a_model_needs(file, changed):
    for ending in (".pth", ".safetensors"):
        got = read_checkpoint(GOLDEN / "hostile" / (file + ending))
        assert len(got.tensors) == changed


def test_a_safetensors_file_keeps_all_that_was_written(tmp_path):
    values = np.array([[0, 1, 2], [3, 0, 5]])
    tensors = {key: values.astype(dtype) for key, dtype in SAFE_DTYPES.items()}
    tensors["scalar"] = np.array(7, np.int64)
    tensors["nothing"] = np.zeros((0, 3), np.float32)
    tensors["module.x"] = np.array([-1.5], np.float16)
    path = tmp_path / "w.safetensors"
    write_safetensors(path, tensors, {"variant": "deit", "empty": ""})
    got = read_checkpoint(path)
    assert_equal({key: got.tensors[key] for key in tensors}, tensors)
    assert len(got.tensors) == len(tensors)
    assert (got.path, got.choice, got.others) == (path, None, [])
    assert got.metadata == {"variant": "deit", "empty": ""}
    assert isinstance(got.tensors["F32"].base, np.memmap)
    plain = read_checkpoint(GOLDEN / "containers" / "tiny.safetensors")
    assert plain.metadata == {}


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x.T,
        lambda x: x[:, ::2],
        lambda x: x[::-1],
        lambda x: np.asfortranarray(x),
        lambda x: np.broadcast_to(x[:, :1], x.shape),
        lambda x: x.astype(">f4"),
    ],
)
def test_arrays_may_lie_in_memory_in_any_way(view, tmp_path):
    array = view(np.arange(12, dtype=np.float32).reshape(3, 4))
    write_safetensors(tmp_path / "w.safetensors", {"x": array}, {})
    got = read_checkpoint(tmp_path / "w.safetensors").tensors["x"]
    np.testing.assert_array_equal(got, array)
    assert got.dtype == np.dtype("<f4")


def test_writes_what_was_read_to_the_same_file(tmp_path):
    path = tmp_path / "w.safetensors"
    write_safetensors(path, {"x": np.arange(6.0)}, {})
    write_safetensors(path, read_checkpoint(path).tensors, {"again": "yes"})
    np.testing.assert_array_equal(read_checkpoint(path).tensors["x"], np.arange(6.0))
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("dtype", ["complex64", "uint16", "S3", "O"])
def test_refuses_to_write_other_types(dtype, tmp_path):
    tensors = {"x": np.zeros(2), "odd": np.zeros(3, dtype)}
    with pytest.raises(ValueError, match=r"must be of \['BF16'.*, but 'odd' is .*path"):
        write_safetensors(tmp_path / "w.safetensors", tensors, {})
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_whole_or_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    write_safetensors(path, {"x": np.ones(3)}, {})
    before = path.read_bytes()
    with pytest.raises(TypeError, match="str"):
        write_safetensors(path, {"x": np.zeros(3)}, {"epochs": 3})

    def fail(tensors, where, metadata):
        Path(where).write_bytes(b"half")
        raise OSError("No space left")

    monkeypatch.setattr("safetensors.numpy.save_file", fail)
    with pytest.raises(OSError, match="No space left"):
        write_safetensors(path, {"x": np.zeros(3)}, {})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("ending", CHECKPOINT_SUFFIXES)
def test_refuses_a_file_that_is_not_there(ending, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"There is no file '.*/w{ending}'"):
        read_checkpoint(tmp_path / f"w{ending}")
    (tmp_path / f"w{ending}").mkdir()
    with pytest.raises(IsADirectoryError, match=f"/w{ending}' is a folder, not a file"):
        read_checkpoint(tmp_path / f"w{ending}")


@pytest.mark.parametrize("ending", [".bin", ".tar", ".pt", ".h5", ".pth.gz", ""])
def test_refuses_another_ending(ending, tmp_path):
    rule = r"`path` must end in one of \['.safetensors', '.pth', '.pth.tar'\]. Received"
    with pytest.raises(ValueError, match=rule):
        read_torch_of(tmp_path, {"w": tensor()}, ending)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (tensor(), "`path` must hold a dict of tensors. Received: path="),
        ([tensor()], "`path` must hold a dict of tensors"),
        (Raw(name("argparse.Namespace") + b")\x81"), "must hold a dict of tensors"),
        ({}, r"alone or under one of \['state_dict_ema', .*\], but: there are none."),
        ({"model": {}, "net": {"w": tensor()}}, "under 'model', but: there are none"),
        (
            {"model": {"w": 1}},
            "tensors under 'model', but: 'w' is of type int. Received",
        ),
        (
            {"model": {"w": tensor(), "n": None}},
            "'model', but: 'n' is of type NoneType.",
        ),
        ({"model": {"w": {"x": tensor()}}}, "but: 'w' is of type dict"),
        ({"model": {0: tensor()}}, "but: 0 is of type ndarray"),
        (
            {"w": tensor(), "epoch": 3, "x": "y"},
            "but: 'epoch' is of type int, 'x' is of type str.",
        ),
        ({"weights": {"w": tensor()}}, r"alone or .*, but: 'weights' is of type dict"),
        (
            {"w": call("collections.OrderedDict"), "f": name("torch.FloatStorage")},
            "but: 'w' is of type dict, 'f' is of type ",
        ),
        (
            {str(i): i for i in range(9)},
            "but: '0' is of type int, .*'4' is of type int. Received",
        ),
        ({"x" * 10**4: 1}, "but: 'x{99} is of type int. Received"),
    ],
)
def test_refuses_what_is_no_tensor_by_name(content, fault, tmp_path):
    with pytest.raises(ValueError, match=fault):
        read_torch_of(tmp_path, content)


def test_what_lies_beside_the_weights_is_not_looked_at(tmp_path):
    # Each holds the one before twice: to walk or print the last takes 2**100 steps.
    lists = b"".join(b"](h%ch%ceq%c" % (i, i, i + 1) for i in range(100))
    args = Raw(b"(]q\x00" + lists + b"t")
    got = read_torch_of(tmp_path, {"args": args, "model": {"w": tensor()}})
    assert got.others == ["args"]
    with pytest.raises(ValueError, match="but: 'args' is of type tuple"):
        read_torch_of(tmp_path, {"args": args, "w": tensor()})


@pytest.mark.parametrize(
    ("file", "fault"),
    [
        ("truncated", "incomplete metadata, file not fully covered"),
        ("header_length_huge", "header too large"),
        ("header_length_past_end", "header"),
        ("header_not_json", "invalid JSON in header"),
        ("dtype_unknown", "unknown variant `Q7`"),
        ("offsets_past_end", "invalid offset for tensor `patch_embed.proj.bias`"),
        ("shape_contradicts_offsets", "invalid shape, data type, or offset"),
    ],
)
def test_refuses_hostile_safetensors_files(file, fault):
    tracemalloc.start()
    rule = f"^`path` must be a whole .safetensors file, but: .*{fault}.*Received: path="
    with pytest.raises(ValueError, match=rule):
        read_checkpoint(GOLDEN / "hostile" / f"{file}.safetensors")
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


@pytest.mark.parametrize("content", [b"", b"1234567", bytes(8), b"\x02" + bytes(7)])
def test_refuses_a_safetensors_file_without_a_header(content, tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="must be a whole .safetensors file, but: "):
        read_checkpoint(path)


def test_refuses_a_safetensors_file_without_tensors(tmp_path):
    path = write_header(tmp_path / "w.safetensors", {"__metadata__": {"a": "b"}})
    with pytest.raises(ValueError, match="named tensors .*, but: there are none."):
        read_checkpoint(path)


@pytest.mark.parametrize(("dtype", "size"), [("U64", 8), ("F8_E4M3", 1), ("C64", 8)])
def test_refuses_types_that_are_not_read(dtype, size, tmp_path):
    entry = {"dtype": dtype, "shape": [1], "data_offsets": [0, size]}
    path = write_header(tmp_path / "w.safetensors", {"x": entry}, bytes(size))
    with pytest.raises(ValueError, match=f"'x' is of type {dtype}, which is not read."):
        read_checkpoint(path)


def test_refuses_shapes_of_nothing_that_are_too_large(tmp_path):
    entry = {"dtype": "F32", "shape": [0, 2**62], "data_offsets": [0, 0]}
    path = write_header(tmp_path / "w.safetensors", {"x": entry})
    with pytest.raises(ValueError, match="must be a whole .safetensors file, but: "):
        read_checkpoint(path)
    entry["shape"] = [0, 2**64 - 1]
    path = write_header(tmp_path / "w.safetensors", {"x": entry})
    with pytest.raises(ValueError, match="must be a whole .safetensors file, but: "):
        read_checkpoint(path)


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_tensors_take_memory_only_when_they_are_used(ending, tmp_path):
    path = tmp_path / f"w{ending}"
    if ending == ".pth":
        content = {"x": tensor((2**21,), (1,), numel=2**21)}
        write_torch(path, content, {"0": bytes(2**23)})
    else:
        write_safetensors(path, {"x": np.zeros(2**21, np.float32)}, {})
    tracemalloc.start()
    got = read_checkpoint(path).tensors["x"]
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
    assert got.shape == (2**21,)
    assert not got.any()


def test_hostile_checkpoints_run_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in sorted((GOLDEN / "hostile").glob("calls_*.pth")):
        with pytest.raises(ValueError, match="must be a checkpoint of PyTorch, but it"):
            read_checkpoint(path)
    assert list(tmp_path.iterdir()) == []
