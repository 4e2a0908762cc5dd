import gc
import pickle
import struct
import tracemalloc
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from keras_deit.weights import torch_pickle, torch_zip
from keras_deit.weights.torch_pickle import Namespace, read_torch
from tests.weights.torch_files import (
    Raw,
    call,
    name,
    op,
    storage,
    tensor,
    write_torch,
)

GOLDEN = Path(__file__).parents[1] / "golden"
SIX = np.arange(6, dtype="<f4")
SIZE_AND_STRIDES = "a tensor of storage '0' "


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.pth"


def read(path, content, storages=None):
    return read_torch(write_torch(path, content, storages or {"0": SIX.tobytes()}))


def test_a_tensor_is_a_view_of_its_storage(path):
    got = read(path, {"w": tensor(), "row": tensor((3,), (1,), offset=3)})
    assert list(got) == ["w", "row"]
    np.testing.assert_array_equal(got["w"], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(got["row"], [3, 4, 5])
    assert got["w"].dtype == np.float32
    assert isinstance(got["w"].base, np.memmap)
    assert got["w"].base is got["row"].base
    with pytest.raises(ValueError, match="read-only"):
        got["w"][0, 0] = 1


@pytest.mark.parametrize(
    ("size", "strides", "offset", "expected"),
    [
        ((3, 2), (1, 3), 0, [[0, 3], [1, 4], [2, 5]]),  # transposed
        ((2, 2), (3, 2), 0, [[0, 2], [3, 5]]),  # each second column
        ((2,), (3,), 2, [2, 5]),  # the last column
        ((2, 2), (1, 1), 4 - 1, [[3, 4], [4, 5]]),  # windows
        ((3,), (0,), 5, [5, 5, 5]),  # expanded, but no longer than its storage
        ((), (), 5, 5),
        ((1, 1), (99, 99), 5, [[5]]),  # nothing is ever 99 away
        ((1, 2, 3), (6, 3, 1), 0, [[[0, 1, 2], [3, 4, 5]]]),
        ((1,) * 8, (1,) * 8, 5, np.full((1,) * 8, 5)),
        ((0, 5), (5, 1), 0, np.zeros((0, 5))),
        ((2, 0), (99, 1), 99, np.zeros((2, 0))),  # nor does nothing lie anywhere
    ],
)
def test_strides_lead_from_element_to_element(size, strides, offset, expected, path):
    got = read(path, tensor(size, strides, offset))
    np.testing.assert_array_equal(got, expected)
    assert got.shape == size
    assert not got.flags.writeable


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("Double", "float64"),
        ("Float", "float32"),
        ("Half", "float16"),
        ("BFloat16", ml_dtypes.bfloat16),
        ("Long", "int64"),
        ("Int", "int32"),
        ("Short", "int16"),
        ("Char", "int8"),
        ("Byte", "uint8"),
        ("Bool", "bool"),
    ],
)
def test_reads_every_type(kind, dtype, path):
    values = np.array([[1, 0, 3], [0, 1, 100]]).astype(dtype)
    got = read(path, tensor(kind=kind), {"0": values.tobytes()})
    assert got.dtype == values.dtype
    np.testing.assert_array_equal(got, values)
    np.testing.assert_array_equal(got.astype("float32"), values.astype("float32"))
    got = read(path, tensor((3, 2), (1, 3), kind=kind), {"0": values.tobytes()})
    np.testing.assert_array_equal(got, values.T)


def test_reads_a_parameter_as_its_tensor(path):
    hooks = call("collections.OrderedDict")
    got = read(path, call("torch._utils._rebuild_parameter", tensor(), True, hooks))
    np.testing.assert_array_equal(got, [[0, 1, 2], [3, 4, 5]])


def test_newer_tensors_have_metadata(path):
    content = tensor()[:-2] + op({}) + b"tR"
    assert read(path, Raw(content)).shape == (2, 3)


def test_a_storage_of_nothing_has_only_empty_tensors(path):
    got = read(path, tensor((0,), (1,), numel=0), {"0": b""})
    assert got.shape == (0,)
    with pytest.raises(ValueError, match="takes 1 elements up to 1, but it has 0"):
        read(path, tensor((), (), numel=0), {"0": b""})


