"""What the processes of a run tell one another."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from keras_deit.training import workers as module
from keras_deit.training.workers import Workers, code_digest, naming_lost_workers


class Spread(tf.distribute.MultiWorkerMirroredStrategy):
    """A strategy of several processes that computes nothing."""

    def __init__(self, jobs, task_type, task_id):
        self._resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
            tf.train.ClusterSpec(jobs), task_type=task_type, task_id=task_id
        )

    @property
    def cluster_resolver(self):
        return self._resolver


@pytest.fixture
def in_threads(monkeypatch):
    """Runs a function of `Workers` on each of some workers; all that they return."""

    def run(function, count=3):
        barrier, said = Barrier(count, timeout=5.0), [None] * count

        def sum_of_all(workers, values):
            said[workers.index] = values
            barrier.wait()
            total = sum(said)
            barrier.wait()
            return total

        def one(index):
            names = [f"host:{number}" for number in range(1, count + 1)]
            return function(Workers(Spread({"worker": names}, "worker", index)))

        monkeypatch.setattr(Workers, "_sum", sum_of_all)
        with ThreadPoolExecutor(count) as threads:
            futures = [threads.submit(one, index) for index in range(count)]
            return [future.exception() or future.result() for future in futures]

    return run


# One process


def test_one_process_is_the_chief_and_tells_itself(tmp_path):
    workers = Workers(tf.distribute.get_strategy())
    assert (workers.count, workers.index, workers.is_chief) == (1, 0, True)
    assert workers.strategy is tf.distribute.get_strategy()
    assert workers.gather({"a": 1}) == [{"a": 1}]
    workers.agree({"a": 1})
    workers.copy(tmp_path, ["not there"])


def test_replicas_of_one_machine_are_one_process(two_replicas):
    assert Workers(two_replicas).count == 1


# Several


def test_places_are_counted_with_the_chief():
    jobs = {"chief": ["c:1"], "worker": ["a:1", "b:1"]}
    tasks = [("chief", 0), ("worker", 0), ("worker", 1)]
    spread = [Workers(Spread(jobs, *task)) for task in tasks]
    assert [(w.count, w.index, w.is_chief) for w in spread] == [
        (3, 0, True),
        (3, 1, False),
        (3, 2, False),
    ]


def test_all_know_what_each_has_in_their_order(in_threads, monkeypatch):
    monkeypatch.setattr(module, "PIECE_BYTES", 10)
    values = [{"a": "ä" * 9}, [1.5, None], ""]
    assert in_threads(lambda workers: workers.gather(values[workers.index])) == (
        [values] * 3
    )


def test_all_refuse_what_differs_on_one(in_threads):
    def agree(workers):
        facts = {"seed": 0, "stages": (1, 2)}
        return workers.agree(facts | ({"seed": 1} if workers.index == 2 else {}))

    assert in_threads(agree, 2) == [None, None]
    errors = in_threads(agree)
    assert {type(error) for error in errors} == {ValueError}
    assert {str(error) for error in errors} == {
        "All workers must compute the same run, but they differ in seed: 0 on worker "
        "0, 1 on worker 2. Received: workers=3."
    }


def test_a_fact_that_one_does_not_have_differs(in_threads):
    errors = in_threads(
        lambda workers: workers.agree({"a": 1} if workers.index else {})
    )
    assert "a: None on worker 0, 1 on worker 1; a: None" in str(errors[0])


def test_files_of_the_chief_reach_all(in_threads, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "PIECE_BYTES", 8)
    contents = {"a": bytes(range(256)), "deep/b": b"12345", "empty": b""}
    (tmp_path / "0" / "deep").mkdir(parents=True)
    for name, content in contents.items():
        (tmp_path / "0" / name).write_bytes(content)

    def copy(workers):
        return workers.copy(tmp_path / str(workers.index), list(contents))

    assert in_threads(copy) == [None] * 3
    for index in range(3):
        for name, content in contents.items():
            assert (tmp_path / str(index) / name).read_bytes() == content


def test_bytes_pass_several_replicas_of_a_worker_as_they_are(two_replicas):
    content = bytes(range(256)) + b"\x7f\xff\xff\xff\x80"  # large as whole numbers
    assert Workers(two_replicas)._sent(content, sender=0) == content


# Lost workers


@pytest.mark.parametrize("error", module._GONE)
def test_a_lost_worker_is_named(error):
    lost = error(None, None, "Connection \n reset")
    rule = r"Another worker stopped .* same command.*TensorFlow says: .*ction reset"
    two, one = SimpleNamespace(count=2), SimpleNamespace(count=1)
    with pytest.raises(RuntimeError, match=rule) as raised, naming_lost_workers(two):
        raise lost
    assert raised.value.__cause__ is lost
    with pytest.raises(error), naming_lost_workers(one):
        raise lost


@pytest.mark.parametrize(
    "error", [ValueError("x"), tf.errors.InvalidArgumentError(None, None, "x")]
)
def test_any_other_error_goes_through(error):
    two = SimpleNamespace(count=2)
    with pytest.raises(type(error)) as raised, naming_lost_workers(two):
        raise error
    assert raised.value is error


# The code


def test_the_digest_changes_with_the_code(monkeypatch, tmp_path):
    def digest(**files):
        package = tmp_path / str(np.random.default_rng().integers(2**62))
        (package / "training").mkdir(parents=True)
        for name, text in files.items():
            (package / name.replace("_", "/")).with_suffix(".py").write_text(text)
        (package / "notes.txt").write_text(str(package))
        monkeypatch.setattr(module, "__file__", str(package / "training/workers.py"))
        return code_digest()

    first = digest(a="1", training_b="2")
    assert len(first) == 16
    assert digest(a="1", training_b="2") == first
    others = [
        digest(a="1", training_b="3"),
        digest(a="1", b="2"),
        digest(a="1", training_b="2", c=""),
    ]
    assert len({first, *others}) == 4


def test_the_digest_is_of_this_package():
    assert code_digest() == code_digest()
    assert (module.Path(module.__file__).parents[1] / "version.py").is_file()
