import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from keras_deit.weights import torch_zip
from keras_deit.weights.torch_zip import TorchZip, UnreadableError
from tests.weights.torch_files import write_zip

GOLDEN = Path(__file__).parents[1] / "golden"
PLAIN = {"a/data.pkl": b"pickle", "a/data/0": b"12345678"}
# Places in an entry of the list, which begins 46 bytes before the name.
VERSION, FLAGS, SIZE, PLACE = 6, 8, 24, 42


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.pth"


def patch(path, name, place, value):
    """Changes a field of an entry in the list of entries, at the end of the file."""
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.rindex(name) - 46 + place, value)
    path.write_bytes(data)
    return path


def test_finds_entries_below_the_root(path):
    archive = TorchZip(write_zip(path, PLAIN))
    # Each entry has a header of 30 bytes and its name: 30 + 10 + 6 + 30 + 8 = 84.
    assert archive.span("data.pkl") == (40, 6)
    assert archive.span("data/0") == (84, 8)
    assert archive.content("data/0") == b"12345678"
    assert not archive.mapped.flags.writeable


def test_entries_may_be_padded_where_they_lie():
    # PyTorch brings the data to multiples of 64 bytes, and the list says nothing of it.
    path = GOLDEN / "containers" / "tiny.pth"
    with zipfile.ZipFile(path) as file:
        assert all(not entry.extra for entry in file.infolist())
        contents = {name: file.read(name) for name in file.namelist()}
    archive = TorchZip(path)
    for name, content in contents.items():
        assert archive.content(name.removeprefix("tiny/")) == content
    assert archive.span("data/0")[0] % 64 == 0


def test_names_of_entries_do_not_matter(path, tmp_path):
    odd = {"../../pwned": b"1", "/etc/x": b"2", "a/data/\n": b"3", "a/b/data": b"4"}
    archive = TorchZip(write_zip(path, {**odd, **PLAIN}))
    assert archive.content("data/\n") == b"3"
    assert archive.content("data.pkl") == b"pickle"
    assert list(tmp_path.iterdir()) == [path]


def test_a_crc_may_be_wrong(path):
    write_zip(path, PLAIN)
    assert TorchZip(patch(path, b"a/data/0", 16, 0)).content("data/0") == b"12345678"


@pytest.mark.parametrize(
    ("start", "fault"),
    [
        (b"", "it is empty"),
        (b"<!DOCTYPE html><html>", "it is no zip and starts with b'<!DOCTYPE html'"),
        (b"\x1f\x8b\x08\x00", r"it is no zip and starts with b'\\x1f"),
        (b"\x80\x02}q\x00.", "it is a bare pickle"),
        (torch_zip.LEGACY_START + b".", "container of PyTorch before 1.6; load it"),
        (b"PK\x03\x04", "it is cut or damaged: File is not a zip file"),
    ],
)
def test_other_kinds_of_files_are_told_apart(start, fault, path):
    path.write_bytes(start)
    with pytest.raises(UnreadableError, match=fault):
        TorchZip(path)


@pytest.mark.parametrize("size", [4, 60, 110, 160, 170])
def test_refuses_a_cut_file(size, path):
    data = write_zip(path, PLAIN).read_bytes()
    path.write_bytes(data[:size])
    with pytest.raises(UnreadableError, match="it is cut or damaged: File is not"):
        TorchZip(path)


@pytest.mark.parametrize("start", [b"PK\x01\x02", b"PK\x05\x06"])
def test_refuses_a_damaged_list_of_entries(start, path):
    data = write_zip(path, PLAIN).read_bytes()
    path.write_bytes(data.replace(start, b"PK\x07\x08"))
    with pytest.raises(UnreadableError, match="it is cut or damaged"):
        TorchZip(path)


def test_refuses_a_list_of_entries_that_would_begin_before_the_file(path):
    locator = b"PK\x06\x07" + struct.pack("<IQI", 0, 0, 1)
    end = b"PK\x05\x06" + bytes(18)
    path.write_bytes(b"PK\x03\x04" + locator + end)
    with pytest.raises(UnreadableError, match="it is cut or damaged"):
        TorchZip(path)


def test_refuses_entries_of_a_later_kind_of_zip_and_names_that_are_no_text(path):
    patch(write_zip(path, PLAIN), b"a/data/0", VERSION, 99)
    with pytest.raises(UnreadableError, match="damaged: zip file version 9.9"):
        TorchZip(path)
    data = write_zip(path, {**PLAIN, "a/è": b""}).read_bytes()
    path.write_bytes(data.replace("è".encode(), b"\xff\xff"))
    with pytest.raises(UnreadableError, match="damaged: 'utf-8' codec can't decode"):
        TorchZip(path)


def test_refuses_two_entries_of_one_name(path):
    with zipfile.ZipFile(path, "w") as file, pytest.warns(UserWarning, match="Dupl"):
        for name in ("a/data.pkl", "a/data/0", "a/data/0"):
            file.writestr(name, b"1")
    with pytest.raises(UnreadableError, match="two of its entries have one name"):
        TorchZip(path)


@pytest.mark.parametrize("names", [["a/x"], ["data.pkl"], ["a/data.pkl", "b/data.pkl"]])
def test_refuses_anything_but_one_root(names, path):
    with pytest.raises(UnreadableError, match="[02] of its entries are a data.pkl"):
        TorchZip(write_zip(path, dict.fromkeys(names, b"1")))