def test_two_tensors_may_share_a_storage(path):
    shared = Raw(storage() + b"q\x00")
    arguments = op((0, (6,), (1,), False, {}))[1:]
    rebuild = name("torch._utils._rebuild_tensor_v2")
    content = {
        "a": Raw(rebuild + b"(" + shared + arguments + b"R"),
        "b": Raw(rebuild + b"(h\x00" + arguments + b"R"),
        "c": tensor(),
    }
    got = read(path, content)
    np.testing.assert_array_equal(got["a"], SIX)
    np.testing.assert_array_equal(got["b"], SIX)
    assert np.shares_memory(got["a"], got["b"])
    assert np.shares_memory(got["a"], got["c"])


PLAIN = {
    "none": None,
    "flags": [True, False],
    "numbers": (0, 255, 256, 65536, -1, -(2**31), 2**31, 2**63 - 1, -(2**63)),
    "floats": [0.1, -1e300, float("inf")],
    "texts": ["", "è", "x" * 1000],
    "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
    "lists": [[], [1], [[2], []]],
    "dicts": [{}, {"a": 1}, {0: {"b": (1,)}, 1: {}}],
}


def test_reads_what_python_pickles(path):
    pickled = pickle.dumps(PLAIN, protocol=2)
    got = read_torch(write_torch(path, None, **{"data.pkl": pickled}))
    assert got == PLAIN
    assert repr(got) == repr(PLAIN)  # True is no 1 here
    assert read(path, PLAIN) == PLAIN


def test_an_object_may_occur_many_times(path):
    text, pair = "x" * 300, (0.9, 0.999)
    many = [{f"{i}{text}": pair, "i": [i]} for i in range(300)] * 2
    pickled = pickle.dumps([many, many, text], protocol=2)
    got = read_torch(write_torch(path, None, **{"data.pkl": pickled}))
    assert got == [many, many, text]
    assert got[0] is got[1]


def test_an_ordered_dict_is_a_dict_without_its_attributes(path):
    content = call("collections.OrderedDict")
    items = op({"w": 1, "b": 2})[1:]
    metadata = op({"_metadata": {"": {"version": 1}}})
    got = read(path, Raw(content + items + metadata + b"b"))
    assert type(got) is dict
    assert got == {"w": 1, "b": 2}


def test_an_argparse_namespace_is_its_attributes(path):
    made = name("argparse.Namespace") + b")\x81"
    got = read(path, Raw(made + op({"lr": 0.1, "model": "x"}) + b"b"))
    assert got == Namespace({"lr": 0.1, "model": "x"})
    assert read(path, Raw(made)) == Namespace({})


def test_reads_what_a_training_loop_saves():
    got = read_torch(GOLDEN / "containers" / "tiny_training_loop.pth")
    assert list(got) == [
        *("model", "optimizer", "lr_scheduler", "epoch", "model_ema", "scaler", "args")
    ]
    assert isinstance(got["args"], Namespace)
    assert got["args"].attributes["model"].startswith("deit")
    assert got["optimizer"]["state"][0]["exp_avg"].dtype == np.float32
    assert len(got["model"]) == 23


def test_a_missing_file_is_missing(path):
    with pytest.raises(FileNotFoundError, match="weights.pth"):
        read_torch(path)


def test_an_error_says_the_rule_and_the_path(path):
    path.write_bytes(b"")
    rule = "^`path` must be a checkpoint of PyTorch, but it is empty. Received: path='"
    with pytest.raises(ValueError, match=f"{rule}{path}'.$"):
        read_torch(path)


