"""Who takes part in a run of several machines, and whether all of them are there."""

import json
import os
import selectors
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from keras_deit._checks import check

TELL_SECONDS = 10.0  # between two lines about who is missing
RETRY_SECONDS = 0.2
MESSAGE_BYTES = 64 * 1024  # of what a worker may say


@dataclass(frozen=True)
class Cluster:
    """The workers of a run, and which of them this process is.

    Attributes:
        workers: "host:port" of each; the first is the chief, which alone writes files.
        index: Place of this process among them, from 0.

    Raises:
        ValueError: If an address is no "host:port" or there twice, or there is no such
            place.
    """

    workers: tuple[str, ...]
    index: int

    def __post_init__(self):
        """Checks the values."""
        wrong = [worker for worker in self.workers if not _is_address(worker)]
        check(
            self.workers and not wrong and len(set(self.workers)) == len(self.workers),
            "`workers` must be different addresses, each as host:port.",
            workers=",".join(map(str, self.workers)),
        )
        check(
            type(self.index) is int and 0 <= self.index < len(self.workers),
            f"`worker_index` must be from 0 to {len(self.workers) - 1}, another one on "
            "each worker.",
            worker_index=self.index,
        )


def _is_address(text) -> bool:
    host, _, port = text.rpartition(":") if isinstance(text, str) else ("", "", "")
    return bool(host) and port.isascii() and port.isdigit() and 0 < int(port) < 65536


