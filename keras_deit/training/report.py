"""What a run leaves for people to look at."""

import csv
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from keras_deit._checks import check
from keras_deit._files import replacing
from keras_deit.training.evaluation import worst_classes

MAX_VIEWS, VIEWS_ACROSS = 16, 4
CELL_WIDTH = 200  # pixels that a small view is enlarged to, about
MARGIN, LINE, LETTER = 12, 20, 9  # pixels: between views; of a caption


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence]) -> None:
    """Prints a table; the first column is text, the others are aligned to the right."""
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    console = Console()
    if not console.is_terminal:  # a log has no width to fit into
        console.width = 120
    print(f"\n{title}")
    console.print(table)


def percent(share: float) -> str:
    """Writes a share in [0, 1] as a percentage, for instance "97.22 %"."""
    return f"{100 * share:.2f} %"


def print_scores(title: str, scores: dict[str, dict[str, float]]) -> None:
    """Prints what `evaluate` returned: a row for each head."""
    rows = [(h, percent(s["top1"]), percent(s["top5"])) for h, s in scores.items()]
    print_table(title, ("head", "top-1", "top-5"), rows)


def read_history(path: Path) -> dict[str, list[float]]:
    """Reads the numbers of each epoch from a run's `history.csv`.

    Args:
        path: The file. A cell may be empty, as of what is measured in some epochs only,
            and is NaN then. A row that lacks cells was cut off, as of a run that was
            killed, and is left out.

    Returns:
        The columns, all of one length.

    Raises:
        ValueError: If a cell holds something else than a number.
    """
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        columns = reader.fieldnames or ()
        rows = [row for row in reader if None not in row.values()]
    try:
        return {n: [float(row[n] or "nan") for row in rows] for n in columns}
    except ValueError as error:
        raise ValueError(f"{path} must hold numbers: {error}.") from error


