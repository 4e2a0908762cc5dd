"""What `benchmark --what=inference` leaves: tables, a JSON file and a picture."""

from pathlib import Path

from keras_deit.training.report import print_table
from trainers._contest import Contest
from trainers._contest_report import (
    OF_WHAT,
    optional_text,
    print_end,
    rate_text,
    ratio_texts,
    record_of,
    write_files,
)
from trainers._contest_summary import rate_ratio, summary

COLUMNS = (
    "engine",
    "keep",
    "GMACs",
    "images/s",
    "ms",
    "ratio (10 - 90 %)",
    "over keep 1 (10 - 90 %)",
    "others",
)
OVER_FIRST = "over the first"  # a column more, where there are several variants
WHOLE = 1.0  # the keep rate that others are compared with


def write_inference_report(
    contest: Contest, heading: dict, baseline: str, clock: str, output: Path
) -> None:
    """Prints a table for each variant and batch size, and writes the files.

    Args:
        contest: What came out.
        heading: What stands at the top of the file: `title`, `settings`, and `cases`,
            the `variant`, `keep_rate`, `batch_size` and `gmacs` of each task.
        baseline: The engine that the others are compared with, if it is there.
        clock: See `summary`.
        output: The JSON file; the picture has the same name with the ending .png.
    """
    names = ("variant", "keep_rate", "batch_size", "gmacs")
    cases = {
        task: {name: case[name] for name in names}
        for task, case in heading["cases"].items()
    }
    rows = rows_of(contest, cases, baseline, clock)
    heading = {**heading, "cases": cases}
    record = record_of(contest, heading, baseline, clock, rows)
    variants = ", ".join(dict.fromkeys(case["variant"] for case in cases.values()))
    title = f"{heading['title']}: {variants}"
    write_files(record, output, lambda path: _draw(rows, title, path))
    has_several = "," in variants
    columns = (*COLUMNS, OVER_FIRST) if has_several else COLUMNS
    for variant, number in dict.fromkeys((r["variant"], r["batch_size"]) for r in rows):
        title = (
            f"{heading['title']}: {variant}, batch {number}; "
            f"medians of {heading['settings']['rounds']} rounds"
        )
        mine = [r for r in rows if (r["variant"], r["batch_size"]) == (variant, number)]
        print_table(title, columns, [_cells(row)[: len(columns)] for row in mine])
    print("ms: of a batch")
    if record["baseline"]:
        print(f"ratio: of images/s to {baseline} at keep rate 1; {OF_WHAT}")
    print("over keep 1: of images/s to the same engine at keep rate 1, same batch size")
    if has_several:
        print(
            f"{OVER_FIRST}: of images/s to the first of {variants}, all else the same"
        )
    print("others: the share of the core that other programs took meanwhile")
    print_end(record, output)


def rows_of(contest: Contest, cases: dict, baseline: str, clock: str) -> list[dict]:
    """What is said of each task of each engine.

    Args:
        contest: What came out.
        cases: The `variant`, `keep_rate`, `batch_size` and `gmacs` of each task.
        baseline: The engine that the others are compared with, if it is there.
        clock: See `summary`.

    Returns:
        As `summary`, with the facts of the case, and

        - `ratio`, to the baseline with all tokens: the same variant and batch size at
          keep rate 1 (None where it has no such task);
        - `speed_up`, to the same engine with all tokens (None where it has no such
          task, and for that task itself);
        - `variant_ratio`, to the first variant in the same engine, at the same keep
          rate and batch size (None where that was not measured, and for the first).
    """
    whole = {
        (case["variant"], case["batch_size"]): task
        for task, case in cases.items()
        if case["keep_rate"] == WHOLE
    }

    def compared(row, name):
        """The rates over those that an engine has with all tokens, or None."""
        return over(row, name, whole.get((row["variant"], row["batch_size"])))

    def over(row, name, task):
        """The rates over those of an engine in a task, or None."""
        theirs = contest.rounds.get((name, task))
        return theirs and rate_ratio(row["rounds"], theirs, clock)

    def key(case, variant):
        return variant, case["keep_rate"], case["batch_size"]

    tasks = {key(case, case["variant"]): task for task, case in cases.items()}
    first = next(iter(tasks), (None,))[0]
    rows = []
    for row in summary(contest, None, clock):
        row = {**row, **cases[row["task"]]}
        is_whole = row["keep_rate"] == WHOLE
        row["ratio"] = compared(row, baseline)
        row["speed_up"] = None if is_whole else compared(row, row["contestant"])
        same = None if row["variant"] == first else tasks.get(key(row, first))
        row["variant_ratio"] = over(row, row["contestant"], same)
        rows.append(row)
    return rows


def _cells(row: dict) -> tuple[str, ...]:
    return (
        row["contestant"],
        f"{row['keep_rate']:g}",
        f"{row['gmacs']:.3g}",
        rate_text(row["rate"]["median"]),
        rate_text(row["microseconds"] * row["batch_size"] / 1e3),
        _ratio_text(row["ratio"]),
        _ratio_text(row["speed_up"]),
        optional_text(row["others"], ".0%"),
        _ratio_text(row["variant_ratio"]),
    )


def _ratio_text(ratio: dict | None) -> str:
    return "{} ({})".format(*ratio_texts(ratio, ".2f")) if ratio else ""


def curves_of(rows: list[dict]) -> dict[int, dict[str, list[tuple[float, float]]]]:
    """The points (GMACs, images/s) of each engine in rising order, by batch size."""
    curves: dict[int, dict[str, list]] = {}
    for row in sorted(rows, key=lambda row: (row["batch_size"], row["gmacs"])):
        of_size = curves.setdefault(row["batch_size"], {})
        point = (row["gmacs"], row["rate"]["median"])
        of_size.setdefault(row["contestant"], []).append(point)
    return curves


def _draw(rows: list[dict], title: str, path: Path) -> None:
    """Draws GMACs against images/s: a part for each batch size, a line an engine."""
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogFormatter

    curves = curves_of(rows)
    engines = dict.fromkeys(row["contestant"] for row in rows)
    styles = {
        engine: {"color": colormaps["tab20"](i % 20), "marker": "os^Dv"[i % 5]}
        for i, engine in enumerate(engines)
    }
    num_parts = max(1, len(curves))
    figure = Figure(figsize=(4 + 5 * num_parts, 5.5), layout="constrained")
    FigureCanvasAgg(figure)  # draws without a screen
    parts = figure.subplots(1, num_parts, squeeze=False)[0]
    lines = {}
    for axes, (size, of_size) in zip(parts, curves.items(), strict=False):
        for engine, points in of_size.items():
            lines[engine] = axes.plot(*zip(*points, strict=True), **styles[engine])[0]
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(LogFormatter())
        axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.4)))
        axes.set_xlabel("GMACs an image")
        axes.set_ylabel("images/s")
        axes.set_title(f"batches of {size}")
        axes.grid(visible=True, which="both", alpha=0.3)
    figure.suptitle(title)
    if lines:
        shown = {engine: lines[engine] for engine in engines}
        figure.legend(shown.values(), shown.keys(), loc="outside right center")
    figure.savefig(path, dpi=120)
