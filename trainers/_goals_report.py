"""What `benchmark --what=all` leaves: one table of goals, a JSON file, a picture."""

from datetime import datetime
from pathlib import Path

from keras_deit.training.report import print_table
from trainers._contest_report import (
    FORMAT,
    MIB,
    OF_WHAT,
    machine,
    rate_text,
    write_files,
)
from trainers._contest_summary import rate_ratio
from trainers._goals import Goal
from trainers._step_report import memory_ratio

COLUMNS = ("measure", "ours", "peer", "ratio (10 - 90 %)", "goal", "")
COLORS = {"met": "C2", "not met": "C3", "not judged": "C0", "not measured": "0.6"}


def write_goals_report(
    goals: list[Goal],
    records: dict[str, dict],
    failed: dict[str, str],
    unwritten: dict[str, str],
    is_quick: bool,
    cores: str,
    output: Path,
) -> None:
    """Prints the table, and writes the JSON file and the picture beside it.

    Args:
        goals: The rows.
        records: What each part wrote.
        failed: Why parts failed, by name.
        unwritten: Of what the parts are that wrote nothing, by name.
        is_quick: Whether models are small, and engines few.
        cores: How many worked, "one" or "all".
        output: The JSON file; the picture has the same name with the ending .png.
    """
    rows = [judged(goal, records, unwritten, is_quick) for goal in goals]
    title = f"Goals of speed, {cores} core{'s' if cores == 'all' else ''}"
    title += ", small models" if is_quick else ""
    record = {
        "format": FORMAT,
        "what": "all",
        "title": title,
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "machine": machine(),
        "cores": cores,
        "parts": list(records),
        "errors": failed,
        "rows": rows,
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    write_files(record, output, lambda path: _draw(rows, title, path))
    print_table(title, COLUMNS, [_cells(row) for row in rows])
    print(f"ratio: {OF_WHAT}; input and steps of distillation take one core")
    if is_quick:
        print("The goals are for larger models: without --quick they are judged")
    reasons = {row["reason"]: [] for row in rows if row["reason"]}
    for row in rows:
        if row["reason"]:
            reasons[row["reason"]].append(row["measure"])
    for reason, measures in reasons.items():
        print(f"Not measured: {', '.join(measures)}: {reason}")
    print(f"Written: {output} and {output.with_suffix('.png')}")


def judged(
    goal: Goal, records: dict[str, dict], unwritten: dict[str, str], is_quick: bool
) -> dict:
    """What is said of a goal.

    Args:
        goal: The goal.
        records: What each part wrote.
        unwritten: Of what the parts are that wrote nothing, by name.
        is_quick: Whether models are small, and engines few.

    Returns:
        `measure`, `goal` and `figure`; `part`, where both rows are; `ours` and `peer`,
        the figures of both (a rate in images/s, a time in seconds, a memory in bytes);
        `ratio`, ours over the peer's, see `_contest_summary.ratio`; `verdict`, "met",
        "not met", "not judged" or "not measured"; and `reason`, why it was not.
    """
    row = {
        "measure": goal.measure,
        "figure": goal.figure,
        "goal": {"least": goal.least, "most": goal.most},
        **dict.fromkeys(("part", "ours", "peer", "ratio", "reason")),
        "verdict": "not measured",
    }
    if goal.never:
        return {**row, "reason": goal.never}
    pairs = {
        name: [_found(record, side) for side in (goal.ours, goal.peer)]
        for name, record in records.items()
        if record["what"] == goal.what
    }
    for name, (ours, peer) in pairs.items():
        if ours and peer:
            clock = records[name]["clock"]
            ratio = _ratio(goal.figure, ours["rounds"], peer["rounds"], clock)
            verdict = "met" if goal.is_met(ratio["of_medians"]) else "not met"
            items = records[name]["settings"].get("batch_size", 1)
            return {
                **row,
                "part": name,
                "ours": _figure(goal.figure, ours, items),
                "peer": _figure(goal.figure, peer, items),
                "ratio": ratio,
                "verdict": "not judged" if is_quick else verdict,
            }
    return {**row, "reason": _reason(goal, records, unwritten, is_quick)}


def _found(record: dict, side: dict) -> dict | None:
    """The row of a file that has all these values, if there is one."""
    for row in record["rows"]:
        if all(row.get(name) == value for name, value in side.items()):
            return row
    return None


def _ratio(figure: str, ours: list, peer: list, clock: str) -> dict[str, float]:
    """Our figure over the peer's."""
    if figure == "memory":
        return memory_ratio(ours, peer)
    # Our time over theirs is their rate over ours.
    sides = (ours, peer) if figure == "rate" else (peer, ours)
    return rate_ratio(*sides, clock)


def _figure(figure: str, row: dict, items: int) -> float:
    """The median of a row: images/s, the seconds of a step, or bytes."""
    if figure == "memory":
        return row["peak_bytes"]
    return (
        row["rate"]["median"] if figure == "rate" else row["microseconds"] / 1e6 * items
    )


def _reason(
    goal: Goal, records: dict[str, dict], unwritten: dict[str, str], is_quick: bool
) -> str:
    """Why a goal was not measured."""
    of_kind = [record for record in records.values() if record["what"] == goal.what]
    for side in (goal.ours, goal.peer):
        for record in of_kind:
            reason = _absence(record, side["contestant"])
            if reason:
                return reason
    broken = [name for name, what in unwritten.items() if what == goal.what]
    if broken:
        return f"failed: {', '.join(broken)}"
    if is_quick:
        return "--quick leaves it out"
    return "one of the two has no such model"


def _absence(record: dict, contestant: str) -> str | None:
    """What a file says of why a contestant, or a task of it, is not there."""
    if contestant in record["missing"]:
        return f"not installed: {', '.join(record['missing'][contestant])}"
    for notes in (record["left_out"], record["errors"]):
        for who, why in notes.items():
            if who == contestant or who.startswith(f"{contestant}: "):
                return f"{contestant}: {why}"
    return None


def _cells(row: dict) -> tuple[str, ...]:
    ratio = row["ratio"]
    return (
        row["measure"],
        *(_figure_text(row["figure"], row[side]) for side in ("ours", "peer")),
        "{of_medians:.2f} ({p10:.2f} - {p90:.2f})".format(**ratio) if ratio else "",
        _goal_text(row["goal"]),
        row["verdict"],
    )


def _figure_text(figure: str, value: float | None) -> str:
    if value is None:
        return ""
    if figure == "memory":
        return f"{value / MIB:,.0f} MiB"
    return f"{rate_text(value)} /s" if figure == "rate" else f"{value:.3g} s"


def _goal_text(goal: dict) -> str:
    if goal["most"] is None:
        return f">= {goal['least']:g}"
    return f"<= {goal['most']:g}"


def _draw(rows: list[dict], title: str, path: Path) -> None:
    """Draws each ratio over its goal, such that to the right of 1 is met."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(11, 1.6 + 0.26 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)  # draws without a screen
    axes = figure.subplots()
    names = [f"{row['measure']}  {_goal_text(row['goal'])}" for row in rows]
    places = range(len(rows))
    for place, row in zip(places, rows, strict=True):
        if not row["ratio"]:
            axes.text(1.02, place, "not measured", va="center", color="0.5", size=8)
            continue
        over = {n: _over_goal(ratio, row["goal"]) for n, ratio in row["ratio"].items()}
        color, ends = COLORS[row["verdict"]], [over["p10"], over["p90"]]
        axes.plot(ends, [place, place], color=color, alpha=0.5, linewidth=4)
        axes.plot(over["of_medians"], place, "o", color=color)
    axes.axvline(1.0, color="black", linewidth=1)
    axes.set_yticks(places, names, fontsize=8)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(visible=True, axis="x", alpha=0.3)
    axes.set_xlabel(
        "over the goal: right of 1 is met (of the medians, 10th to 90th percentile)"
    )
    axes.set_title(title)
    handles = [
        Line2D([], [], color=color, marker="o", linestyle="", label=verdict)
        for verdict, color in COLORS.items()
        if verdict in {row["verdict"] for row in rows} - {"not measured"}
    ]
    figure.legend(handles=handles, loc="outside lower right", ncols=2)
    figure.savefig(path, dpi=120)


def _over_goal(ratio: float, goal: dict) -> float:
    """How good a ratio is: above 1 is better than the goal."""
    return ratio / goal["least"] if goal["most"] is None else goal["most"] / ratio