@pytest.mark.parametrize(
    ("file", "fault"),
    [
        ("containers/tiny_legacy.pth", "container of PyTorch before 1.6"),
        ("hostile/calls_eval.pth", "a global that is not read: '__builtin__.eval'"),
        ("hostile/calls_os_system.pth", "global that is not read: 'posix.system'"),
        ("hostile/calls_os_system_for_weights.pth", "not read: 'posix.system'"),
        ("hostile/calls_os_system_plain_pickle.pth", "it is a bare pickle"),
        ("hostile/truncated.pth", "it is cut or damaged: File is not a zip file"),
        ("hostile/empty.pth", "it is empty"),
        ("hostile/not_a_checkpoint.pth", "it is no zip and starts with b'<!DOC"),
        ("hostile/pickle_cut.pth", "its pickle is damaged: ValueError: expected 2"),
        ("hostile/storage_missing.pth", "it has no entry 'data/3'"),
        ("hostile/storage_short.pth", "storage '3' has 18432 bytes instead of 9216 x"),
    ],
)
def test_refuses_hostile_files(file, fault, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"but .*{fault}.*Received: path="):
        read_torch(GOLDEN / file)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "dotted",
    [
        "builtins.eval",
        "__builtin__.getattr",
        "os.system",
        "torch.storage._load_from_bytes",
        "torch.ComplexFloatStorage",
        "torch.FloatTensor",
        "numpy.core.multiarray.scalar",
        "argparse.ArgumentParser",
        "keras_deit.weights.torch_pickle.Namespace",
    ],
)
def test_refuses_every_other_global_by_name_wherever_it_hides(dotted, path):
    arguments = op({"lr": 0.1, "deep": [({"hook": name(dotted)},)]})
    namespace = Raw(name("argparse.Namespace") + b")\x81" + arguments + b"b")
    with pytest.raises(ValueError, match=f"a global that is not read: '{dotted}'"):
        read(path, {"model": {"w": tensor()}, "args": namespace})


def test_a_long_name_of_a_global_is_cut(path):
    with pytest.raises(ValueError, match="not read: 'x{99}. Received") as caught:
        read(path, name("x" * 10**5 + ".y"))
    assert len(str(caught.value)) < 500


OTHER_OPERATIONS = {
    "BYTEARRAY8": b"\x96" + struct.pack("<Q", 3) + b"abc",
    "BINBYTES8": b"\x8e" + struct.pack("<Q", 3) + b"abc",
    "BINBYTES": b"B" + struct.pack("<I", 3) + b"abc",
    "SHORT_BINBYTES": b"C\x03abc",
    "BINSTRING": b"T" + struct.pack("<I", 3) + b"abc",
    "LONG4": b"\x8b" + struct.pack("<I", 3) + b"abc",
    "LONG": b"L12L\n",
    "INT": b"I12\n",
    "STACK_GLOBAL": op("posix") + op("system") + b"\x93",
    "INST": b"(iposix\nsystem\n",
    "OBJ": b"(" + name("collections.OrderedDict") + b"o",
    "NEWOBJ_EX": name("argparse.Namespace") + b")}\x92",
    "EXT1": b"\x82\x01",
    "PERSID": b"Pstorage\n",
    "MEMOIZE": b"N\x94",
    "PUT": b"Np9\n",
    "DUP": b"N2",
    "EMPTY_SET": b"\x8f",
    "NEXT_BUFFER": b"\x97",
    "FRAME": b"\x95" + bytes(8),
}


@pytest.mark.parametrize("operation", OTHER_OPERATIONS)
def test_refuses_operations_that_pytorch_does_not_write(operation, path):
    with pytest.raises(ValueError, match=f"its pickle uses {operation}, which is not"):
        read(path, Raw(OTHER_OPERATIONS[operation]))


