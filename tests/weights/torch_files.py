"""PyTorch's checkpoints made by hand: neither PyTorch nor `pickle` writes them."""

import struct
import zipfile


class Raw(bytes):
    """Operations of a pickle that push one object."""


def op(value) -> Raw:
    """The operations that push a plain value, or are the value."""
    if isinstance(value, Raw):
        return value
    if isinstance(value, dict):
        return Raw(b"}(" + b"".join(op(k) + op(v) for k, v in value.items()) + b"u")
    if isinstance(value, list | tuple):
        start, end = (b"](", b"e") if isinstance(value, list) else (b"(", b"t")
        return Raw(start + b"".join(map(op, value)) + end)
    if isinstance(value, str):
        return Raw(b"X" + struct.pack("<I", len(value.encode())) + value.encode())
    if isinstance(value, float):
        return Raw(b"G" + struct.pack(">d", value))
    if isinstance(value, int) and not isinstance(value, bool):
        length = value.bit_length() // 8 + 1
        digits = value.to_bytes(length, "little", signed=True)
        return Raw(b"\x8a" + bytes([length]) + digits)
    return Raw({None: b"N", True: b"\x88", False: b"\x89"}[value])


def name(dotted: str) -> Raw:
    return Raw("c{}\n{}\n".format(*dotted.rsplit(".", 1)).encode())


def call(dotted: str, *arguments) -> Raw:
    return Raw(name(dotted) + op(arguments) + b"R")


def storage(key="0", kind="Float", numel=6) -> Raw:
    reference = ("storage", name(f"torch.{kind}Storage"), key, "cpu", numel)
    return Raw(op(reference) + b"Q")


def tensor(size=(2, 3), strides=(3, 1), offset=0, **of_storage) -> Raw:
    hooks = call("collections.OrderedDict")
    arguments = (storage(**of_storage), offset, size, strides, False, hooks)
    return call("torch._utils._rebuild_tensor_v2", *arguments)


def write_zip(path, entries, **options):
    with zipfile.ZipFile(path, "w", **options) as file:
        for entry, content in entries.items():
            file.writestr(entry, content)
    return path


def write_torch(path, content, storages=None, **entries):
    """Writes a checkpoint; `entries` are named below the root, such as `byteorder`."""
    below = {
        "data.pkl": b"\x80\x02" + op(content) + b".",
        "byteorder": b"little",
        **{f"data/{key}": value for key, value in (storages or {}).items()},
        **entries,
    }
    return write_zip(path, {f"archive/{entry}": below[entry] for entry in below})
