"""PyTorch's checkpoints, read without PyTorch and without running any of their code.

A checkpoint is a zip. `<root>/data.pkl` is a pickle of dicts, lists and numbers, in
which a tensor is a call that names its storage; `<root>/data/<key>` holds the bytes of
a storage. A pickle is a program, and Python's own unpickler does whatever it says.
Here a small machine knows the operations that `torch.save` writes and three calls, and
works on plain data only; all else is refused by name.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from pickletools import genops

import ml_dtypes
import numpy as np

from keras_deit.weights.torch_zip import TorchZip, UnreadableError, require

STORAGES = {
    "torch.DoubleStorage": np.dtype("<f8"),
    "torch.FloatStorage": np.dtype("<f4"),
    "torch.HalfStorage": np.dtype("<f2"),
    "torch.BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "torch.LongStorage": np.dtype("<i8"),
    "torch.IntStorage": np.dtype("<i4"),
    "torch.ShortStorage": np.dtype("<i2"),
    "torch.CharStorage": np.dtype("i1"),
    "torch.ByteStorage": np.dtype("u1"),
    "torch.BoolStorage": np.dtype("?"),
}
MAX_RANK = 8  # a convolution has four axes
# What `pickletools`, NumPy and the machine raise on a damaged pickle. Odd characters in
# a name are a warning, which may be made an error.
DAMAGE = (LookupError, TypeError, ValueError, Warning)


@dataclass
class Namespace:
    """What stands for an `argparse.Namespace`: its attributes, by name."""

    attributes: dict = field(default_factory=dict)


def read_torch(path: Path) -> object:
    """Reads what `torch.save` wrote, with an array for each tensor.

    An array is a read-only view of the file, which must stay as it is while the array
    is in use. Element i lies at offset + sum_k i_k * stride_k of its storage. Dicts of
    all kinds become plain ones.

    Args:
        path: A checkpoint of PyTorch 1.6 or later.

    Returns:
        The object that was saved: most often a dict.

    Raises:
        OSError: If the file cannot be opened.
        ValueError: If it is another kind of file, is damaged, or holds more than
            tensors, dicts, lists, tuples, numbers, texts and `argparse.Namespace`.

    Reference:
        PyTorch's `torch/_weights_only_unpickler.py` is such a machine as well.
    """
    try:
        return _Machine(TorchZip(path)).run()
    except DAMAGE as error:
        damage = f"its pickle is damaged: {type(error).__name__}: {error!s:.200}"
        fault = error if isinstance(error, UnreadableError) else damage
        raise ValueError(
            f"`path` must be a checkpoint of PyTorch, but {fault}. "
            f"Received: path={str(path)!r}."
        ) from error


@dataclass(frozen=True)
class _Global:
    """The name of a call or a type in a pickle; there is nothing behind it."""

    name: str


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: np.dtype
    start: int
    numel: int


class _Machine:
    """Runs a pickle on a stack. What it makes is plain data, which it never calls."""

    def __init__(self, archive: TorchZip):
        self.archive = archive
        self.stack: list = []
        self.marks: list[int] = []
        self.memo: dict[int, object] = {}  # so that its size is not the largest index

    def run(self) -> object:
        for operation, argument, _ in genops(self.archive.content("data.pkl")):
            name = operation.name
            require(name in _STEPS, f"its pickle uses {name}, which is not read")
            _STEPS[name](self, argument)
        require(len(self.stack) == 1, "its pickle ends with another than one object")
        return self.stack.pop()

    def push(self, value: object) -> None:
        self.stack.append(value)

    def pop(self, count: int) -> list:
        require(0 <= count <= len(self.stack), "its pickle takes more than there is")
        start = len(self.stack) - count
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def pop_to_mark(self) -> list:
        return self.pop(len(self.stack) - self.marks.pop())

    def push_integer(self, value: int) -> None:
        # Longer ones could be chosen such that all of them collide in a dict.
        require(-(2**63) <= value < 2**63, "it holds an integer of more than 64 bits")
        self.push(value)

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def get(self, index: int) -> None:
        self.push(self.memo[index])

    def extend(self, values: list) -> None:
        require(type(self.stack[-1]) is list, "its pickle appends to what is no list")
        self.stack[-1].extend(values)

    def update(self, values: list) -> None:
        require(
            type(self.stack[-1]) is dict, "its pickle sets items of what is no dict"
        )
        keys = values[::2]
        # The hash of a tuple of tuples of the same tuples takes forever.
        plain = all(type(key) in (str, int) for key in keys)
        require(plain, "it holds a dict with keys other than texts and integers")
        self.stack[-1].update(zip(keys, values[1::2], strict=True))

    def push_global(self, name: str) -> None:
        name = name.replace(" ", ".")
        known = name in _CALLS or name in STORAGES or name == "argparse.Namespace"
        require(known, f"it holds a global that is not read: {name!r:.100}")
        self.push(_Global(name))

    def reduce(self) -> None:
        called, arguments = self.pop(2)
        holds = isinstance(called, _Global) and type(arguments) is tuple
        require(holds and called.name in _CALLS, "its pickle calls what is no call")
        self.push(_CALLS[called.name](self, *arguments))

    def new(self) -> None:
        made, arguments = self.pop(2)
        known = isinstance(made, _Global) and made.name == "argparse.Namespace"
        require(known and type(arguments) is tuple, "its pickle makes what is no type")
        require(not arguments, "its pickle makes an argparse.Namespace of something")
        self.push(Namespace())

    def build(self) -> None:
        (state,) = self.pop(1)
        made = self.stack[-1]
        holds = type(made) in (Namespace, dict) and type(state) is dict
        require(holds, "its pickle sets attributes of what has none")
        if type(made) is Namespace:  # those of a dict are the `_metadata` of a module
            made.attributes = state

    def push_storage(self) -> None:
        (reference,) = self.pop(1)
        fault = "its pickle refers to what is no storage"
        require(type(reference) is tuple and len(reference) == 5, fault)
        word, kind, key, _, numel = reference
        require(type(word) is str and word == "storage", fault)
        require(isinstance(kind, _Global) and kind.name in STORAGES, fault)
        require(type(key) is str and len(key) <= 100 and _are_counts((numel,)), fault)
        start, size = self.archive.span(f"data/{key}")
        dtype = STORAGES[kind.name]
        require(
            numel * dtype.itemsize == size,
            f"storage {key!r} has {size} bytes instead of {numel} x {dtype.itemsize}",
        )
        self.push(_Storage(key, dtype, start, numel))

    def tensor(self, storage, offset, size, strides, *_) -> np.ndarray:
        require(isinstance(storage, _Storage), "it holds a tensor without a storage")
        what = f"a tensor of storage {storage.key!r}"
        plain = type(size) is type(strides) is tuple and len(size) == len(strides)
        require(plain, f"{what} has not one stride for each axis")
        require(len(size) <= MAX_RANK, f"{what} has more than {MAX_RANK} axes")
        counts = _are_counts((offset, *size, *strides))
        require(counts, f"{what} has a size, stride or offset that is no count")
        count = math.prod(size)
        # One more than the index of the last element; nothing, if there is none.
        steps = sum((n - 1) * stride for n, stride in zip(size, strides, strict=True))
        end = offset + steps + 1 if count else 0
        require(
            max(count, end) <= storage.numel,
            f"{what} takes {count} elements up to {end}, but it has {storage.numel}",
        )
        # Without elements the offset says nothing.
        place = storage.start + (offset * storage.dtype.itemsize if count else 0)
        steps = [stride * storage.dtype.itemsize for stride in strides]
        return np.ndarray(size, storage.dtype, self.archive.mapped, place, steps)

    def parameter(self, data, *_) -> np.ndarray:
        require(isinstance(data, np.ndarray), "it holds a parameter without a tensor")
        return data


def _are_counts(values: tuple) -> bool:
    return all(type(value) is int and value >= 0 for value in values)


_CALLS: dict[str, Callable] = {
    "collections.OrderedDict": lambda machine: {},
    "torch._utils._rebuild_tensor_v2": _Machine.tensor,
    "torch._utils._rebuild_parameter": _Machine.parameter,
}
_STEPS: dict[str, Callable] = {
    "PROTO": lambda m, _: None,
    "STOP": lambda m, _: None,
    **dict.fromkeys(("NONE", "BINFLOAT", "BINUNICODE"), _Machine.push),
    **dict.fromkeys(("BININT", "BININT1", "BININT2"), _Machine.push),
    "LONG1": _Machine.push_integer,
    "NEWTRUE": lambda m, _: m.push(True),
    "NEWFALSE": lambda m, _: m.push(False),
    "EMPTY_TUPLE": lambda m, _: m.push(()),
    "EMPTY_LIST": lambda m, _: m.push([]),
    "EMPTY_DICT": lambda m, _: m.push({}),
    "MARK": lambda m, _: m.marks.append(len(m.stack)),
    "TUPLE": lambda m, _: m.push(tuple(m.pop_to_mark())),
    "TUPLE1": lambda m, _: m.push(tuple(m.pop(1))),
    "TUPLE2": lambda m, _: m.push(tuple(m.pop(2))),
    "TUPLE3": lambda m, _: m.push(tuple(m.pop(3))),
    "APPEND": lambda m, _: m.extend(m.pop(1)),
    "APPENDS": lambda m, _: m.extend(m.pop_to_mark()),
    "SETITEM": lambda m, _: m.update(m.pop(2)),
    "SETITEMS": lambda m, _: m.update(m.pop_to_mark()),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), _Machine.put),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), _Machine.get),
    "GLOBAL": _Machine.push_global,
    "REDUCE": lambda m, _: m.reduce(),
    "NEWOBJ": lambda m, _: m.new(),
    "BUILD": lambda m, _: m.build(),
    "BINPERSID": lambda m, _: m.push_storage(),
}
