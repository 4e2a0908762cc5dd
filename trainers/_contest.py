"""Contests of speed: a process for each contestant, rounds in turn, medians, ratios."""

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WORKER = ROOT / "trainers" / "_contestants" / "worker.py"
PATIENCE = 300.0  # seconds until an answer
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Contestant:
    """Who takes part.

    Attributes:
        name: What the table calls it.
        module: The file of its module; `_contestants/worker.py` says what is in it.
        arguments: Of the module's `tasks`; they must fit into JSON.
        python: The Python to run it with.
    """

    name: str
    module: Path
    arguments: dict = field(default_factory=dict)
    python: str = sys.executable


@dataclass
class Contest:
    """What came out.

    Attributes:
        rounds: For each (contestant, task), what each round said: `items`, `seconds`,
            `cpu_seconds`, and `others`, the share of the core that others took.
        packages: For each contestant, the versions of its packages.
        paths: For each contestant, the tasks that each add a stage to the one before.
        missing: For each contestant that was left out, the packages it lacks.
        errors: What went wrong, for each contestant, or "contestant: task".
    """

    rounds: dict[tuple[str, str], list[dict]] = field(default_factory=dict)
    packages: dict[str, dict] = field(default_factory=dict)
    paths: dict[str, list[str]] = field(default_factory=dict)
    missing: dict[str, list[str]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)


def run_contest(
    contestants: Sequence[Contestant],
    rounds: int,
    seconds: float,
    seed: int = 0,
    tell: Callable[[str], None] = lambda text: None,
    patience: float = PATIENCE,
) -> Contest:
    """Runs every task of every contestant once in each round, in a random order.

    One works at a time, all on the same core; the others are stopped, so that nobody
    works ahead of its turn. A contestant that fails is out, the others go on.

    Args:
        contestants: Who takes part.
        rounds: How many rounds.
        seconds: How long a task works in a round, at least.
        seed: Of the order within the rounds.
        tell: Called with lines about the progress.
        patience: Seconds until a contestant that does not answer is out.

    Returns:
        What came out.
    """
    contest, workers = Contest(), {}
    try:
        for contestant in contestants:
            tell(f"Loading {contestant.name} ...")
            worker = _WorkerProcess(contestant, patience)
            workers[contestant.name] = worker
            _load(contest, contestant.name, worker)
        tasks = list(contest.rounds)
        start, order = time.monotonic(), random.Random(seed)
        for number in range(rounds):
            order.shuffle(tasks)
            for name, task in tasks:
                if (name, task) in contest.rounds:
                    _round(contest, name, task, workers[name], seconds)
            left = (time.monotonic() - start) / (number + 1) * (rounds - number - 1)
            tell(f"Round {number + 1} of {rounds} done, about {left:.0f} s left")
    finally:
        for worker in workers.values():
            worker.close()
    return contest


def _load(contest: Contest, name: str, worker: "_WorkerProcess") -> None:
    """Makes the tasks of a contestant ready, or notes why they are not."""
    try:
        said = worker.ask(do="load")
    except RuntimeError as error:
        contest.errors[name] = str(error)
        return
    if "missing" in said:
        contest.missing[name] = said["missing"]
        return
    contest.packages[name], contest.paths[name] = said["packages"], said["path"]
    for task in said["tasks"]:
        try:
            worker.ask(do="prepare", task=task)
        except RuntimeError as error:
            contest.errors[f"{name}: {task}"] = str(error)
            if worker.is_over():
                return
        else:
            contest.rounds[name, task] = []


def _round(contest, name: str, task: str, worker: "_WorkerProcess", seconds: float):
    """Runs one round of one task; a task that fails is out."""
    try:
        said = worker.ask(do="round", task=task, seconds=seconds)
    except RuntimeError as error:
        contest.errors[f"{name}: {task}"] = str(error)
        over = [key for key in contest.rounds if key[0] == name and worker.is_over()]
        for key in {*over, (name, task)}:
            del contest.rounds[key]
    else:
        contest.rounds[name, task].append(said)


class _WorkerProcess:
    """The process that a contestant is loaded in; its tasks run in forks of it."""

    def __init__(self, contestant: Contestant, patience: float):
        self._patience = patience
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115, `close` does
        environment = {**os.environ, **dict.fromkeys(ONE_THREAD, "1")}
        if contestant.python == sys.executable:  # it finds our packages as we did
            paths = (str(ROOT), os.environ.get("PYTHONPATH"))
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        arguments = json.dumps(contestant.arguments)
        self._process = subprocess.Popen(
            [contestant.python, WORKER, contestant.module, arguments, _core()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            bufsize=1,
            env=environment,
        )

    def ask(self, **request) -> dict:
        """Sends a request, and returns the answer.

        Raises:
            RuntimeError: If the answer is an error, or there is none.
        """
        process = self._process
        timer = threading.Timer(self._patience, process.kill)
        timer.start()
        try:
            process.stdin.write(json.dumps(request) + "\n")
            answer = process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        finally:
            timer.cancel()
        if not answer:
            raise RuntimeError(self._end())
        said = json.loads(answer)
        if "error" in said:
            raise RuntimeError(said["error"])
        return said

    def is_over(self) -> bool:
        """Whether the process has ended."""
        return self._process.poll() is not None

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._said):
            with suppress(BrokenPipeError):
                stream.close()

    def _end(self) -> str:
        """How the process ended, and its last words."""
        code = self._process.wait()
        self._said.seek(0)
        words = " | ".join(self._said.read().strip().splitlines()[-3:])
        return f"its process ended with exit code {code}. {words}".strip()


def _core() -> str:
    """The core that all contestants work on, or "" where none can be chosen."""
    if not hasattr(os, "sched_getaffinity"):
        return ""
    return str(max(os.sched_getaffinity(0)))


def rate(said: dict, clock: str) -> float:
    """Items a second in one round, by one of its clocks."""
    return said["items"] / said[clock]


def ratios(rounds: Sequence[dict], baseline: Sequence[dict], clock: str) -> list[float]:
    """The rate over that of the baseline in the same round, for each round."""
    return [
        rate(ours, clock) / rate(theirs, clock)
        for ours, theirs in zip(rounds, baseline, strict=True)
    ]


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
        - `rate`, items a second by `clock`, `wall_rate`, those by the clock on the
          wall, and `ratio`, to the baseline (None where it has no such task): each the
          median, p10 and p90 of the rounds;
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
                "ratio": theirs and spread(ratios(rounds, theirs, clock)),
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
