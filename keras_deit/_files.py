"""Files that are whole or not there."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp


def existing_file(path: str | Path) -> Path:
    """Returns the path of a file.

    Raises:
        FileNotFoundError: If there is none.
        IsADirectoryError: If it is a folder.
    """
    if Path(path).is_dir():
        raise IsADirectoryError(f"{str(path)!r} is a folder, not a file.")
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no file {str(path)!r}.")
    return Path(path)


@contextmanager
def unfinished(folder: Path) -> Iterator[Path]:
    """Yields a hidden folder inside `folder` to work in; it is gone afterwards.

    What is to stay is moved out of it, once it is whole. If something fails, the
    folders that were made for it are gone as well.

    Args:
        folder: Where the finished files will lie; made if missing.

    Raises:
        OSError: If `folder` cannot be made or written.
    """
    made = [p for p in (folder, *folder.absolute().parents) if not p.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    workshop = Path(mkdtemp(prefix=".unfinished-", dir=folder))
    try:
        yield workshop
    except BaseException:
        shutil.rmtree(workshop)
        for parent in made:
            parent.rmdir()
        raise
    shutil.rmtree(workshop, ignore_errors=True)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields where to write the file that becomes `path`, once it is whole.

    The place has the same ending, since some writers look at it. If something fails,
    `path` is what it was before.

    Args:
        path: The file to make or replace; its folder must be there.
    """
    partial = path.with_name(f".partial-{path.name}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
