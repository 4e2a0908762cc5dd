"""What a contest leaves: a table, a JSON file and a picture."""

import json
import os
import platform
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from keras_deit._files import replacing
from keras_deit.training.report import print_table
from trainers._contest import Contest
from trainers._contest_summary import rate_ratio, summary

FORMAT = 1  # of the JSON file
MIB = 2**20
OF_WHAT = "of the medians, and the spread in the same round"
COLUMNS = {
    "rate": (
        "contestant",
        "task",
        "images/s",
        "us/image",
        "share",
        "others",
        "ratio",
        "10 - 90 %",
    ),
    "time": (
        "contestant",
        "ms/step",
        "images/s",
        "others",
        "time, ratio",
        "10 - 90 %",
    ),
}


def write_report(
    contest: Contest,
    heading: dict,
    baseline: str,
    clock: str,
    output: Path,
    compared: str = "rate",
) -> None:
    """Prints the table, and writes the JSON file and the picture beside it.

    Args:
        contest: What came out.
        heading: What stands at the top of the file: `title`, and what else is known.
        baseline: The contestant that the others are compared with, if it is there.
        clock: See `summary`.
        output: The JSON file; the picture has the same name with the ending .png.
        compared: What the ratios are of: "rate", for contestants that differ in the
            stages of their tasks, or "time", for contestants with one task, the step.
    """
    rows = summary(contest, baseline, clock)
    limit = None
    if compared == "rate":
        limit = what_limits(rows)
    else:
        _add_time_ratios(rows, contest, baseline, clock)
    record = {**record_of(contest, heading, baseline, clock, rows), "limits": limit}

    def draw(path):
        _draw(rows, contest.paths, heading["title"], path)

    write_files(record, output, draw)
    _print(record, output, compared)


def record_of(
    contest: Contest, heading: dict, baseline: str, clock: str, rows: list[dict]
) -> dict:
    """What the JSON file says: the heading, the circumstances, and the rows."""
    return {
        "format": FORMAT,
        **heading,
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "machine": machine(),
        "clock": clock,
        "baseline": baseline if baseline in contest.packages else None,
        "packages": contest.packages,
        "missing": contest.missing,
        "left_out": contest.left_out,
        "errors": contest.errors,
        "rows": rows,
    }


def write_files(record: dict, output: Path, draw: Callable[[Path], None]) -> None:
    """Writes the JSON file, and the picture that `draw` draws beside it."""
    with replacing(output) as partial:
        partial.write_text(json.dumps(record, indent=1) + "\n")
    with replacing(output.with_suffix(".png")) as partial:
        draw(partial)


def _add_time_ratios(rows: list[dict], contest: Contest, baseline: str, clock: str):
    """Adds `time_ratio` to the rows: the ratio of their times to the baseline's."""
    for row in rows:
        theirs = contest.rounds.get((baseline, row["task"]))
        # A time over theirs is their rate over this one.
        row["time_ratio"] = theirs and rate_ratio(theirs, row["rounds"], clock)


def what_limits(rows: list[dict]) -> dict | None:
    """The most expensive stage of the first contestant whose path is whole, if any."""
    staged = [row for row in rows if row["stage_share"] is not None]
    if not staged:
        return None
    mine = [row for row in staged if row["contestant"] == staged[0]["contestant"]]
    most = max(mine, key=lambda row: row["stage_share"])
    return {name: most[name] for name in ("contestant", "task", "stage_share")}


def _print(record: dict, output: Path, compared: str) -> None:
    """Prints the table, who is not in it, and what limits."""
    settings, baseline = record["settings"], record["baseline"]
    title = f"{record['title']}; medians of {settings['rounds']} rounds"
    if compared == "rate":
        cells = [_rate_cells(row) for row in record["rows"]]
    else:
        cells = [_time_cells(row, settings["batch_size"]) for row in record["rows"]]
    print_table(title, COLUMNS[compared], cells)
    if compared == "rate":
        print("share: of the last stage, what this one adds to those before")
    print("others: the share of the core that other programs took meanwhile")
    if baseline and compared == "rate":
        print(f"ratio: of images/s to {baseline}; {OF_WHAT}")
    elif baseline:
        print(f"time, ratio: of ms/step to {baseline}; {OF_WHAT}")
    print_end(record, output)
    limit = record["limits"]
    if limit:
        share = f"{limit['stage_share']:.0%}"
        print(
            f"What limits {limit['contestant']}: {limit['task']}, {share} of the time"
        )


def print_end(record: dict, output: Path) -> None:
    """Prints who is not in the table, and where the files are."""
    for name, packages in record["missing"].items():
        print(f"{name} is left out: not installed: {', '.join(packages)}")
    for name, reason in record["left_out"].items():
        print(f"{name} is left out: {reason}")
    print(f"Written: {output} and {output.with_suffix('.png')}")


def optional_text(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def rate_text(rate: float) -> str:
    """A rate with at least two digits that count."""
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"


def ratio_texts(ratio: dict | None, form: str) -> tuple[str, str]:
    """The ratio of the medians, and the spread of the ratios."""
    if not ratio:
        return "", ""
    whole, low, high = (
        format(ratio[name], form) for name in ("of_medians", "p10", "p90")
    )
    return whole, f"{low} - {high}"


def _rate_cells(row: dict) -> tuple[str, ...]:
    return (
        row["contestant"],
        row["task"],
        f"{row['rate']['median']:,.0f}",
        f"{row['microseconds']:,.0f}",
        optional_text(row["stage_share"], ".1%"),
        optional_text(row["others"], ".0%"),
        *ratio_texts(row["ratio"], ".2f"),
    )


def _time_cells(row: dict, batch_size: int) -> tuple[str, ...]:
    return (
        row["contestant"],
        f"{row['microseconds'] * batch_size / 1e3:,.0f}",
        rate_text(row["rate"]["median"]),
        optional_text(row["others"], ".0%"),
        *ratio_texts(row["time_ratio"], ".3f"),
    )


def _draw(rows: list[dict], paths: dict, title: str, path: Path) -> None:
    """Draws the time of an image for each contestant, cut into stages where known."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    FigureCanvasAgg(figure)  # draws without a screen
    axes = figure.subplots()
    colors: dict[str, str] = {}
    for name, stages in paths.items():
        mine = {row["task"]: row for row in rows if row["contestant"] == name}
        whole = mine.get(stages[-1]) if stages else None
        if whole is None:
            continue
        bar = {"all stages": 1.0}
        if whole["stage_share"] is not None:  # below 0, by chance, has no width
            bar = {task: max(0.0, mine[task]["stage_share"]) for task in stages}
        end = 0.0
        for task, share in bar.items():
            color = colors.setdefault(task, f"C{len(colors)}")
            width = share / sum(bar.values()) * whole["microseconds"]
            axes.barh(name, width, left=end, color=color)
            end += width
        rate = rate_text(whole["rate"]["median"])
        axes.text(end, name, f" {rate} a second", va="center")
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel("microseconds an image")
    axes.set_title(title, wrap=True)
    handles = [Patch(color=color, label=task) for task, color in colors.items()]
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=5)
    figure.savefig(path, dpi=120)


def machine() -> dict:
    """What the figures depend on."""
    model = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.is_file():
        names = [x for x in information.read_text().splitlines() if "model name" in x]
        model = names[0].partition(":")[2].strip() if names else model
    return {"processor": model, "cores": os.cpu_count(), "system": platform.platform()}