def test_the_byte_order_is_little_where_it_is_not_said(path):
    TorchZip(write_zip(path, PLAIN))
    TorchZip(write_zip(path, {**PLAIN, "a/byteorder": b"little"}))
    TorchZip(write_zip(path, {**PLAIN, "b/byteorder": b"big"}))


@pytest.mark.parametrize("order", [b"big", b"", b"little "])
def test_refuses_another_byte_order(order, path):
    with pytest.raises(UnreadableError, match=f"its byte order is b'{order.decode()}'"):
        TorchZip(write_zip(path, {**PLAIN, "a/byteorder": order}))


def test_refuses_an_entry_that_is_not_there(path):
    with pytest.raises(UnreadableError, match="it has no entry 'data/1'"):
        TorchZip(write_zip(path, PLAIN)).span("data/1")


def test_refuses_a_compressed_entry_before_it_takes_memory(path):
    bomb = {**PLAIN, "a/data/0": bytes(2**25)}
    write_zip(path, bomb, compression=zipfile.ZIP_DEFLATED)
    tracemalloc.start()
    with pytest.raises(UnreadableError, match="'data.pkl' is compressed"):
        TorchZip(path).content("data.pkl")
    with pytest.raises(UnreadableError, match="'data/0' is compressed"):
        TorchZip(path).content("data/0")
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_refuses_an_encrypted_entry(path):
    archive = TorchZip(patch(write_zip(path, PLAIN), b"a/data/0", FLAGS, 1))
    with pytest.raises(UnreadableError, match="'data/0' is compressed, which PyT"):
        archive.span("data/0")


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (SIZE, 10**6),
        (SIZE, 2**32 - 1),
        (PLACE, 1),
        (PLACE, 10**6),
        (PLACE, 2**31),
    ],
)
def test_refuses_an_entry_outside_of_the_file(place, value, path):
    write_zip(path, PLAIN)
    whole = path.stat().st_size - TorchZip(path).span("data/0")[0]
    archive = TorchZip(patch(path, b"a/data/0", place, value))
    with pytest.raises(UnreadableError, match="'data/0' does not lie in the file"):
        archive.span("data/0")
    # The bytes after it, up to the end of the file, are in the file; one more is not.
    assert TorchZip(patch(write_zip(path, PLAIN), b"a/data/0", SIZE, whole))
    assert TorchZip(path).span("data/0")[1] == whole
    archive = TorchZip(patch(path, b"a/data/0", SIZE, whole + 1))
    with pytest.raises(UnreadableError, match="'data/0' does not lie in the file"):
        archive.span("data/0")


def test_refuses_an_entry_that_does_not_begin_as_one(path):
    data = bytearray(write_zip(path, PLAIN).read_bytes())
    place = data.index(b"a/data/0") - 30
    assert data[place : place + 4] == b"PK\x03\x04"
    data[place + 3] = 5
    path.write_bytes(data)
    with pytest.raises(UnreadableError, match="'data/0' does not lie in the file"):
        TorchZip(path).span("data/0")


def test_refuses_an_entry_before_the_file(path):
    write_zip(path, PLAIN)
    # `zipfile` adds what the list lies before the place that is given for it: here
    # the last 100 bytes of the file, in which a header of an entry is made to lie.
    data = path.read_bytes()
    place = struct.unpack("<I", data[-6:-2])[0]
    header = b"PK\x03\x04" + bytes(26)
    data = data[:place] + bytes(500) + data[place:-6]
    data += struct.pack("<IH", place + 500 + 2000, 0)
    path.write_bytes(data)
    # Counted from the end of the file, -2000 + offset is a place in those zeros.
    offset = 2000 - len(data) + place + 100
    data = bytearray(data)
    data[place + 100 : place + 130] = header
    struct.pack_into("<I", data, data.rindex(b"a/data/0") - 46 + PLACE, max(offset, 0))
    path.write_bytes(data)
    archive = TorchZip(path)
    assert archive._entries["a/data/0"].header_offset < 0
    with pytest.raises(UnreadableError, match="'data/0' does not lie in the file"):
        archive.span("data/0")


def test_refuses_a_long_list_of_entries_before_it_takes_memory(path, monkeypatch):
    write_zip(path, {**PLAIN, **{f"a/data/{i}": b"" for i in range(1, 2000)}})
    TorchZip(path)
    monkeypatch.setattr(torch_zip, "MAX_INDEX_BYTES", 2**16)
    tracemalloc.start()
    with pytest.raises(UnreadableError, match=r"its list of entries takes 1\d{5} byte"):
        TorchZip(path)
    assert tracemalloc.get_traced_memory()[1] < 2**18
    tracemalloc.stop()


def test_gives_the_content_of_small_entries_only(path, monkeypatch):
    write_zip(path, {**PLAIN, "a/data/0": bytes(300)})
    monkeypatch.setattr(torch_zip, "MAX_INDEX_BYTES", 300)
    assert TorchZip(path).content("data/0") == bytes(300)
    monkeypatch.setattr(torch_zip, "MAX_INDEX_BYTES", 299)
    assert TorchZip(path).span("data/0")[1] == 300
    with pytest.raises(UnreadableError, match="its entry 'data/0' takes 300 bytes"):
        TorchZip(path).content("data/0")


def test_is_open_no_longer_than_it_is_read(path):
    archive = TorchZip(write_zip(path, PLAIN))
    view = archive.mapped[84:92]
    del archive
    path.unlink()
    np.testing.assert_array_equal(view, np.frombuffer(b"12345678", np.uint8))
