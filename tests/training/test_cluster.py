"""Who takes part in a run, and whether all are there."""

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from keras_deit.training import cluster as module
from keras_deit.training.cluster import Cluster, find_cluster, meet

TWO = ("a:1", "b:2")


# Reading the cluster


def config(type_="worker", index=0, **jobs):
    task = {"type": type_, "index": index}
    return {"TF_CONFIG": json.dumps({"cluster": jobs, "task": task})}


def test_flags_name_the_workers():
    assert find_cluster(list(TWO), 1, {}) == Cluster(TWO, 1)


def test_tf_config_names_the_workers_the_chief_before_them():
    assert find_cluster((), None, config(index=1, worker=TWO)) == Cluster(TWO, 1)
    three = ("c:3", *TWO)
    jobs = {"chief": ["c:3"], "worker": TWO}
    assert find_cluster((), None, config("chief", 0, **jobs)) == Cluster(three, 0)
    assert find_cluster((), None, config("worker", 1, **jobs)) == Cluster(three, 2)


def test_the_environment_of_the_process_is_read(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config(worker=TWO)["TF_CONFIG"])
    assert find_cluster() == Cluster(TWO, 0)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"TF_CONFIG": ""},
        {"TF_CONFIG": "{}"},
        {"TF_CONFIG": '{"cluster": {}, "task": {}}'},
        config(worker=["a:1"]),
        config("chief", chief=["a:1"]),
    ],
    ids=["absent", "empty", "nothing", "no jobs", "one worker", "one chief"],
)
def test_a_single_machine_is_no_cluster(environment):
    assert find_cluster((), None, environment) is None


def test_an_address_of_ipv6_is_one():
    assert Cluster(("[::1]:80", "[::1]:81"), 0).workers[0] == "[::1]:80"


@pytest.mark.parametrize(
    "workers",
    [
        (),
        ("a", "b:1"),
        (":1", "b:1"),
        ("a:x", "b:1"),
        ("a:0", "b:1"),
        ("a:65536", "b:1"),
        ("a:\N{ARABIC-INDIC DIGIT ONE}", "b:1"),
        (1, "b:1"),
        ("b:1", "b:1"),
    ],
    ids=repr,
)
def test_what_is_no_list_of_addresses_is_refused(workers):
    with pytest.raises(ValueError, match=r"different addresses, each as host:port\."):
        Cluster(workers, 0)


@pytest.mark.parametrize("index", [-1, 2, True, "0", 1.0, None])
def test_a_place_that_is_not_there_is_refused(index):
    rule = rf"from 0 to 1, another one on each worker\. .*worker_index={index!r}\."
    with pytest.raises(ValueError, match=rule):
        Cluster(TWO, index)


def test_flags_by_half_or_beside_tf_config_are_refused():
    with pytest.raises(ValueError, match="given together. Received: workers='a:1,b:2'"):
        find_cluster(TWO, None, {})
    with pytest.raises(ValueError, match="given together.* worker_index=0"):
        find_cluster((), 0, {})
    with pytest.raises(ValueError, match="TF_CONFIG or `workers`, not both"):
        find_cluster(TWO, 0, config(worker=TWO))


@pytest.mark.parametrize(
    "environment",
    [
        {"TF_CONFIG": "{"},
        {"TF_CONFIG": "[1]"},
        {"TF_CONFIG": '{"cluster": {"worker": ["a:1", "b:2"]}}'},
        config(chief=None, worker=TWO),
        config("evaluator", worker=TWO),
        config(index="0", worker=TWO),
        config(index=-1, chief=["c:3"], worker=TWO),
        config(index=2, worker=TWO),
        config("chief", index=1, chief=["c:3"], worker=TWO),
        config(chief=["c:3", "d:4"], worker=TWO),
        config(worker=TWO, ps=["d:4"]),
    ],
    ids=lambda environment: environment["TF_CONFIG"],
)
def test_another_tf_config_is_refused(environment):
    with pytest.raises(ValueError, match=r"TF_CONFIG must be .* Received: TF_CONFIG="):
        find_cluster((), None, environment)