NOTHING_TO_SET = "its pickle sets attributes of what has none"
NO_CALL = "its pickle calls what is no call"
NO_STORAGE = "its pickle refers to what is no storage"
NO_NAMESPACE = "its pickle makes"
REBUILD = name("torch._utils._rebuild_tensor_v2")


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        # What is known by name cannot be changed, made or called in another way.
        (REBUILD + op({"__code__": 1}) + b"b", NOTHING_TO_SET),
        (REBUILD + op((None, {"__code__": 1})) + b"b", NOTHING_TO_SET),
        (name("argparse.Namespace") + op({"__new__": 1}) + b"b", NOTHING_TO_SET),
        (name("torch.FloatStorage") + op({"name": 1}) + b"b", NOTHING_TO_SET),
        (tensor() + op({"shape": 1}) + b"b", NOTHING_TO_SET),
        (tensor() + op((1, (9,), None, False, "x")) + b"b", NOTHING_TO_SET),
        (storage() + op({"start": 0}) + b"b", NOTHING_TO_SET),
        (op([]) + op({}) + b"b", NOTHING_TO_SET),
        (op({}) + op((None, {"a": 1})) + b"b", NOTHING_TO_SET),
        (name("argparse.Namespace") + b")R", NO_CALL),
        (name("torch.FloatStorage") + op((9,)) + b"R", NO_CALL),
        (tensor() + b")R", NO_CALL),
        (op("os.system") + b")R", NO_CALL),
        (REBUILD + op([]) + b"R", NO_CALL),
        (name("collections.OrderedDict") + b")\x81", NO_NAMESPACE),
        (REBUILD + b")\x81", NO_NAMESPACE),
        (op({}) + b")\x81", NO_NAMESPACE),
        (tensor() + tensor() + b"\x81", NO_NAMESPACE),
        (name("argparse.Namespace") + op([]) + b"\x81", NO_NAMESPACE),
        (name("argparse.Namespace") + op((1,)) + b"\x81", NO_NAMESPACE),
        # Items go into dicts and lists only.
        (tensor() + op(1) + op(2) + b"s", "sets items of what is no dict"),
        (op([1]) + op(0) + op(2) + b"s", "sets items of what is no dict"),
        (op({}) + op(2) + b"a", "appends to what is no list"),
        (tensor() + b"(" + op(2) + b"e", "appends to what is no list"),
        (op({1.5: 2}), "keys other than texts and integers"),
        (op({True: 2}), "keys other than texts and integers"),
        (b"}(" + tensor() + b"Nu", "keys other than texts and integers"),
        (b"}(" + op("a") + b"u", "its pickle is damaged: ValueError: zip"),
        (op(2**63), "an integer of more than 64 bits"),
        (op(-(2**63) - 1), "an integer of more than 64 bits"),
        # A stack that does not hold what is taken from it.
        (b"", "ends with another than one object"),
        (op(1) + op(2), "ends with another than one object"),
        (b"\x85", "takes more than there is"),
        (op(1) + b"\x86", "takes more than there is"),
        (op(1) + op(2) + b"\x87", "takes more than there is"),
        (b"R", "takes more than there is"),
        (b"Q", "takes more than there is"),
        (op(1) + b"b", "its pickle is damaged: IndexError"),
        (op(1) + b"t", "its pickle is damaged: IndexError: pop from empty"),
        (op(1) + op(1) + b"(\x86t", "takes more than there is"),
        (b"q\x00", "its pickle is damaged: IndexError"),
        (b"h\x00", "its pickle is damaged: KeyError: 0"),
        (b"j" + bytes(4), "its pickle is damaged: KeyError: 0"),
        (b"\xff", "its pickle is damaged: ValueError: at position 2, opcode b'.xff'"),
        (b"cos\nsyst\xffem\n", "its pickle is damaged: UnicodeDecodeError"),
        (b"cos\nsys\\Ftem\n", "its pickle is damaged: DeprecationWarning"),
        # References that are no storages.
        (op("0") + b"Q", NO_STORAGE),
        (op(("storage", "0")) + b"Q", NO_STORAGE),
        (op(["storage", name("torch.FloatStorage"), "0", "cpu", 6]) + b"Q", NO_STORAGE),
        (op(("module", name("torch.FloatStorage"), "0", "cpu", 6)) + b"Q", NO_STORAGE),
        (op((tensor(), name("torch.FloatStorage"), "0", "", 6)) + b"Q", NO_STORAGE),
        (op(("storage", "torch.FloatStorage", "0", "cpu", 6)) + b"Q", NO_STORAGE),
        (op(("storage", REBUILD, "0", "cpu", 6)) + b"Q", NO_STORAGE),
        (storage(key=0), NO_STORAGE),
        (storage(key="0" * 101), NO_STORAGE),
        (storage(numel=-6), NO_STORAGE),
        (storage(numel=6.0), NO_STORAGE),
        (storage(numel=True), NO_STORAGE),
        (storage(key="0" * 100), "it has no entry 'data/0{100}'"),
        (storage(key="../data.pkl"), "it has no entry 'data/../data.pkl'"),
        (storage(numel=5), "storage '0' has 24 bytes instead of 5 x 4"),
        (storage(numel=7), "storage '0' has 24 bytes instead of 7 x 4"),
        (
            storage(numel=2**60),
            "storage '0' has 24 bytes instead of 1152921504606846976",
        ),
        (storage(kind="Long"), "storage '0' has 24 bytes instead of 6 x 8"),
        # Tensors that do not lie in their storages.
        (call(REBUILD[1:-1].decode().replace("\n", ".")), "pickle is damaged: TypeErr"),
        (call("collections.OrderedDict", [("a", 1)]), "its pickle is damaged: TypeErr"),
        (
            call("torch._utils._rebuild_tensor_v2", "0", 0, (6,), (1,), False, {}),
            "a tensor without a storage",
        ),
        (call("torch._utils._rebuild_parameter", 1, True, {}), "parameter without a t"),
        (tensor((6,), ()), SIZE_AND_STRIDES + "has not one stride for each axis"),
        (tensor((), (1,)), SIZE_AND_STRIDES + "has not one stride for each axis"),
        (tensor([6], [1]), SIZE_AND_STRIDES + "has not one stride for each axis"),
        (tensor(6, 1), SIZE_AND_STRIDES + "has not one stride for each axis"),
        (tensor((1,) * 9, (1,) * 9), SIZE_AND_STRIDES + "has more than 8 axes"),
        (tensor((2, 3), (3, -1), 2), SIZE_AND_STRIDES + "has a size, stride or offset"),
        (tensor((-2, -3), (3, 1)), SIZE_AND_STRIDES + "has a size, stride or offset"),
        (tensor((2.0, 3), (3, 1)), SIZE_AND_STRIDES + "has a size, stride or offset"),
        (tensor((True, 3), (3, 1)), SIZE_AND_STRIDES + "has a size, stride or offset"),
        (tensor(offset=-1), SIZE_AND_STRIDES + "has a size, stride or offset"),
        (tensor(offset=None), SIZE_AND_STRIDES + "has a size, stride or offset"),
        (tensor(offset=1), "'0' takes 6 elements up to 7, but it has 6"),
        (tensor((), (), 6), "'0' takes 1 elements up to 7, but it has 6"),
        (tensor((2, 3), (4, 1)), "'0' takes 6 elements up to 7, but it has 6"),
        (tensor((7,), (1,)), "'0' takes 7 elements up to 7, but it has 6"),
        (tensor((7,), (0,)), "'0' takes 7 elements up to 1, but it has 6"),
        (tensor((2**40, 2**40), (0, 0)), "takes 1208925819614629174706176 elements"),
        (tensor((2,), (2**62,)), "takes 2 elements up to 4611686018427387905, but"),
        (tensor((0,), (2**62,)), "its pickle is damaged: ValueError: Maximum"),
        (tensor((0, 2**62), (1, 1)), "its pickle is damaged: ValueError: array is too"),
    ],
)
def test_refuses_pickles_that_make_no_sense(content, fault, path):
    with pytest.raises(ValueError, match=f"^`path` must be .* but .*{fault}"):
        read(path, Raw(content))