def find_cluster(
    workers: Sequence[str] = (),
    index: int | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Cluster | None:
    """Reads the cluster from flags or, without them, from `TF_CONFIG`.

    Args:
        workers: Addresses of all workers.
        index: Which of them this process is.
        environment: Where `TF_CONFIG` is looked up: `{"cluster": {"worker":
            ["host:port", ...]}, "task": {"type": "worker", "index": 0}}`, where a
            "chief" may come before the workers.

    Returns:
        The cluster; None if neither names one, or TF_CONFIG one of a single worker.

    Raises:
        ValueError: If they are there by half, both, or wrong.
    """
    text = environment.get("TF_CONFIG")
    if workers or index is not None:
        check(
            workers and index is not None,
            "`workers` and `worker_index` must be given together.",
            workers=",".join(workers),
            worker_index=index,
        )
        check(not text, "TF_CONFIG or `workers`, not both.", TF_CONFIG=text)
        return Cluster(tuple(workers), index)
    return _from_config(text) if text else None


def _from_config(text: str) -> Cluster | None:
    rule = (
        'TF_CONFIG must be {"cluster": {"worker": ["host:port", ...]}, "task": '
        '{"type": "worker", "index": 0}}, perhaps with one "chief".'
    )
    try:
        config = json.loads(text)
        jobs, task = config.get("cluster", {}), config.get("task", {})
        if not jobs:  # as some platforms set it for a single machine
            return None
        chief, others = list(jobs.get("chief", [])), list(jobs.get("worker", []))
        first = {"chief": 0, "worker": len(chief)}[task["type"]]
        index = first + task["index"]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{rule} Received: TF_CONFIG={text!r}.") from error
    known = jobs.keys() <= {"chief", "worker"} and len(chief) <= 1
    in_its_job = 0 <= task["index"] < len(jobs.get(task["type"], []))
    check(known and in_its_job, rule, TF_CONFIG=text)
    cluster = Cluster(tuple(chief + others), index)
    return cluster if len(cluster.workers) > 1 else None


def meet(
    cluster: Cluster, patience: float, tell: Callable[[str], None] = print
) -> None:
    """Waits until all workers are there, before TensorFlow does without a word.

    Each takes its port; all but the first say to the first who they are, and it
    answers when the last has come. The ports are free again afterwards.

    Args:
        cluster: Who takes part.
        patience: Seconds to wait.
        tell: Called with a line about who is missing, every ten seconds.

    Raises:
        ValueError: If workers have different lists, or the same place in it.
        OSError: If the port of this worker cannot be taken.
        TimeoutError: If somebody did not come.
    """
    with ExitStack() as open_sockets:
        own = open_sockets.enter_context(socket.socket(_family(cluster.workers)))
        _take_port(own, cluster)
        deadline = time.monotonic() + patience
        if cluster.index == 0:
            _welcome(own, cluster, deadline, patience, tell, open_sockets)
        else:
            _report(cluster, deadline, patience, tell)


def _family(workers: Sequence[str]) -> socket.AddressFamily:
    has_colon = any(":" in worker.rpartition(":")[0] for worker in workers)
    return socket.AF_INET6 if has_colon else socket.AF_INET


def _take_port(own: socket.socket, cluster: Cluster) -> None:
    port = int(cluster.workers[cluster.index].rpartition(":")[2])
    own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        own.bind(("", port))
        own.listen()
    except OSError as error:
        raise OSError(
            f"Worker {cluster.index} needs port {port}, which cannot be taken: "
            f"{error.strerror}. Is an earlier run still there? Received: "
            f"workers={','.join(cluster.workers)}, worker_index={cluster.index}."
        ) from error


def _welcome(own, cluster, deadline, patience, tell, open_sockets) -> None:
    """The chief's part: hears all the others, then answers them."""
    arrived: dict[int, socket.socket] = {}
    fault = None
    next_line = time.monotonic() + TELL_SECONDS
    with selectors.DefaultSelector() as waiting:
        waiting.register(own, selectors.EVENT_READ)
        while len(arrived) < len(cluster.workers) - 1 and fault is None:
            missing = [
                f"{index} ({worker})"
                for index, worker in enumerate(cluster.workers)
                if index > 0 and index not in arrived
            ]
            if time.monotonic() > deadline:
                fault = f"Not there after {patience:.0f} s: worker {', '.join(missing)}"
            elif time.monotonic() > next_line:
                tell(f"Waiting for worker {', '.join(missing)} ...")
                next_line = time.monotonic() + TELL_SECONDS
            for key, _ in waiting.select(RETRY_SECONDS):
                if key.fileobj is own:
                    guest = open_sockets.enter_context(own.accept()[0])
                    guest.setblocking(False)
                    waiting.register(guest, selectors.EVENT_READ, bytearray())
                else:
                    fault = fault or _hear(key, waiting, cluster, arrived)
    for guest in arrived.values():
        guest.settimeout(TELL_SECONDS)
        with suppress(OSError):  # it was killed; TensorFlow will miss it
            guest.sendall(json.dumps({"fault": fault}).encode() + b"\n")
    _raise(fault)


def _hear(key, waiting, cluster: Cluster, arrived: dict) -> str | None:
    """Reads what a guest says; returns what is wrong with it, if anything."""
    guest, said = key.fileobj, key.data
    try:
        piece = guest.recv(4096)
    except OSError:
        piece = b""
    said += piece
    if piece and not said.endswith(b"\n") and len(said) < MESSAGE_BYTES:
        return None
    try:
        message = json.loads(said if piece else b"")
        index, workers = int(message["index"]), tuple(message["workers"])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        # Somebody else's question, or a worker that left again and may come back.
        waiting.unregister(guest)
        guest.close()
        for place in [place for place, one in arrived.items() if one is guest]:
            del arrived[place]
        return None
    if workers != cluster.workers:
        fault = (
            "All workers must have the same list. Received: workers="
            f"{','.join(cluster.workers)} on worker 0, {','.join(map(str, workers))} "
            f"on worker {index}."
        )
    elif index in arrived or not 0 < index < len(workers):
        fault = (
            "Each worker must have a place of its own. Received twice: "
            f"worker_index={index}."
        )
    else:
        fault = None
    arrived[index if fault is None else -1] = guest
    return fault


def _report(cluster: Cluster, deadline: float, patience: float, tell) -> None:
    """The part of all but the chief: says who it is, and waits for the answer."""
    host, _, port = cluster.workers[0].rpartition(":")
    message = {"index": cluster.index, "workers": cluster.workers}
    next_line = time.monotonic() + TELL_SECONDS
    while True:
        try:
            with socket.create_connection((host.strip("[]"), int(port)), 5.0) as chief:
                chief.sendall(json.dumps(message).encode() + b"\n")
                answer = _answer(chief, deadline, patience, tell)
                fault = json.loads(answer)["fault"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            reason = str(error)  # it is not there yet, or was killed
        else:
            return _raise(None if fault is None else str(fault))
        if time.monotonic() > deadline:
            missing = f"worker 0 ({cluster.workers[0]}; {reason})"
            _raise(f"Not there after {patience:.0f} s: {missing}")
        if time.monotonic() > next_line:
            tell(f"Waiting for worker 0 ({cluster.workers[0]}) ...")
            next_line = time.monotonic() + TELL_SECONDS
        time.sleep(RETRY_SECONDS)


def _answer(chief: socket.socket, deadline: float, patience: float, tell) -> bytes:
    """What the chief says once all are there; it gives up before this worker does."""
    chief.settimeout(TELL_SECONDS)
    answer = b""
    while not answer.endswith(b"\n") and len(answer) < MESSAGE_BYTES:
        try:
            piece = chief.recv(4096)
        except TimeoutError:
            if time.monotonic() > deadline + TELL_SECONDS:  # the chief began late
                fault = f"Not there after {patience:.0f} s: one of the other workers"
                return json.dumps({"fault": fault}).encode()
            tell("Waiting for the other workers ...")
            continue
        if not piece:  # it was killed
            break
        answer += piece
    return answer


def _raise(fault: str | None) -> None:
    if fault is None:
        return
    if fault.startswith("Not there"):
        raise TimeoutError(f"{fault}. Start all workers with the same command.")
    raise ValueError(fault)
