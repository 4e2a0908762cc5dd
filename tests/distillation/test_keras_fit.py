"""What `fit` cannot do among several workers; fails loudly where Keras moves."""

import inspect
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_deit.distillation import distiller as distiller_module
from keras_deit.distillation.keras_fit import function_of, num_workers
from tests.distillation.small_models import batch, compiled, head, two_heads


class Spread(tf.distribute.MultiWorkerMirroredStrategy):
    """A strategy of several processes that computes nothing."""

    def __init__(self, **jobs):
        self._resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
            tf.train.ClusterSpec(jobs), task_type="worker", task_id=0
        )

    @property
    def cluster_resolver(self):
        return self._resolver


def test_the_workers_of_a_strategy_are_counted_with_their_chief(two_replicas):
    assert num_workers(Spread(worker=["a:1", "b:1"])) == 2
    assert num_workers(Spread(chief=["a:1"], worker=["b:1", "c:1"])) == 3
    assert num_workers(Spread(chief=["a:1"])) == 1
    assert num_workers(Spread()) == 1  # without a TF_CONFIG
    assert num_workers(two_replicas) == 1
    assert num_workers(tf.distribute.get_strategy()) == 1


def compiling(strategy, steps_per_execution=1, run_eagerly=False):
    return SimpleNamespace(
        steps_per_execution=steps_per_execution,
        run_eagerly=run_eagerly,
        jit_compile=False,
        distribute_strategy=strategy,
    )


def test_the_numbers_of_a_step_are_those_of_the_first_replica(two_replicas):
    def step(data):
        replica = tf.distribute.get_replica_context()
        sums = replica.all_reduce(tf.distribute.ReduceOp.SUM, tf.reduce_sum(data))
        return {"sum": sums, "place": replica.replica_id_in_sync_group}

    data = tf.data.Dataset.from_tensor_slices(np.arange(8.0)).batch(4)
    iterator = iter(two_replicas.experimental_distribute_dataset(data))
    function = function_of(step, compiling(two_replicas))
    numbers = [{k: float(v) for k, v in function(iterator).items()} for _ in range(2)]
    assert numbers == [{"sum": 6.0, "place": 0.0}, {"sum": 22.0, "place": 0.0}]
    with pytest.raises(StopIteration):
        function(iterator)


@pytest.mark.slow
def test_fit_and_evaluate_of_both_repairs_are_those_of_one_device(
    two_replicas, monkeypatch
):
    x, y = batch(8)
    data = tf.data.Dataset.from_tensor_slices((x, y.astype("int64"))).batch(4)

    def trained(strategy):
        with strategy.scope():
            keras.utils.set_random_seed(5)
            distiller = compiled(two_heads(), head("t"))
        history = distiller.fit(data, validation_data=data, verbose=0).history
        return distiller.student.get_weights(), history

    weights, history = trained(tf.distribute.get_strategy())
    monkeypatch.setattr(distiller_module, "num_workers", lambda strategy: 2)
    repaired, repaired_history = trained(two_replicas)
    for a, b in zip(weights, repaired, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert repaired_history.keys() == history.keys()
    for name, values in history.items():
        assert repaired_history[name] == pytest.approx(values, abs=1e-6), name


@pytest.mark.parametrize(
    "options", [{"steps_per_execution": 2}, {"run_eagerly": True}], ids=str
)
def test_other_ways_of_compiling_are_refused(options):
    model = compiling(tf.distribute.get_strategy(), **options)
    with pytest.raises(ValueError, match="there is one compiled step for each call"):
        function_of(print, model)


# What of Keras the repairs rely on


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("_maybe_symbolic_build", {"iterator": None, "data_batch": None}),
        ("make_train_function", {"force": False}),
        ("make_test_function", {"force": False}),
    ],
)
def test_keras_has_the_methods_that_are_replaced(name, parameters):
    for kind in (keras.Model, distiller_module.Distiller):
        own, *others = inspect.signature(getattr(kind, name)).parameters.values()
        assert own.name == "self"
        assert {one.name: one.default for one in others} == parameters
    assert name in vars(distiller_module.Distiller)


@pytest.mark.parametrize(
    ("method", "makes"),
    [("fit", "train"), ("train_on_batch", "train"), ("evaluate", "test")],
)
def test_fit_calls_them(method, makes):
    source = inspect.getsource(inspect.unwrap(getattr(keras.Model, method)))
    assert "self._maybe_symbolic_build(" in source
    assert f"self.make_{makes}_function()" in source
    assert f"self.{makes}_function(" in source
