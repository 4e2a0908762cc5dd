"""What contests of steps leave, whose times are compared: --what=startup, softsplit."""

from pathlib import Path

from keras_deit.training.report import print_table
from trainers._contest import Contest
from trainers._contest_report import (
    MIB,
    OF_WHAT,
    optional_text,
    print_end,
    ratio_texts,
    record_of,
    write_files,
)
from trainers._contest_summary import rate_ratio, ratio, spread, summary

COLUMNS = ("contestant", "ms", "time, ratio (10 - 90 %)")
MEMORY_COLUMNS = ("peak MiB", "memory, ratio")


def write_step_report(
    contest: Contest, heading: dict, baseline: str, clock: str, output: Path
) -> None:
    """Prints a table for each task, and writes the JSON file and the picture beside it.

    Args:
        contest: What came out.
        heading: What stands at the top of the file: `title`, `settings`, `tasks`, how
            many items a step of each task has, and `with_memory`, whether the peak of
            memory is compared as well.
        baseline: The contestant that the others are compared with, if it is there.
        clock: See `summary`.
        output: The JSON file; the picture has the same name with the ending .png.
    """
    rows = rows_of(contest, heading["tasks"], baseline, clock)
    record = record_of(contest, heading, baseline, clock, rows)
    with_memory, title = heading["with_memory"], heading["title"]
    write_files(record, output, lambda path: _draw(rows, with_memory, title, path))
    columns = (*COLUMNS, *(MEMORY_COLUMNS if with_memory else ()), "others")
    for task in heading["tasks"]:
        mine = [row for row in rows if row["task"] == task]
        told = f"{title}: {task}; medians of {heading['settings']['rounds']} rounds"
        print_table(told, columns, [_cells(row, with_memory) for row in mine])
    if record["baseline"]:
        print(f"ratio: to {baseline}; {OF_WHAT}")
    if with_memory:
        print("peak MiB: the most memory until then, with the library")
    print("others: the share of the core that other programs took meanwhile")
    print_end(record, output)


def rows_of(contest: Contest, tasks: dict, baseline: str, clock: str) -> list[dict]:
    """What is said of each task of each contestant.

    Args:
        contest: What came out.
        tasks: How many items a step of each task has.
        baseline: The contestant that the others are compared with, if it is there.
        clock: See `summary`.

    Returns:
        As `summary`, and

        - `milliseconds` of a step, the median;
        - `time_ratio`, of the time to the baseline's (None where that has no such
          task);
        - `peak_bytes`, the median of the rounds, and `memory_ratio`, to the baseline's.
    """
    rows = []
    for row in summary(contest, baseline, clock):
        theirs = contest.rounds.get((baseline, row["task"]))
        # A time over theirs is their rate over this one.
        time_ratio = theirs and rate_ratio(theirs, row["rounds"], clock)
        memory = theirs and memory_ratio(row["rounds"], theirs)
        peak = spread(said["peak_bytes"] for said in row["rounds"])["median"]
        rows.append(
            {
                **row,
                "milliseconds": row["microseconds"] * tasks[row["task"]] / 1e3,
                "time_ratio": time_ratio,
                "peak_bytes": peak,
                "memory_ratio": memory,
            }
        )
    return rows


def memory_ratio(rounds: list[dict], baseline: list[dict]) -> dict[str, float]:
    """The ratio of the peaks of memory to those of a baseline, see `ratio`."""
    sides = (rounds, baseline)
    return ratio(*([said["peak_bytes"] for said in side] for side in sides))


def _cells(row: dict, with_memory: bool) -> tuple[str, ...]:
    time_ratio = row["time_ratio"]
    memory = (
        f"{row['peak_bytes'] / MIB:,.0f}",
        ratio_texts(row["memory_ratio"], ".2f")[0],
    )
    return (
        row["contestant"],
        _time_text(row["milliseconds"]),
        "{} ({})".format(*ratio_texts(time_ratio, ".2f")) if time_ratio else "",
        *(memory if with_memory else ()),
        optional_text(row["others"], ".0%"),
    )


def _time_text(milliseconds: float) -> str:
    """Milliseconds with at least two digits that count."""
    if milliseconds >= 10:
        return f"{milliseconds:,.0f}"
    return f"{milliseconds:.2g}"


def _draw(rows: list[dict], with_memory: bool, title: str, path: Path) -> None:
    """Draws the time of each contestant, a part for each task; and the memory."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    tasks = list(dict.fromkeys(row["task"] for row in rows))
    names = list(dict.fromkeys(row["contestant"] for row in rows))
    parts = [(task, "milliseconds", 1, "ms") for task in tasks]
    if with_memory and tasks:
        parts.append((tasks[-1], "peak_bytes", MIB, "peak of memory, MiB"))
    num_columns = 2
    num_rows = max(1, -(-len(parts) // num_columns))
    height = (0.8 + 0.35 * max(1, len(names))) * num_rows + 0.6
    figure = Figure(figsize=(12, height), layout="constrained")
    FigureCanvasAgg(figure)  # draws without a screen
    grid = figure.subplots(num_rows, num_columns, squeeze=False, sharey=True)
    places = grid.flatten()
    for axes, (task, value, unit, label) in zip(places, parts, strict=False):
        for row in (row for row in rows if row["task"] == task):
            length, name = row[value] / unit, row["contestant"]
            axes.barh(name, length, color=f"C{names.index(name)}")
            axes.text(length, name, f" {_time_text(length)}", va="center")
        axes.margins(x=0.15)
        axes.set_title(task, fontsize=10)
        axes.set_xlabel(label)
    for axes in places[len(parts) :]:
        axes.set_visible(False)
    if parts:
        places[0].invert_yaxis()  # all share it
    figure.suptitle(title, wrap=True)
    figure.savefig(path, dpi=120)
