"""A file from the web: resumed where it broke off, whole or not there."""

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from keras_deit._checks import check

TIMEOUT = 30  # seconds without an answer
MAX_BYTES = 4 * 2**30  # no published file is as large; a wrong server shall not fill up
CHUNK_BYTES = 2**16


def download(url: str, path: Path) -> Path:
    """Downloads what is to become a file, and goes on where an earlier try broke off.

    What arrives goes to "<path>.part", and stays there if the connection breaks. The
    next try asks for the rest only; where the server refuses that, it starts anew. A
    bar on standard error shows size, speed and the time that is left.

    Args:
        url: Where the file is. It must be https, and so must all it redirects to; only
            this very computer may be asked by http.
        path: The file that it is to become; its folder must be there.

    Returns:
        The whole file, "<path>.part". The caller verifies and renames it.

    Raises:
        ValueError: If `url` is not https.
        ConnectionError: If the server cannot be reached, refuses, redirects to what is
            not https, sends more than it said or than 4 GiB, or breaks off. The text
            says where to put the file by hand.
        OSError: If the file cannot be written.
    """
    check(_is_safe(url), "`url` must begin with 'https://'.", url=url)
    part = path.with_name(f"{path.name}.part")
    by_hand = f"fetch it elsewhere and put it at {path}."
    try:
        try:
            _fetch(url, part)
        except _WrongRangeError:
            part.unlink(missing_ok=True)
            _fetch(url, part)
    except _BadAnswerError as error:
        raise ConnectionError(f"{url} {error}. Try again, or {by_hand}") from error
    except (URLError, HTTPException, ConnectionError, TimeoutError) as error:
        reason = f"{type(error).__name__}: {error}"
        text = f"{url} could not be reached ({reason}): {by_hand}"
        raise ConnectionError(text) from error
    return part


@contextmanager
def only_one(path: Path) -> Iterator[None]:
    """Lets one process at a time work at a file; another one waits for its turn.

    The lock is `flock` on ".<name>.lock" beside the file: it is free again when its
    process ends, however that happens, so that none has to be removed by hand.

    Args:
        path: The file; its folder must be there, the file need not.
    """
    import fcntl  # not on Windows, where the rest of the package shall be importable

    with path.with_name(f".{path.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another process with {path.name}", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class _BadAnswerError(Exception):
    """The server answers, but does not deliver."""


class _WrongRangeError(HTTPException):
    """The server does not have the rest that was asked for."""


class _SafeRedirects(HTTPRedirectHandler):
    """Follows redirects, but never from https to something weaker."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        if not _is_safe(newurl):
            raise _BadAnswerError(f"redirects to {newurl}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _is_safe(url: str) -> bool:
    parts = urlsplit(url)
    own = parts.scheme == "http" and parts.hostname in ("localhost", "127.0.0.1")
    return own or (parts.scheme == "https" and bool(parts.hostname))


def _fetch(url: str, part: Path) -> None:
    """Completes a partial file."""
    held = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "keras_deit"}  # urllib's own is refused by some servers
    if held:
        headers["Range"] = f"bytes={held}-"
    opener = build_opener(_SafeRedirects)
    try:
        response = opener.open(Request(url, headers=headers), timeout=TIMEOUT)
    except HTTPError as error:
        error.close()
        if error.code != 416 or not held:
            raise
        if error.headers.get("Content-Range") == f"bytes */{held}":
            return  # there is no rest: the file was whole
        raise _WrongRangeError(str(error)) from error
    with response:
        start, total = _extent(response, held)
        _receive(response, part, start, total)


def _extent(response: HTTPResponse, held: int) -> tuple[int, int | None]:
    """Where the answer begins in the file, and how long the file is, if known."""
    if response.status != 206:
        return 0, response.length
    told = response.headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", told)
    if match is None or int(match[1]) != held:
        raise _WrongRangeError(f"asked for bytes from {held} on, got {told!r}")
    return held, int(match[2])


def _receive(response: HTTPResponse, part: Path, start: int, total: int | None) -> None:
    """Writes an answer to the partial file, and checks its size."""
    if response.headers.get_content_type() == "text/html":
        raise _BadAnswerError("sends a web page instead of a file")
    _check_size(total or 0, MAX_BYTES, part)
    limit = MAX_BYTES if total is None else total
    size = start
    with part.open("ab" if start else "wb") as file, _bar(part, start, total) as bar:
        while chunk := response.read(CHUNK_BYTES):
            size += len(chunk)
            _check_size(size, limit, part)
            file.write(chunk)
            bar(len(chunk))
    if total is not None and size < total:
        text = f"broke off after {size} of {total} bytes, which are kept"
        raise _BadAnswerError(text)


def _check_size(size: int, limit: int, part: Path) -> None:
    """Gives up a file that is larger than it may be, and what has come of it."""
    if size > limit:
        part.unlink(missing_ok=True)
        raise _BadAnswerError(f"sends more than {limit} bytes, so it is another file")


@contextmanager
def _bar(part: Path, start: int, total: int | None) -> Iterator[Callable[[int], None]]:
    """Shows how far it is; yields what is called with the number of new bytes."""
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task(part.stem, total=total, completed=start)
        yield partial(bars.advance, task)
