"""The index of a teacher cache: what its folder holds, read without trust."""

import hashlib
import json
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path

from keras_deit._checks import check
from keras_deit.distillation.logit_codec import LogitCodec

FORMAT = 1
INDEX = "index.json"
FINGERPRINT_BYTES = 8

_FRAME_BYTES = 16  # of a TFRecord: its length and two checksums
_MOST = 2**31 - 1  # of any number in an index


@dataclass(frozen=True)
class Shard:
    """Steps of one epoch that lie in one file, one record for each step.

    Attributes:
        epoch: Number of the epoch, from 0.
        first_step: Number of its first step in the epoch, from 0.
        steps: How many steps it has.
    """

    epoch: int
    first_step: int
    steps: int

    @property
    def name(self) -> str:
        """Name of its file."""
        return f"epoch-{self.epoch:05}-step-{self.first_step:07}.tfrecord"


def shards_of(header: dict, epoch: int) -> Iterator[Shard]:
    """Yields the shards of an epoch, in order."""
    steps, most = header["steps_per_epoch"], header["shard_steps"]
    for first in range(0, steps, most):
        yield Shard(epoch, first, min(most, steps - first))


def whole_epochs(header: dict, entries: Container[str]) -> int:
    """Counts the epochs, from 0 on, all whose shards are among the names `entries`."""
    epoch = 0
    while all(shard.name in entries for shard in shards_of(header, epoch)):
        epoch += 1
    return epoch


def shard_bytes(header: dict, shard: Shard) -> int:
    """Returns the size of a shard's file in bytes; all records have one size."""
    payload = header["batch_size"] * codec_of(header).bytes_per_view
    return shard.steps * (_FRAME_BYTES + FINGERPRINT_BYTES + payload)


def codec_of(header: dict) -> LogitCodec:
    """Returns how the logits of a cache are stored."""
    num_classes = len(header["class_names"])
    return LogitCodec(header["keep_logits"], num_classes, header["temperature"])


def checked_header(header: dict) -> dict:
    """Returns a header as it is read back from JSON.

    Args:
        header: "views" (a flat dict of what determines views and batches), "dataset"
            (a digest), "teacher" ("digest" and "name"), "keep_logits", "temperature",
            "class_names", "batch_size", "steps_per_epoch" and "shard_steps" (most steps
            in a shard).

    Raises:
        ValueError: If a field is missing, unknown or of the wrong kind.
        TypeError: If a value cannot be written as JSON.
    """
    header = _as_json(header)
    names = [*_HEADER_RULES, "keep_logits", "temperature"]
    rule = f"The header must have the fields {sorted(names)}."
    is_dict = isinstance(header, dict)
    received = sorted(header) if is_dict else header
    check(is_dict and set(header) == set(names), rule, header=received)
    for name, (rule, holds) in _HEADER_RULES.items():
        check(holds(header[name]), f"`{name}` must be {rule}.", **{name: header[name]})
    codec_of(header)
    return header


def read_index(folder: Path) -> dict:
    """Reads the index of a teacher cache.

    Returns:
        "format", "header", "facts" and "shards", all checked: the name, steps and size
        of each shard are those that its header and its place imply.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If the folder is no cache, or one of a newer format; if the index is
            damaged.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {str(folder)!r}.")
    is_cache = (folder / INDEX).is_file()
    check(is_cache, f"A teacher cache must have an {INDEX!r}.", path=str(folder))
    try:
        index = json.loads((folder / INDEX).read_bytes())
        rule = "The index must have a whole number as `format`."
        check(_is_number(_get(index, "format"), 1), rule, index=type(index).__name__)
    except (ValueError, RecursionError) as error:
        raise _damaged(folder, error) from error
    check(
        index["format"] <= FORMAT,
        f"The teacher cache must have a format of at most {FORMAT}: it was made by a "
        "newer version of keras_deit.",
        path=str(folder),
        format=index["format"],
    )
    try:
        return _checked_index(index)
    except ValueError as error:
        raise _damaged(folder, error) from error


def differences(cached: dict, now: dict) -> list[str]:
    """Names what differs between two headers, as "seed: 0 in the cache, 1 now".

    The name of the teacher is none of it: its digest says which teacher it is.
    """
    cached, now = _flat(_as_json(cached)), _flat(_as_json(now))
    found = []
    for key in {**cached, **now}:
        pair = cached.get(key, _ABSENT), now.get(key, _ABSENT)
        if pair[0] != pair[1]:
            where, then, today = _first_difference(key[1], *pair)
            found.append(f"{where}: {then} in the cache, {today} now")
    return list(dict.fromkeys(found))


def fault_of_size(path: Path, size: int) -> str | None:
    """Says what is wrong with the size of a file, None if nothing is."""
    if not path.is_file():
        return "it is missing"
    found = path.stat().st_size
    return None if found == size else f"it has {found} bytes, not {size}"


def sha256_of(path: Path) -> str:
    """Returns the SHA-256 of a file, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Absent:
    def __repr__(self):
        return "nothing"


