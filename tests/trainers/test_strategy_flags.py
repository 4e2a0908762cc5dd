"""The flags that say on which devices a run computes."""

import json

import pytest
import tensorflow as tf
from absl import flags

from keras_deit.training import cluster as cluster_module
from keras_deit.training import strategies
from keras_deit.training.cluster import Cluster
from keras_deit.training.recipe_rules import PRECISIONS
from trainers._recipe_flags import define_computing_flags
from trainers._strategy_flags import define_strategy_flags, strategy_of


def parsed(*arguments):
    values = flags.FlagValues()
    define_strategy_flags(values)
    values(["program", *arguments])
    return values


@pytest.fixture
def asked(monkeypatch):
    """What `strategy_of` asks for, and whom it waits for before."""
    calls = []
    monkeypatch.delenv("TF_CONFIG", raising=False)
    monkeypatch.setattr(cluster_module, "meet", lambda *a: calls.append(("meet", *a)))
    monkeypatch.setattr(
        strategies, "make_strategy", lambda *a: calls.append(("make", *a)) or "made"
    )

    def ask(*arguments):
        calls.clear()
        assert strategy_of(parsed(*arguments)) == "made"
        return list(calls)

    return ask


def test_the_choices_are_those_of_the_library():
    assert parsed().strategy == "auto"
    assert tuple(parsed()["strategy"].parser.enum_values) == strategies.STRATEGIES


def test_the_precisions_are_those_of_the_library():
    values = flags.FlagValues()
    define_computing_flags(values)
    assert tuple(values["precision"].parser.enum_values) == PRECISIONS


def test_flags_reach_the_strategy(asked):
    assert asked() == [("make", "none", [], None, None)]
    two = asked("--strategy=mirrored", "--devices=CPU:0,CPU:1")
    assert two == [("make", "mirrored", ["CPU:0", "CPU:1"], None, None)]
    assert asked("--tpu=local") == [("make", "tpu", [], None, "local")]


@pytest.mark.parametrize("name", ["auto", "multiworker"])
def test_workers_are_waited_for_first(asked, name):
    flags_of_workers = ("--workers=a:1,b:2", "--worker_index=1", "--worker_patience=7")
    cluster = Cluster(("a:1", "b:2"), 1)
    assert asked(f"--strategy={name}", *flags_of_workers) == [
        ("meet", cluster, 7.0),
        ("make", "multiworker", [], cluster, None),
    ]


def tf_config(*workers):
    task = {"type": "worker", "index": 0}
    return json.dumps({"cluster": {"worker": workers}, "task": task})


def test_tf_config_is_read_where_it_may_be_meant(asked, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", tf_config("a:1", "b:2"))
    cluster = Cluster(("a:1", "b:2"), 0)
    made = ("make", "multiworker", [], cluster, None)
    assert asked() == [("meet", cluster, 600.0), made]


@pytest.mark.parametrize("name", ["none", "mirrored", "tpu"])
def test_workers_are_refused_before_they_are_waited_for(asked, monkeypatch, name):
    rule = "`workers` has a meaning for the strategy 'multiworker' only"
    with pytest.raises(ValueError, match=rule):
        asked(f"--strategy={name}", "--workers=a:1,b:2", "--worker_index=0")
    monkeypatch.setenv("TF_CONFIG", tf_config("a:1", "b:2"))
    with pytest.raises(ValueError, match=rule):  # or each would train for itself
        asked(f"--strategy={name}")


def test_a_tf_config_of_one_worker_is_no_cluster(asked, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", tf_config("a:1"))
    assert asked() == [("make", "none", [], None, None)]
    monkeypatch.undo()
    monkeypatch.setenv("TF_CONFIG", tf_config("a:1"))
    found = tf.config.list_physical_devices
    monkeypatch.setattr(
        tf.config,
        "list_physical_devices",
        lambda kind: [] if kind == "GPU" else found(kind),
    )
    assert strategy_of(parsed()) is tf.distribute.get_strategy()


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        (["--workers=a:1,b:2"], "must be given together"),
        (["--worker_index=1"], "must be given together"),
        (["--workers=a,b:2", "--worker_index=0"], "each as host:port"),
    ],
    ids=" ".join,
)
def test_workers_by_half_or_wrong_are_refused(asked, arguments, rule):
    with pytest.raises(ValueError, match=rule):
        asked(*arguments)


@pytest.mark.parametrize(
    "argument", ["--strategy=many", "--worker_index=-1", "--worker_patience=-1"]
)
def test_values_that_have_no_meaning_are_refused(argument):
    with pytest.raises(flags.IllegalFlagValueError):
        parsed(argument)
