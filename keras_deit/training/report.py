"""What a run leaves for people to look at."""

import csv
from collections.abc import Sequence
from pathlib import Path


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
    """Reads the numbers of each epoch from a run's `history.csv`."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows] for name in rows[0]}


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