_ABSENT = _Absent()


def _flat(header: dict) -> dict[tuple[str, str], object]:
    """All that is compared; a view's field may be called like one of the header."""
    whole = {**header, "teacher": header["teacher"]["digest"]}
    rest = {("header", name): whole[name] for name in whole if name != "views"}
    return {("views", name): value for name, value in whole["views"].items()} | rest


def _first_difference(name: str, cached, now) -> tuple[str, str, str]:
    """What to show of a difference: of long lists their lengths or one entry."""
    if not (isinstance(cached, list) and isinstance(now, list)):
        return name, repr(cached), repr(now)
    if len(cached) != len(now):
        return f"number of {name}", repr(len(cached)), repr(len(now))
    place = next(i for i in range(len(now)) if cached[i] != now[i])
    return f"{name}[{place}]", repr(cached[place]), repr(now[place])


def _as_json(value):
    return json.loads(json.dumps(value, allow_nan=False))


def _get(container, name: str):
    return container.get(name) if isinstance(container, dict) else None


def _is_number(value, least: int) -> bool:
    return type(value) is int and least <= value <= _MOST


def _is_sha256(value) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= _HEX


def _are_names(value) -> bool:
    is_list = isinstance(value, list) and len(value) > 0
    return is_list and all(isinstance(name, str) for name in value)


_HEX = set("0123456789abcdef")
_COUNT = ("a whole number of at least 1", lambda value: _is_number(value, 1))
_HEADER_RULES = {
    "views": ("a dict", lambda value: isinstance(value, dict)),
    "dataset": ("a string", lambda value: isinstance(value, str)),
    "teacher": (
        "a dict with the strings 'digest' and 'name'",
        lambda value: (
            isinstance(_get(value, "digest"), str)
            and isinstance(_get(value, "name"), str)
        ),
    ),
    "class_names": ("a list of strings", _are_names),
    "batch_size": _COUNT,
    "steps_per_epoch": _COUNT,
    "shard_steps": _COUNT,
}


def _checked_index(index: dict) -> dict:
    header = checked_header(index.get("header"))
    facts, shards = index.get("facts"), index.get("shards")
    check(isinstance(facts, dict), "`facts` must be a dict.", facts=facts)
    check(isinstance(shards, dict), "`shards` must be a dict.", shards=shards)
    for name, entry in shards.items():
        _check_entry(header, name, entry)
    return {"format": FORMAT, "header": header, "facts": facts, "shards": shards}


def _check_entry(header: dict, name: str, entry: object) -> None:
    """Refuses a shard that this header cannot have: so no name leads elsewhere."""
    epoch, first = _get(entry, "epoch"), _get(entry, "first_step")
    numbers = _is_number(epoch, 0) and _is_number(first, 0)
    check(
        numbers
        and first < header["steps_per_epoch"]
        and first % header["shard_steps"] == 0,
        f"The shard {name!r} must have an epoch and a first step of the header's.",
        epoch=epoch,
        first_step=first,
    )
    steps = min(header["shard_steps"], header["steps_per_epoch"] - first)
    shard = Shard(epoch, first, steps)
    implied = {"steps": shard.steps, "bytes": shard_bytes(header, shard)}
    received = {name: entry.get(name) for name in implied}
    rule = f"The shard {shard.name!r} must have that name and {implied}."
    check(name == shard.name and received == implied, rule, name=name, **received)
    rule = f"The shard {name!r} must have a SHA-256 of 64 hex digits."
    check(_is_sha256(entry.get("sha256")), rule, sha256=entry.get("sha256"))


def _damaged(folder: Path, error: Exception) -> ValueError:
    return ValueError(
        f"The index of the teacher cache {str(folder)!r} is damaged; delete the folder "
        f"and make the cache again. {error}"
    )