def test_a_tf_config_of_what_is_no_address_is_refused():
    with pytest.raises(ValueError, match="each as host:port"):
        find_cluster((), None, config(worker=["a", "b:1"]))


# Meeting


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(module, "TELL_SECONDS", 0.2)


def free_addresses(count):
    with socket.socket() as first, socket.socket() as second, socket.socket() as third:
        sockets = (first, second, third)[:count]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return tuple(f"127.0.0.1:{one.getsockname()[1]}" for one in sockets)


def coming(pool, workers, index, patience=10.0, tell=lambda line: None):
    """A worker that meets the others in a thread: what became of it, once known."""
    return pool.submit(meet, Cluster(workers, index), patience, tell)


def connected(address, seconds=5.0):
    host, _, port = address.rpartition(":")
    end = time.monotonic() + seconds
    while True:
        try:
            return socket.create_connection((host, int(port)), seconds)
        except OSError:
            if time.monotonic() > end:
                raise


def wait_for(condition, seconds=5.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    assert condition()


def greeting(index, workers):
    return json.dumps({"index": index, "workers": workers}).encode() + b"\n"


@pytest.fixture
def pool():
    with ThreadPoolExecutor(4) as threads:
        yield threads


def test_a_worker_alone_has_met_all_the_others():
    meet(Cluster(free_addresses(1), 0), 0.0, pytest.fail)


def test_all_return_when_the_last_has_come_and_leave_their_ports(pool):
    workers = free_addresses(3)
    early = [coming(pool, workers, index) for index in (2, 0)]
    time.sleep(0.1)
    assert not any(worker.done() for worker in early)
    for worker in (*early, coming(pool, workers, 1)):
        assert worker.result(5.0) is None
    for address in workers:  # as TensorFlow's servers take them
        with socket.socket() as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(("", int(address.rpartition(":")[2])))
            server.listen()


def test_the_chief_may_come_last(pool):
    workers = free_addresses(2)
    worker = coming(pool, workers, 1)
    time.sleep(0.1)
    assert not worker.done()
    meet(Cluster(workers, 0), 5.0)
    assert worker.result(5.0) is None


def test_who_is_missed_is_named_everywhere(pool):
    workers = free_addresses(3)
    rule = rf"^Not there after 0 s: worker 2 \({workers[2]}\)\. Start all workers"
    came = [coming(pool, workers, index, 0.5) for index in (0, 1)]
    for worker in came:
        with pytest.raises(TimeoutError, match=rule):
            worker.result(5.0)


def test_a_missing_chief_is_named():
    workers = free_addresses(2)
    rule = rf"Not there after 0 s: worker 0 \({workers[0]}; .*refused\)\."
    with pytest.raises(TimeoutError, match=rule):
        meet(Cluster(workers, 1), 0.05)


def test_a_worker_that_waited_longer_than_the_chief_does_not_miss_the_chief(pool):
    workers = free_addresses(3)
    chief = coming(pool, workers, 0, 1.0)
    connected(workers[0]).close()
    with pytest.raises(TimeoutError, match="after 0 s: one of the other workers"):
        meet(Cluster(workers, 1), 0.05, lambda line: None)
    # The chief saw it leave: it misses both.
    with pytest.raises(TimeoutError, match=r"after 1 s: worker 1 \(.*, 2 \("):
        chief.result(5.0)


def test_lines_say_now_and_then_who_is_missing(pool, monkeypatch):
    monkeypatch.setattr(module, "TELL_SECONDS", 0.05)
    workers = free_addresses(3)
    told = {0: [], 1: []}
    begin = time.monotonic()
    lonely = coming(pool, workers, 1, 10.0, told[1].append)
    wait_for(lambda: len(told[1]) == 2)
    assert time.monotonic() - begin > 2 * 0.05
    assert set(told[1]) == {f"Waiting for worker 0 ({workers[0]}) ..."}
    begin = time.monotonic()
    chief = coming(pool, workers, 0, 10.0, told[0].append)
    wait_for(lambda: len(told[0]) > 2 and "the other workers" in told[1][-1])
    assert time.monotonic() - begin > 2 * 0.05
    assert told[0][-1] == f"Waiting for worker 2 ({workers[2]}) ..."
    meet(Cluster(workers, 2), 5.0)
    assert (lonely.result(5.0), chief.result(5.0)) == (None, None)


def test_a_port_in_use_is_named():
    with socket.socket() as earlier:
        earlier.bind(("", 0))
        earlier.listen()
        port = earlier.getsockname()[1]
        workers = (f"127.0.0.1:{port}", *free_addresses(1))
        with pytest.raises(OSError, match=rf"Worker 0 needs port {port}, which cannot"):
            meet(Cluster(workers, 0), 5.0)
        with pytest.raises(OSError, match=rf"needs port {port}.*worker_index=1\."):
            meet(Cluster(workers[::-1], 1), 5.0)


def test_different_lists_are_refused_on_those_that_have_them(pool):
    workers = free_addresses(3)
    other = (workers[0], workers[2])
    rule = rf"same list.*,{workers[1]} on worker 0, .*,{workers[2]} on worker 1\."
    involved = coming(pool, workers[:2], 0), coming(pool, other, 1)
    for worker in involved:
        with pytest.raises(ValueError, match=rule):
            worker.result(5.0)


@pytest.mark.parametrize("index", [0, 1, 3, -1])
def test_two_in_one_place_are_refused_on_both(pool, index):
    workers = free_addresses(3)
    rule = f"place of its own. Received twice: worker_index={index}."
    told = []
    involved = coming(pool, workers, 0), coming(pool, workers, 1, tell=told.append)
    with connected(workers[0]) as twin:
        wait_for(lambda: "Waiting for the other workers ..." in told)
        twin.sendall(greeting(index, workers))
        assert rule in twin.recv(4096).decode()
    for worker in involved:
        with pytest.raises(ValueError, match=rule):
            worker.result(5.0)


def test_a_worker_that_was_killed_may_come_again(pool):
    workers = free_addresses(3)
    chief = coming(pool, workers, 0)
    for _ in range(2):
        with connected(workers[0]) as killed:
            killed.sendall(greeting(1, workers))
            time.sleep(0.05)
    others = [coming(pool, workers, index) for index in (1, 2)]
    for worker in (chief, *others):
        assert worker.result(5.0) is None


def test_a_chief_that_was_killed_may_come_again(pool):
    workers = free_addresses(2)
    host, _, port = workers[0].rpartition(":")
    with socket.create_server((host, int(port))) as killed:
        worker = coming(pool, workers, 1)
        guest, _ = killed.accept()
        assert guest.recv(4096) == greeting(1, workers)
        guest.close()
    meet(Cluster(workers, 0), 5.0)
    assert worker.result(5.0) is None


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff\xfe\n",
        b"5\n",
        b'{"index": 1}\n',
        b'{"index": [], "workers": []}\n',
        b"[" * 60_000 + b"\n",
        b"x" * 70_000,
    ],
    ids=lambda said: repr(said[:20]),
)
def test_a_stranger_disturbs_nobody(pool, said):
    workers = free_addresses(2)
    chief = coming(pool, workers, 0)
    with connected(workers[0]) as silent, connected(workers[0]) as stranger:
        if said:
            stranger.sendall(said)
            stranger.settimeout(5.0)
            with suppress(ConnectionResetError):
                assert stranger.recv(1) == b""  # it is sent away
        meet(Cluster(workers, 1), 5.0)
        assert chief.result(5.0) is None
        silent.settimeout(5.0)
        assert silent.recv(1) == b""


def test_an_answer_of_a_stranger_is_none():
    workers = free_addresses(2)
    host, _, port = workers[0].rpartition(":")
    with socket.create_server((host, int(port))) as other:

        def answer():
            for said in (b"400 Bad Request\n", b"{}\n", b"[]\n", b""):
                guest, _ = other.accept()
                with guest:
                    guest.recv(4096)
                    guest.sendall(said)
            other.close()

        talking = threading.Thread(target=answer)
        talking.start()
        with pytest.raises(TimeoutError, match="worker 0"):
            meet(Cluster(workers, 1), 0.3, lambda line: None)
        talking.join(5.0)
        assert not talking.is_alive()