def test_a_hostile_pickle_changes_nothing_for_the_next_one(path):
    rebuild, calls = _state()
    for content in (
        REBUILD + op({"__code__": 1, "__defaults__": (1,)}) + b"b",
        name("argparse.Namespace") + b")\x81" + op({"__class__": 1, "x": 2}) + b"b",
        call("collections.OrderedDict") + op({"clear": 1, "__class__": 2}) + b"b",
    ):
        try:
            read(path, Raw(content))
        except ValueError as error:
            assert NOTHING_TO_SET in str(error)
    assert _state() == (rebuild, calls)
    assert Namespace() == Namespace({})
    assert read(path, tensor()).shape == (2, 3)


def _state():
    call_of = dict(torch_pickle._CALLS)
    codes = {key: value.__code__ for key, value in call_of.items()}
    return codes, {key: dict(vars(value)) for key, value in call_of.items()}


BOMBS = {
    "memo index": b"Nr" + struct.pack("<I", 2**32 - 1) + b"0",
    "byte array": b"\x96" + struct.pack("<Q", 2**40),
    "bytes": b"\x8e" + struct.pack("<Q", 2**40),
    "long": b"\x8b" + struct.pack("<I", 2**31 - 1),
    "text": b"X" + struct.pack("<I", 2**32 - 1),
    "storage": storage(numel=2**60),
    "expanded tensor": tensor((2**34,), (0,)),
    "empty tensor": tensor((2**62, 0, 2**62), (1, 1, 1)),
    "digits": b"I" + b"9" * 10**6 + b"\n",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_numbers_in_a_file_take_no_memory(bomb, path):
    write_torch(path, Raw(BOMBS[bomb]), {"0": SIX.tobytes()})
    tracemalloc.start()
    with pytest.raises(ValueError, match="`path` must be a checkpoint of PyTorch"):
        read_torch(path)
    assert tracemalloc.get_traced_memory()[1] < 5 * 2**20
    tracemalloc.stop()


def test_a_large_memo_index_is_just_a_name(path):
    content = op(5) + b"r" + struct.pack("<I", 2**32 - 1)
    tracemalloc.start()
    got = read(path, Raw(content))
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
    assert got == 5


def test_tensors_take_memory_only_when_they_are_used(path):
    zeros = bytes(2**25)
    write_torch(path, tensor((2**23,), (1,), numel=2**23), {"0": zeros})
    del zeros
    tracemalloc.start()
    got = read_torch(path)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
    assert got.shape == (2**23,)
    assert got[-1] == 0


def test_depth_does_not_end_the_process(path):
    lists = read(path, Raw(b"]" * 10**4 + b"a" * (10**4 - 1)))
    for _ in range(10**4 - 1):
        (lists,) = lists
    assert lists == []
    tuples = Raw(b")" + b"\x85" * 10**4)
    assert len(read(path, tuples)) == 1
    with pytest.raises(ValueError, match="refers to what is no storage"):
        read(path, Raw(tuples + b"Q"))
    with pytest.raises(ValueError, match="has a size, stride or offset that is no cou"):
        read(path, tensor((tuples,), (1,)))
    with pytest.raises(ValueError, match="refers to what is no storage"):
        read(path, storage(numel=tuples))


LAST = Raw(b"h\x64")  # gets the last of the tuples below


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (op({LAST: 1}), "a dict with keys other than texts and integers"),
        (b"}" + LAST + b"Ns", "a dict with keys other than texts and integers"),
        (LAST + b"Q", NO_STORAGE),
        (storage(key=LAST), NO_STORAGE),
        (storage(numel=LAST), NO_STORAGE),
        (tensor(size=LAST, strides=LAST), SIZE_AND_STRIDES + "has a size"),
        (tensor(offset=LAST), SIZE_AND_STRIDES + "has a size"),
        (name("argparse.Namespace") + LAST + b"\x81", NO_NAMESPACE),
        (LAST + LAST + b"R", NO_CALL),
        (LAST + LAST + b"b", NOTHING_TO_SET),
        (LAST, "ends with another than one object"),
    ],
)
def test_a_tuple_of_tuples_is_never_walked(content, fault, path):
    # Each holds the one before twice: to walk or hash the last takes 2**100 steps.
    tuples = b"".join(b"h%ch%c\x86q%c" % (i, i, i + 1) for i in range(100))
    with pytest.raises(ValueError, match=fault):
        read(path, Raw(b"()q\x00" + tuples + b"t" + content))


