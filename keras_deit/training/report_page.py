"""A page of runs: one file for a browser, which needs nothing else."""

import os
from collections.abc import Sequence
from pathlib import Path

from keras_deit._checks import check
from keras_deit._files import replacing
from keras_deit.training.report_comparison import page_of_runs
from keras_deit.training.report_markup import GENERATOR
from keras_deit.training.report_record import read_run, run_names
from keras_deit.training.report_single import page_of_run


def write_report(runs: Sequence[str | Path], path: str | Path) -> None:
    """Writes a page of one run, or of several side by side.

    The page is one file that loads nothing; the same folders give the same bytes. A run
    that goes on or died has a page too, which says what is missing.

    Args:
        runs: Folders of runs, each once.
        path: The file to write. An earlier report is replaced, anything else is not.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If there is no run, one is given twice, a folder holds no run or a
            file of it cannot be read, or `path` is something else than a report.
    """
    path = Path(path)
    records = [read_run(Path(run)) for run in runs]
    folders = [record.path for record in records]
    check(
        len(folders) == len(set(folders)) > 0,
        "Give at least one run, and each once.",
        runs=[str(run) for run in runs],
    )
    _check_replaceable(path)
    named = dict(zip(run_names(folders), records, strict=True))
    text = page_of_runs(named) if len(named) > 1 else page_of_run(*named.popitem())
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        # A name of a file may hold bytes that are no text.
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")


def _check_replaceable(path: Path) -> None:
    if not os.path.lexists(path):
        return
    start = b""
    if path.is_file():
        with path.open("rb") as file:
            start = file.read(1000)
    check(
        start.startswith(b"<!DOCTYPE html>") and GENERATOR.encode() in start,
        "Only an earlier report is replaced: choose another file.",
        path=str(path),
    )
