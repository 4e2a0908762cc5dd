"""The container of PyTorch's checkpoints: a zip whose entries are not compressed."""

import io
import struct
import zipfile
from pathlib import Path

import numpy as np

# A thousand tensors take 0.1 MB of pickle, and as much of the zip's list of entries;
# what Python makes of either is up to a hundred times as large.
MAX_INDEX_BYTES = 2 * 2**20
LEGACY_START = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
# What `zipfile` raises on a damaged list of entries; NotImplementedError stands for a
# later version of the format.
ZIP_DAMAGE = (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error)


class UnreadableError(ValueError):
    """What is wrong with a file, as the end of a sentence."""


def require(holds: bool, fault: str) -> None:
    """Raises `UnreadableError(fault)` unless `holds`."""
    if not holds:
        raise UnreadableError(fault)


class TorchZip:
    """A checkpoint, mapped, and where its entries lie in it.

    Nothing is extracted, and no CRC is checked, since PyTorch may leave them out.

    Args:
        path: A zip as PyTorch writes it, with entries `<root>/data.pkl` and others.

    Raises:
        OSError: If the file cannot be opened.
        UnreadableError: If it is another kind of file, damaged, or of another byte
            order.
    """

    def __init__(self, path: Path):
        with _FrugalFile(path) as file:
            _check_start(file.read(len(LEGACY_START)))
            entries = _list_entries(file)
            self.mapped = np.memmap(file, np.uint8, "r")
        self._entries = {entry.filename: entry for entry in entries}
        require(len(self._entries) == len(entries), "two of its entries have one name")
        roots = [name[:-9] for name in self._entries if name.endswith("/data.pkl")]
        require(len(roots) == 1, f"{len(roots)} of its entries are a data.pkl")
        self._root = roots[0]
        if f"{self._root}/byteorder" in self._entries:
            order = self.content("byteorder")
            require(order == b"little", f"its byte order is {order[:20]!r}")

    def content(self, name: str) -> bytes:
        """All bytes of an entry that is small.

        Args:
            name: What the entry is called below the root.

        Raises:
            UnreadableError: If there is no such entry, or it is large or compressed.
        """
        start, size = self.span(name)
        require(size <= MAX_INDEX_BYTES, f"its entry {name!r} takes {size} bytes")
        return self.mapped[start : start + size].tobytes()

    def span(self, name: str) -> tuple[int, int]:
        """Where in `mapped` an entry begins, and its size in bytes.

        Args:
            name: What the entry is called below the root.

        Raises:
            UnreadableError: If there is no such entry, or it is compressed.
        """
        entry = self._entries.get(f"{self._root}/{name}")
        require(entry is not None, f"it has no entry {name!r}")
        plain = entry.compress_type == zipfile.ZIP_STORED and not entry.flag_bits & 1
        require(plain, f"its entry {name!r} is compressed, which PyTorch never does")
        place, size = entry.header_offset, entry.file_size
        # The header at the entry itself may be longer than the one in the list.
        header = self.mapped[place:][:30].tobytes().ljust(30, b"\0")
        signature, *lengths = struct.unpack("<4s22x2H", header)
        start = place + 30 + sum(lengths)
        whole = place >= 0 and start + size <= len(self.mapped)
        whole = whole and signature == b"PK\x03\x04"
        require(whole, f"its entry {name!r} does not lie in the file")
        return start, size


class _FrugalFile(io.FileIO):
    """A file for `zipfile`, which reads the list of all entries at one go."""

    def read(self, size: int = -1) -> bytes:
        require(size <= MAX_INDEX_BYTES, f"its list of entries takes {size} bytes")
        return super().read(size)


def _check_start(start: bytes) -> None:
    """Tells by the first bytes what else a file may be."""
    require(start != b"", "it is empty")
    require(
        start != LEGACY_START,
        "it is in the container of PyTorch before 1.6; "
        "load it with a newer PyTorch and save it again",
    )
    require(start[:1] != b"\x80", "it is a bare pickle")
    require(start[:4] == b"PK\x03\x04", f"it is no zip and starts with {start!r}")


def _list_entries(file: _FrugalFile) -> list[zipfile.ZipInfo]:
    try:
        return zipfile.ZipFile(file).infolist()
    except ZIP_DAMAGE as error:
        raise UnreadableError(f"it is cut or damaged: {error}") from error