def test_objects_that_hold_themselves_are_read(path):
    got = read(path, Raw(b"}q\x00" + op("self") + b"h\x00s"))
    assert got["self"] is got
    got.clear()
    gc.collect()


def test_refuses_a_large_pickle(path, monkeypatch):
    write_torch(path, ["x" * 1000])
    monkeypatch.setattr(torch_zip, "MAX_INDEX_BYTES", 1000)
    with pytest.raises(ValueError, match="its entry 'data.pkl' takes 10.. bytes"):
        read_torch(path)


def test_every_cut_of_a_checkpoint_is_refused(path):
    whole = write_torch(path, {"w": tensor()}, {"0": SIX.tobytes()}).read_bytes()
    for length in range(0, len(whole), 3):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="`path` must be a checkpoint of PyTorch"):
            read_torch(path)


def test_any_byte_may_be_changed(path):
    content = {"w": tensor(), "args": Raw(name("argparse.Namespace") + b")\x81}b")}
    whole = write_torch(path, content, {"0": SIX.tobytes()}).read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= int(rng.integers(1, 256))
        path.write_bytes(changed)
        try:
            read_torch(path)
        except ValueError as error:
            refused += 1
            assert str(error).startswith("`path` must be a checkpoint of PyTorch")
    assert refused > len(whole) / 4
    assert list(path.parent.iterdir()) == [path]
