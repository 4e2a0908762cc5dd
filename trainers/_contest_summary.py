"""What the rounds of a contest say: rates, ratios, medians and their spread."""

import statistics
from collections.abc import Iterable, Sequence

from trainers._contest import Contest


def rate(said: dict, clock: str) -> float:
    """Items a second in one round, by one of its clocks."""
    return said["items"] / said[clock]


def rate_ratio(
    rounds: Sequence[dict], baseline: Sequence[dict], clock: str
) -> dict[str, float]:
    """The ratio of the rates to those of a baseline, see `ratio`."""
    return ratio(*([rate(said, clock) for said in side] for side in (rounds, baseline)))


def ratio(values: Sequence[float], baseline: Sequence[float]) -> dict[str, float]:
    """The ratio to a baseline that was measured in the same rounds.

    Returns:
        `of_medians`, the ratio of the medians; `p10` and `p90`, percentiles of the
        ratios of each round (interpolated).
    """
    medians = [statistics.median(side) for side in (values, baseline)]
    paired = spread(
        ours / theirs for ours, theirs in zip(values, baseline, strict=True)
    )
    return {
        "of_medians": medians[0] / medians[1],
        "p10": paired["p10"],
        "p90": paired["p90"],
    }


def spread(values: Iterable[float]) -> dict[str, float]:
    """The median, and the 10th and 90th percentile (interpolated)."""
    ordered = sorted(values)

    def percentile(share):
        place = share * (len(ordered) - 1)
        low, rest = int(place), place % 1
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + rest * (ordered[high] - ordered[low])

    return {"median": percentile(0.5), "p10": percentile(0.1), "p90": percentile(0.9)}


def stage_times(times: Sequence[float]) -> list[float]:
    """What each stage of a path adds, from the times of tasks that hold all before."""
    return [now - before for before, now in zip([0.0, *times], times, strict=False)]


def summary(contest: Contest, baseline: str | None, clock: str) -> list[dict]:
    """What is said of each task of each contestant.

    Args:
        contest: What came out.
        baseline: The contestant that the others are compared with, if any.
        clock: "cpu_seconds", what the contestant itself worked, or "seconds", of the
            clock on the wall.

    Returns:
        For each task of each contestant:

        - `contestant` and `task`, their names;
        - `rate`, items a second by `clock`, and `wall_rate`, those by the clock on the
          wall: the median, p10 and p90 of the rounds;
        - `ratio`, of the rate to the baseline's, see `ratio` (None where that has no
          such task);
        - `microseconds`, one over the median rate;
        - `stage_share`, what this stage adds, over the time of the last task of the
          path (None beside the path, or if a task of the path failed);
        - `others`, the median share of the core that others took, None if unknown;
        - `rounds`, what each round said.
    """
    rows = []
    for (name, task), rounds in contest.rounds.items():
        theirs = contest.rounds.get((baseline, task))
        others = [said["others"] for said in rounds]
        speed = spread(rate(said, clock) for said in rounds)
        rows.append(
            {
                "contestant": name,
                "task": task,
                "rate": speed,
                "wall_rate": spread(rate(said, "seconds") for said in rounds),
                "microseconds": 1e6 / speed["median"],
                "stage_share": None,
                "ratio": theirs and rate_ratio(rounds, theirs, clock),
                "others": None if None in others else statistics.median(others),
                "rounds": rounds,
            }
        )
    for name, path in contest.paths.items():
        mine = {row["task"]: row for row in rows if row["contestant"] == name}
        if path and all(task in mine for task in path):
            times = [mine[task]["microseconds"] for task in path]
            for task, added in zip(path, stage_times(times), strict=True):
                mine[task]["stage_share"] = added / times[-1]
    return rows