def plot_curves(histories: dict[str, dict[str, list[float]]], path: Path) -> None:
    """Draws loss and accuracy over the epochs, training dashed, validation solid.

    Args:
        histories: For each run, the numbers of each epoch, as `read_history` returns.
        path: The PNG to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    FigureCanvasAgg(figure)  # draws without a screen
    loss_axes, accuracy_axes = figure.subplots(1, 2)
    for index, (run, history) in enumerate(histories.items()):
        accuracy = "fused_accuracy" if "fused_accuracy" in history else "accuracy"
        epochs = range(1, len(history["loss"]) + 1)
        for axes, name in ((loss_axes, "loss"), (accuracy_axes, accuracy)):
            color = f"C{index}"
            axes.plot(epochs, history[name], "--", color=color, alpha=0.6)
            axes.plot(epochs, history[f"val_{name}"], "-", color=color, label=run)
    for axes, label in ((loss_axes, "loss"), (accuracy_axes, "accuracy")):
        axes.set_xlabel("epoch")
        axes.set_ylabel(f"{label} (dashed: training, solid: validation)")
        axes.grid(alpha=0.3)
        axes.legend()
    accuracy_axes.set_ylim(0, 1.01)
    figure.savefig(path, dpi=120)


def write_per_class(confusion: Counter, class_names: Sequence[str], path: Path) -> None:
    """Writes a CSV with the accuracy of each class, in the order of the labels.

    Its columns are `class`, `images`, `top1` (a share; empty where there are no images)
    and `mistaken_for` (what the class was taken for most often, when not for itself).

    Args:
        confusion: Number of images by (label, decision), as `evaluate` counts them.
        class_names: The names of all classes.
        path: The file to write.

    Raises:
        ValueError: If there are more classes than names.
    """
    largest = max((max(pair) for pair in confusion), default=-1)
    check(
        largest < len(class_names),
        "`class_names` must name every class.",
        names=len(class_names),
        largest_label=largest,
    )
    images = Counter()
    for (label, _), number in confusion.items():
        images[label] += number
    mistakes = {
        score.label: class_names[score.mistaken_for]
        for score in worst_classes(confusion, len(class_names))
    }
    rows = [("class", "images", "top1", "mistaken_for")]
    for label, name in enumerate(class_names):
        count = images[label]
        top1 = confusion[label, label] / count if count else ""
        rows.append((name, count, top1, mistakes.get(label, "")))
    with (
        replacing(path) as partial,
        partial.open("w", newline="", encoding="utf-8") as file,
    ):
        csv.writer(file).writerows(rows)


def write_views(
    images: np.ndarray, labels: np.ndarray, class_names: Sequence[str], path: Path
) -> None:
    """Writes a PNG of training views, with the classes of its label below.

    A small view is enlarged by a whole number, so that its pixels stay squares. Below
    it stand the largest share of the label and the second, if that is more than what
    label smoothing gives to every class.

    Args:
        images: The views, uint8 (n, H, W, 3); the first 16 are shown.
        labels: Their labels, shares of classes (n, Y).
        class_names: The names of the Y classes.
        path: The file to write.

    Raises:
        ValueError: If there is no view, or the shapes do not fit together.
    """
    images, labels = np.asarray(images), np.asarray(labels)
    check(
        images.ndim == 4 and images.shape[-1] == 3 and images.dtype == np.uint8,
        "`images` must be uint8 (n, H, W, 3).",
        shape=images.shape,
        dtype=images.dtype.name,
    )
    check(
        labels.shape == (len(images), len(class_names)) and len(images) > 0,
        "`labels` must be (n, Y), for at least one view and for Y names of classes.",
        images=len(images),
        labels=labels.shape,
        names=len(class_names),
    )
    images = images[:MAX_VIEWS]
    scale = max(1, round(CELL_WIDTH / images.shape[2]))
    images = images.repeat(scale, axis=1).repeat(scale, axis=2)
    letters = images.shape[2] // LETTER
    captions = [_caption(label, class_names, letters) for label in labels[:MAX_VIEWS]]
    _draw_views(images, captions, path)


def _caption(label: np.ndarray, class_names: Sequence[str], letters: int) -> str:
    """The largest shares of a label, on one line if they fit."""
    first, *others = np.argsort(-label, kind="stable")[:2]
    smoothing = label.min() if len(label) > 2 else 0.0
    shown = [first] + [i for i in others if label[i] > smoothing + 1e-6]
    shares = [f" {label[i]:.2f}" for i in shown]
    names = [str(class_names[i]) for i in shown]
    line = ", ".join(name + share for name, share in zip(names, shares, strict=True))
    if len(line) <= letters:
        return line
    room = letters - len(shares[0]) - 1  # a comma may follow
    names = [n if len(n) <= room else n[: room - 1] + "…" for n in names]
    return ",\n".join(name + share for name, share in zip(names, shares, strict=True))


def _draw_views(images: np.ndarray, captions: Sequence[str], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    count, height, width, _ = images.shape
    columns = min(count, VIEWS_ACROSS)
    rows = -(-count // columns)
    lines = 1 + max(caption.count("\n") for caption in captions)
    cell_height, cell_width = height + LINE * lines + MARGIN, width + MARGIN
    size = (rows * cell_height - MARGIN, columns * cell_width - MARGIN)
    canvas = np.full((*size, 3), 255, np.uint8)
    # A power of two: inches times dots are whole pixels again.
    figure = Figure(figsize=(size[1] / 128, size[0] / 128), dpi=128)
    FigureCanvasAgg(figure)  # draws without a screen
    for index, (view, caption) in enumerate(zip(images, captions, strict=True)):
        top, left = index // columns * cell_height, index % columns * cell_width
        canvas[top : top + height, left : left + width] = view
        figure.text(
            left / size[1],
            1 - (top + height + 3) / size[0],
            caption,
            fontsize=8,
            verticalalignment="top",
            parse_math=False,  # a name may hold dollars
        )
    figure.figimage(canvas)  # pixel by pixel
    with replacing(path) as partial, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # of scripts it has not
        figure.savefig(partial, metadata={"Software": None})
