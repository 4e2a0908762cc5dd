"""Contests of who is ready first: every measurement is a process of its own."""

import json
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from trainers._contest import (
    ONE_THREAD,
    PATIENCE,
    ROOT,
    Contest,
    Contestant,
    core_of_all,
)
from trainers._contestants.worker import busy_seconds

TASKS = ("import", "build", "import and build")


def run_startup(
    contestants: Sequence[Contestant],
    rounds: int,
    seconds: float,
    seed: int = 0,
    tell: Callable[[str], None] = lambda text: None,
    patience: float = PATIENCE,
    all_cores: bool = False,
) -> Contest:
    """Starts every contestant once in each round, in a random order, anew each time.

    A first start of each, which fills the caches of files and of compiled Python, does
    not count. A contestant is a script, run with the JSON of its arguments, which
    answers with a line of JSON: `packages`, and for each of `TASKS` but the last
    `seconds`, `cpu_seconds` and `peak_bytes`, the most memory of the process so far; or
    `missing`. One that fails is out, the others go on.

    Args:
        contestants: Who takes part.
        rounds: How many rounds.
        seconds: Of no meaning here: a start takes as long as it takes.
        seed: Of the order within the rounds.
        tell: Called with lines about the progress.
        patience: Seconds until a process that does not answer is out.
        all_cores: Whether they work on all cores, with as many threads as they like.

    Returns:
        What came out: three tasks for each contestant, of one item each.
    """
    contest, order = Contest(), random.Random(seed)
    for number in range(rounds + 1):
        ready = [c for c in contestants if number == 0 or c.name in contest.packages]
        if number:
            order.shuffle(ready)
        for contestant in ready:
            said = _start(contest, contestant, patience, all_cores)
            _note(contest, contestant.name, said, is_first=number == 0)
        tell(f"Round {number} of {rounds} done" if number else "Started all once")
    return contest


def _note(contest: Contest, name: str, said: dict | None, is_first: bool) -> None:
    """Adds what a start said to the contest; without it, its contestant is out."""
    keys = [(name, task) for task in TASKS]
    if said is None:
        contest.packages.pop(name, None)
        for key in keys:
            contest.rounds.pop(key, None)
    elif is_first:
        contest.packages[name], contest.paths[name] = said["packages"], []
        contest.rounds.update({key: [] for key in keys})
    else:
        for task, round_of_task in _rounds_of(said).items():
            contest.rounds[name, task].append(round_of_task)


def _rounds_of(said: dict) -> dict[str, dict]:
    """What a start says of each task; the last is the sum of the others."""
    first, second = (said[task] for task in TASKS[:-1])
    whole = {name: first[name] + second[name] for name in ("seconds", "cpu_seconds")}
    whole["peak_bytes"] = second["peak_bytes"]
    return {
        task: {"items": 1, **own, "others": said["others"]}
        for task, own in zip(TASKS, (first, second, whole), strict=True)
    }


def _start(
    contest: Contest, contestant: Contestant, patience: float, all_cores: bool
) -> dict | None:
    """Starts a process; None, and a note in the contest, if it comes to nothing."""
    cores = "" if all_cores else core_of_all()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    if contestant.python == sys.executable:  # it finds our packages as we did
        found = filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
        environment["PYTHONPATH"] = os.pathsep.join(found)
    if not all_cores:
        environment.update(dict.fromkeys(ONE_THREAD, "1"))
    arguments = json.dumps(contestant.arguments)
    command = [contestant.python, str(contestant.module), arguments, cores]
    before, start = _work(cores), time.perf_counter()
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=patience
        )
    except subprocess.TimeoutExpired:
        contest.errors[contestant.name] = f"no answer in {patience:g} seconds"
        return None
    elapsed, after = time.perf_counter() - start, _work(cores)
    if done.returncode != 0:
        words = " | ".join(done.stderr.strip().splitlines()[-3:])
        contest.errors[contestant.name] = (
            f"its process ended with exit code {done.returncode}. {words}".strip()
        )
        return None
    said = json.loads(done.stdout.splitlines()[-1])
    if "missing" in said:
        contest.missing[contestant.name] = said["missing"]
        return None
    num_cores = os.cpu_count() if all_cores else 1
    said["others"] = None
    if None not in (before, after):
        said["others"] = max(0.0, after - before) / elapsed / num_cores
    return said


def _work(cores: str) -> float | None:
    """Seconds that the core, or all of them, have worked for others than our own."""
    busy = busy_seconds(cores)
    ours = resource.getrusage(resource.RUSAGE_CHILDREN)
    return None if busy is None else busy - ours.ru_utime - ours.ru_stime
