"""The process of one contestant: loads it once, and runs a round whenever asked.

Run as a script by the Python that the contestant lives in, so it needs the standard
library alone, and what stands beside it. Requests and answers are lines of JSON, one
answer to each request:

    {"do": "load"}                      -> {"packages": {...}, "path": [...],
                                            "tasks": [...]} or {"missing": [...]}
    {"do": "prepare", "task": "..."}    -> {}
    {"do": "round", "task": "...", "seconds": 1.0}
        -> {"items": ..., "seconds": ..., "cpu_seconds": ..., "others": ...,
            "peak_bytes": ...}

or, to any of them, {"error": "..."}, or {"left_out": "..."}: why the task cannot be
done here, of one that raises `LeftOutError`. A contestant is a module with PACKAGES,
the distributions it needs; PATH, the names of the tasks that each add a stage to the
one before; and `tasks(**arguments)`, a dict from the name of each task to a function
that prepares it and returns its step: a function that does some work and returns how
many items that was. `peak_bytes` is the largest memory that the process of the task has
had resident so far, libraries and all; a step that works elsewhere, as on a GPU, has a
function `peak_bytes` as attribute, which says it instead.

Each task runs in a fork of the loaded process, so that none works for another, and is
stopped between its rounds, so that none works ahead. `tasks` may import, but what
starts threads belongs into the functions.
"""

import ctypes
import json
import os
import resource
import signal
import sys
import time
from importlib import metadata, util
from multiprocessing import get_context
from pathlib import Path

from trainers._contestants.left_out import LeftOutError

SET_PARENT_DEATH_SIGNAL = 1  # of Linux' `prctl`


def main(module_path: str, arguments: str, core: str) -> None:
    """Answers requests from standard input until it ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.register_at_fork(after_in_child=answers.close)
    os.dup2(2, 1)  # what packages print is no answer
    _end_with_parent()
    sys.path.remove(str(Path(__file__).parent))  # its neighbors shadow no package
    worker = _Worker(Path(module_path), json.loads(arguments), core)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = worker.answer(**request)
        except Exception as error:  # of any kind: the answer names it
            answer = _failed(error)
        answers.write(json.dumps(answer) + "\n")
    worker.close()


class _Worker:
    """A loaded contestant, and a process for each of its tasks."""

    def __init__(self, module_path: Path, arguments: dict, core: str):
        self._module_path = module_path
        self._arguments = arguments
        self._core = core
        self._processes = {}

    def answer(self, do: str, task: str | None = None, seconds: float = 0.0) -> dict:
        """Answers one request."""
        if do == "load":
            return self._load()
        if do == "prepare":
            self._processes[task] = _TaskProcess(self._tasks[task], self._core)
        return self._processes[task].ask(seconds)

    def close(self) -> None:
        """Ends the processes."""
        for process in self._processes.values():
            process.close()

    def _load(self) -> dict:
        spec = util.spec_from_file_location(self._module_path.stem, self._module_path)
        module = util.module_from_spec(spec)
        spec.loader.exec_module(module)
        packages = {name: _version(name) for name in module.PACKAGES}
        missing = [name for name, version in packages.items() if version is None]
        if missing:
            return {"missing": missing}
        self._tasks = module.tasks(**self._arguments)
        packages = {"python": sys.version.split()[0], **packages}
        return {"packages": packages, "path": module.PATH, "tasks": list(self._tasks)}


class _TaskProcess:
    """A task in a fork of this process, stopped except while it answers."""

    def __init__(self, prepare, core: str):
        fork = get_context("fork")
        self._connection, theirs = fork.Pipe()
        arguments = (prepare, core, theirs)
        self._process = fork.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, seconds: float) -> dict:
        """Runs a round; the first request prepares the task instead."""
        os.kill(self._process.pid, signal.SIGCONT)
        self._connection.send(seconds)
        try:
            return self._connection.recv()
        except EOFError:
            self._process.join()
            return {"error": f"its process ended with code {self._process.exitcode}"}
        finally:
            if self._process.exitcode is None:
                os.kill(self._process.pid, signal.SIGSTOP)
                stopped = os.WSTOPPED | os.WEXITED | os.WNOWAIT  # all its threads
                os.waitid(os.P_PID, self._process.pid, stopped)

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.join()


def _serve(prepare, core: str, connection) -> None:
    """Prepares a task, and runs its rounds, all on its core."""
    _end_with_parent()
    if core:
        os.sched_setaffinity(0, {int(core)})
    step = None
    while True:
        seconds = connection.recv()
        try:
            if step is None:
                step = prepare()
                for _ in range(2):  # caches fill, graphs are traced
                    step()
                answer = {}
            else:
                answer = _round(step, seconds, core)
        except Exception as error:  # of any kind: the answer names it
            answer = _failed(error)
        connection.send(answer)


def _round(step, seconds: float, core: str) -> dict:
    """Works for at least so many seconds, in whole steps."""
    items, elapsed = 0, 0.0
    busy, cpu, start = busy_seconds(core), time.process_time(), time.perf_counter()
    while elapsed < seconds:
        items += step()
        elapsed = time.perf_counter() - start
    cpu = time.process_time() - cpu
    others = None
    if busy is not None:
        cores = 1 if core else os.cpu_count()
        others = max(0.0, busy_seconds(core) - busy - cpu) / elapsed / cores
    return {
        "items": items,
        "seconds": elapsed,
        "cpu_seconds": cpu,
        "others": others,
        "peak_bytes": getattr(step, "peak_bytes", _peak_bytes)(),
    }


def _peak_bytes() -> int:
    """The most of this process that was in memory; a fork begins anew."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def busy_seconds(core: str) -> float | None:
    """Seconds that a core, or all of them, worked since it started, for whomever."""
    try:
        lines = Path("/proc/stat").read_text().splitlines()
    except OSError:
        return None
    (ticks,) = (x.split()[1:9] for x in lines if x.split()[0] == f"cpu{core}")
    user, nice, system, _idle, _waiting, *others = map(int, ticks)
    return (user + nice + system + sum(others)) / os.sysconf("SC_CLK_TCK")


def _end_with_parent() -> None:
    """Lets no process outlive its parent, not even one that is stopped."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _failed(error: Exception) -> dict:
    """The kind of an error and its last line, which says most in TensorFlow."""
    lines = [x.strip() for x in str(error).splitlines() if x.strip()]
    if isinstance(error, LeftOutError):
        return {"left_out": " ".join(lines)}
    return {"error": ": ".join([type(error).__name__, *lines[-1:]])}


if __name__ == "__main__":
    main(*sys.argv[1:])
