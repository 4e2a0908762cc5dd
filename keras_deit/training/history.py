"""The numbers of each epoch, in files that an interrupted run goes on with."""

import csv
import io
import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import tensorflow as tf

from keras_deit._files import replacing

CSV, JSONL, TENSORBOARD = "history.csv", "history.jsonl", "tensorboard"


class History(keras.callbacks.Callback):
    """Writes a row for each epoch to CSV, JSON lines and TensorBoard.

    Args:
        directory: The folder of the run.
        first_epoch: Epoch that the run begins or goes on with; what the files say of
            it and of later ones is dropped.
        extra: Called with the epoch, returns numbers to add to its row.
    """

    def __init__(self, directory: Path, first_epoch: int, extra: Callable[[int], dict]):
        super().__init__()
        self.directory = directory
        self.extra = extra
        self.rows = [r for r in read_rows(directory) if r["epoch"] < first_epoch]
        shutil.rmtree(directory / TENSORBOARD, ignore_errors=True)  # written anew
        self._board = tf.summary.create_file_writer(str(directory / TENSORBOARD))
        for row in self.rows:
            self._to_tensorboard(row)
        if self.rows:
            self._write()
        else:
            for name in (CSV, JSONL):
                (directory / name).unlink(missing_ok=True)

    def on_epoch_end(self, epoch, logs=None):
        row = {"epoch": epoch, **{k: float(v) for k, v in logs.items()}}
        self.rows.append(row | self.extra(epoch))
        self._write()
        self._to_tensorboard(self.rows[-1])

    def close(self) -> None:
        """Closes what TensorBoard reads."""
        self._board.close()

    def _write(self) -> None:
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        with replacing(self.directory / CSV) as path:
            path.write_text(table.getvalue())
        with replacing(self.directory / JSONL) as path:
            path.write_text("".join(json.dumps(row) + "\n" for row in self.rows))

    def _to_tensorboard(self, row: dict) -> None:
        with self._board.as_default():
            for name, value in row.items():
                if name != "epoch":
                    tf.summary.scalar(_board_name(name), value, step=row["epoch"])
        self._board.flush()


def _board_name(name: str) -> str:
    """Puts training and validation of one number side by side."""
    if name.startswith("val_"):
        return f"{name.removeprefix('val_')}/validation"
    return f"{name}/train"


def read_rows(directory: Path) -> list[dict]:
    """Reads the rows of a run's `history.jsonl`; none if there is no such file."""
    path = directory / JSONL
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def best_row(rows: Sequence[dict], monitor: str) -> dict | None:
    """Finds the first epoch in which a number was largest; None without rows."""
    finite = [row for row in rows if not math.isnan(row[monitor])]
    return max(finite, key=lambda row: row[monitor], default=None)
