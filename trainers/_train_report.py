"""What `benchmark --what=train` leaves: a table, a JSON file and a picture."""

from pathlib import Path

from keras_deit.training.report import print_table
from trainers._contest import Contest
from trainers._contest_report import (
    MIB,
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
    "contestant",
    "step",
    "images/s",
    "ratio (10 - 90 %)",
    "of it",
    "peak MiB",
    "others",
)


def write_train_report(
    contest: Contest, heading: dict, baseline: str, clock: str, output: Path
) -> None:
    """Prints the table, and writes the JSON file and the picture beside it.

    Args:
        contest: What came out.
        heading: What stands at the top of the file: `title`, `settings`, and `cases`,
            the `teacher` and the `feed` of each task.
        baseline: The contestant that the others are compared with, if it is there.
        clock: See `summary`.
        output: The JSON file; the picture has the same name with the ending .png.
    """
    rows = rows_of(contest, heading["cases"], baseline, clock)
    record = record_of(contest, heading, baseline, clock, rows)
    write_files(record, output, lambda path: _draw(rows, heading["title"], path))
    settings = heading["settings"]
    title = f"{heading['title']}; medians of {settings['rounds']} rounds"
    print_table(title, COLUMNS, [_cells(row) for row in rows])
    if settings["teacher"] in {case["teacher"] for case in heading["cases"].values()}:
        print(f"of it, teacher: the share of the time that {settings['teacher']} takes")
    print("of it, input: the share of the time that files take or delay, over memory")
    print("peak MiB: the most memory so far, with libraries unless it is a GPU's")
    print("others: the share of the cores that other programs took meanwhile")
    if record["baseline"]:
        print(f"ratio: of images/s to the same step of {baseline}; {OF_WHAT}")
    for name in contest.packages.keys() - {row["contestant"] for row in rows}:
        if not any(key.partition(":")[0] == name for key in contest.errors):
            print(f"{name} is left out: it has no such models")
    print_end(record, output)


def rows_of(contest: Contest, cases: dict, baseline: str, clock: str) -> list[dict]:
    """What is said of each task of each contestant.

    Both shares compare a step with that of the same contestant from which one thing is
    missing, and are 1 minus the time without it over the time with it, at least 0. For
    input that is the whole price of files over memory: waiting for the next batch, and,
    where input is made by the processor that also takes the step, the work that it
    takes away. To time the wait alone would miss the latter, which on a CPU is nearly
    all of it.

    Args:
        contest: What came out.
        cases: The `teacher` and the `feed` of each task.
        baseline: The contestant that the others are compared with, if it is there.
        clock: See `summary`.

    Returns:
        As `summary`, with the facts of the case, and

        - `teacher_share`, the share of the step that the live teacher takes, for steps
          from memory with one (None otherwise);
        - `input_share`, that of files, for steps from files (None otherwise);
        - `peak_bytes`, the most of all rounds.
    """
    tasks = {(case["teacher"], case["feed"]): task for task, case in cases.items()}

    def share(row, teacher, feed):
        """The share of what such a step lacks, or None."""
        without = contest.rounds.get((row["contestant"], tasks.get((teacher, feed))))
        slower = without and rate_ratio(row["rounds"], without, clock)
        names = {"of_medians": "of_medians", "p10": "p90", "p90": "p10"}
        return slower and {
            name: max(0.0, 1 - slower[other]) for name, other in names.items()
        }

    rows = []
    for row in summary(contest, baseline, clock):
        teacher, feed = (cases[row["task"]][name] for name in ("teacher", "feed"))
        is_taught = teacher is not None and feed == "memory"
        rows.append(
            {
                **row,
                "teacher": teacher,
                "feed": feed,
                "teacher_share": share(row, None, "memory") if is_taught else None,
                "input_share": share(row, teacher, "memory")
                if feed == "files"
                else None,
                "peak_bytes": max(said["peak_bytes"] for said in row["rounds"]),
            }
        )
    return rows


def _cells(row: dict) -> tuple[str, ...]:
    shares = [
        f"{row[f'{what}_share']['of_medians']:.0%} {what}"
        for what in ("teacher", "input")
        if row[f"{what}_share"]
    ]
    return (
        row["contestant"],
        row["task"],
        _rate_text(row["rate"]["median"]),
        "{} ({})".format(*ratio_texts(row["ratio"], ".2f")) if row["ratio"] else "",
        *(shares or [""]),
        f"{row['peak_bytes'] / MIB:,.0f}",
        optional_text(row["others"], ".0%"),
    )


def _rate_text(rate: float) -> str:
    """A rate, also one below 1, with at least two digits that count."""
    return rate_text(rate) if rate >= 1 else f"{rate:.2g}"


def _draw(rows: list[dict], title: str, path: Path) -> None:
    """Draws images/s, and the peak of memory, of each step of each contestant."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height = max(4.0, 1.5 + 0.3 * len(rows))
    figure = Figure(figsize=(12, height), layout="constrained")
    FigureCanvasAgg(figure)  # draws without a screen
    rates, peaks = figure.subplots(1, 2, sharey=True)
    colors = {task: f"C{i}" for i, task in enumerate({r["task"]: 0 for r in rows})}
    for row in rows:
        name, color = f"{row['contestant']}: {row['task']}", colors[row["task"]]
        rate, peak = row["rate"]["median"], row["peak_bytes"] / MIB
        rates.barh(name, rate, color=color)
        rates.text(rate, name, f" {_rate_text(rate)}", va="center")
        peaks.barh(name, peak, color=color)
        peaks.text(peak, name, f" {peak:,.0f}", va="center")
    rates.invert_yaxis()
    for axes, label in ((rates, "images/s"), (peaks, "peak of memory, MiB")):
        axes.margins(x=0.15)
        axes.set_xlabel(label)
    figure.suptitle(title, wrap=True)
    figure.savefig(path, dpi=120)
