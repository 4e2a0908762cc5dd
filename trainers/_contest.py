"""Contests of speed: a process for each contestant, rounds in turn."""

import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Sequence
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
        peers: Whom of `_peers.PEERS` it needs.
    """

    name: str
    module: Path
    arguments: dict = field(default_factory=dict)
    python: str = sys.executable
    peers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """Who is to be measured, and how.

    Attributes:
        title: What the table is called.
        clock: See `_contest_summary.summary`.
        contestants: Who takes part.
        facts: What else belongs at the top of the file.
        all_cores: Whether they work on all cores, each with as many threads as it
            likes, or on one with one thread.
        left_out: Who takes no part, and why.
        errors: What went wrong before it began, for each contestant, or "contestant:
            task".
        starts_anew: Whether what is measured is the start of a process: see
            `_startup.run_startup`.
    """

    title: str
    clock: str
    contestants: Sequence[Contestant]
    facts: dict = field(default_factory=dict)
    all_cores: bool = False
    left_out: dict[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    starts_anew: bool = False


@dataclass
class Contest:
    """What came out.

    Attributes:
        rounds: For each (contestant, task), what each round said: `items`, `seconds`,
            `cpu_seconds`, `others`, the share of the core that others took, and
            `peak_bytes`, the most memory so far.
        packages: For each contestant, the versions of its packages.
        paths: For each contestant, the tasks that each add a stage to the one before.
        missing: For each contestant that was left out, the packages it lacks.
        left_out: Who else was left out, a contestant or "contestant: task", and why.
        errors: What went wrong, for each contestant, or "contestant: task".
    """

    rounds: dict[tuple[str, str], list[dict]] = field(default_factory=dict)
    packages: dict[str, dict] = field(default_factory=dict)
    paths: dict[str, list[str]] = field(default_factory=dict)
    missing: dict[str, list[str]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)


def run_contest(
    contestants: Sequence[Contestant],
    rounds: int,
    seconds: float,
    seed: int = 0,
    tell: Callable[[str], None] = lambda text: None,
    patience: float = PATIENCE,
    all_cores: bool = False,
    tasks: Collection[str] | None = None,
) -> Contest:
    """Runs every task of every contestant once in each round, in a random order.

    One works at a time, on the same core unless `all_cores`; the others are stopped, so
    that nobody works ahead of its turn. A contestant that fails is out, the others go
    on.

    Args:
        contestants: Who takes part.
        rounds: How many rounds.
        seconds: How long a task works in a round, at least.
        seed: Of the order within the rounds.
        tell: Called with lines about the progress.
        patience: Seconds until a contestant that does not answer is out.
        all_cores: Whether they work on all cores, with as many threads as they like.
        tasks: What of theirs is measured; None for all.

    Returns:
        What came out.
    """
    contest, workers = Contest(), {}
    try:
        for contestant in contestants:
            worker = _WorkerProcess(contestant, patience, all_cores)
            workers[contestant.name] = worker
            worker.tell(do="load")  # all at once: that is not measured
        for name, worker in workers.items():
            tell(f"Loading {name} ...")
            _load(contest, name, worker, tasks)
        keys = list(contest.rounds)
        start, order = time.monotonic(), random.Random(seed)
        for number in range(rounds):
            order.shuffle(keys)
            for name, task in keys:
                if (name, task) in contest.rounds:
                    _round(contest, name, task, workers[name], seconds)
            left = (time.monotonic() - start) / (number + 1) * (rounds - number - 1)
            tell(f"Round {number + 1} of {rounds} done, about {left:.0f} s left")
    finally:
        for worker in workers.values():
            worker.close()
    return contest


def _load(contest: Contest, name: str, worker: "_WorkerProcess", tasks) -> None:
    """Makes the tasks of a contestant ready, or notes why they are not."""
    try:
        said = worker.hear()
    except RuntimeError as error:
        contest.errors[name] = str(error)
        return
    if "missing" in said:
        contest.missing[name] = said["missing"]
        return
    if "left_out" in said:
        contest.left_out[name] = said["left_out"]
        return
    contest.packages[name], contest.paths[name] = said["packages"], said["path"]
    for task in (task for task in said["tasks"] if tasks is None or task in tasks):
        try:
            said_of_task = worker.ask(do="prepare", task=task)
        except RuntimeError as error:
            contest.errors[f"{name}: {task}"] = str(error)
            if worker.is_over():
                return
            continue
        if "left_out" in said_of_task:
            contest.left_out[f"{name}: {task}"] = said_of_task["left_out"]
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

    def __init__(self, contestant: Contestant, patience: float, all_cores: bool):
        self._patience = patience
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115, `close` does
        environment = dict(os.environ)
        if not all_cores:
            environment.update(dict.fromkeys(ONE_THREAD, "1"))
        paths = [str(ROOT)]
        if contestant.python == sys.executable:  # it finds our packages as we did
            paths += filter(None, [os.environ.get("PYTHONPATH")])
        environment["PYTHONPATH"] = os.pathsep.join(paths)
        arguments = json.dumps(contestant.arguments)
        core = "" if all_cores else core_of_all()
        self._process = subprocess.Popen(
            [contestant.python, WORKER, contestant.module, arguments, core],
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
        self.tell(**request)
        return self.hear()

    def tell(self, **request) -> None:
        """Sends a request; if the process has ended, `hear` says so."""
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(request) + "\n")

    def hear(self) -> dict:
        """Returns the answer to the last request.

        Raises:
            RuntimeError: If the answer is an error, or there is none.
        """
        timer = threading.Timer(self._patience, self._process.kill)
        timer.start()
        try:
            answer = self._process.stdout.readline()
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


def core_of_all() -> str:
    """The core that all contestants work on, or "" where none can be chosen."""
    return str(max(cores_of_ours())) if hasattr(os, "sched_getaffinity") else ""


def cores_of_ours() -> Collection[int]:
    """The cores that this process, and so a contestant, may work on."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return range(os.cpu_count() or 1)


def reason_of(error: Exception) -> str:
    """What an error says, on one line; its kind, if it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
