"""On which devices a run computes."""

import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from keras_deit.training.cluster import Cluster
from keras_deit.training.strategies import distributed, make_strategy

CLUSTER = Cluster(("a:1", "b:2"), 1)


@pytest.fixture
def no_gpus(monkeypatch):
    pretend_gpus(monkeypatch, 0)


def pretend_gpus(monkeypatch, count):
    found = tf.config.list_physical_devices
    monkeypatch.setattr(
        tf.config,
        "list_physical_devices",
        lambda kind: ["a GPU"] * count if kind == "GPU" else found(kind),
    )


@pytest.fixture
def mirrored(monkeypatch):
    """The devices that a `MirroredStrategy` would have."""
    monkeypatch.setattr(tf.distribute, "MirroredStrategy", list)


@pytest.fixture
def multiworker(monkeypatch):
    """What a `MultiWorkerMirroredStrategy` would read."""

    def read():
        return json.loads(os.environ["TF_CONFIG"])

    monkeypatch.setenv("TF_CONFIG", "as it was before")
    monkeypatch.setattr(tf.distribute, "MultiWorkerMirroredStrategy", read)


# Choosing


def test_none_is_one_device():
    strategy = make_strategy("none")
    assert strategy is tf.distribute.get_strategy()
    assert strategy.num_replicas_in_sync == 1


def test_auto_on_a_machine_with_one_device_is_none(no_gpus):
    assert make_strategy() is tf.distribute.get_strategy()


def test_auto_takes_all_of_several_gpus(monkeypatch, mirrored):
    pretend_gpus(monkeypatch, 1)
    assert make_strategy() is tf.distribute.get_strategy()
    pretend_gpus(monkeypatch, 2)
    assert make_strategy() == make_strategy("mirrored") == ["GPU:0", "GPU:1"]
    assert make_strategy("mirrored", ["gpu:1"]) == ["GPU:1"]


def test_named_parts_of_the_processor_are_replicas():
    for strategy in (
        make_strategy("mirrored", ["CPU:0", "cpu:1"]),
        make_strategy("auto", ["CPU:0", "CPU:1"]),
    ):
        assert isinstance(strategy, tf.distribute.MirroredStrategy)
        names = [name[-5:] for name in strategy.extended.worker_devices]
        assert names == ["CPU:0", "CPU:1"]


@pytest.mark.parametrize("name", ["auto", "multiworker"])
def test_a_cluster_reaches_tensorflow(multiworker, name):
    assert make_strategy(name, cluster=CLUSTER) == {
        "cluster": {"worker": ["a:1", "b:2"]},
        "task": {"type": "worker", "index": 1},
    }


def test_a_tpu_is_made_ready(monkeypatch):
    done = []
    config, tpu = tf.config, tf.tpu.experimental
    resolvers = tf.distribute.cluster_resolver
    monkeypatch.setattr(resolvers, "TPUClusterResolver", lambda name: f"TPU {name}")
    monkeypatch.setattr(config, "experimental_connect_to_cluster", done.append)
    monkeypatch.setattr(tpu, "initialize_tpu_system", done.append)
    monkeypatch.setattr(tf.distribute, "TPUStrategy", lambda resolver: [resolver])
    assert make_strategy(tpu="x") == make_strategy("tpu", tpu="x") == ["TPU x"]
    assert done == ["TPU x"] * 4

    def not_there(resolver):
        raise tf.errors.NotFoundError(None, None, "TPUs not found\n in the cluster.")

    monkeypatch.setattr(tpu, "initialize_tpu_system", not_there)
    rule = r"no TPU that can be reached.* not found in the cluster\. .*tpu='local'\."
    with pytest.raises(RuntimeError, match=rule):
        make_strategy("tpu", tpu="local")


# Refusals


def test_a_tpu_that_is_not_named_is_refused():
    rule = r"There is no TPU that can be reached; .* Received: tpu=None\."
    with pytest.raises(RuntimeError, match=rule):
        make_strategy("tpu")


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="`strategy` must be one of.*mean 'mirrored'"):
        make_strategy("mirored")


@pytest.mark.parametrize(
    "devices",
    [["TPU:0"], ["CPU"], ["0"], ["CPU:0", "cpu:0"], ["/CPU:0"], ["CPU:-1"], []],
    ids=",".join,
)
def test_what_are_no_different_devices_is_refused(no_gpus, devices):
    rule = r"must be different devices such as GPU:0 \(none means all GPUs, of which "
    with pytest.raises(ValueError, match=rule + "there are 0"):
        make_strategy("mirrored", devices)


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    pretend_gpus(monkeypatch, 1)
    with pytest.raises(ValueError, match=r"has 1 GPUs.* devices='GPU:0,GPU:1'\."):
        make_strategy("mirrored", ["GPU:0", "GPU:1"])


def test_more_parts_of_the_processor_are_refused_once_tensorflow_has_begun():
    tf.constant(0)
    with pytest.raises(RuntimeError, match="cannot be modified after being init"):
        make_strategy("mirrored", ["CPU:0", "CPU:9"])


@pytest.mark.parametrize(
    ("name", "options", "rule"),
    [
        ("none", {"devices": ["CPU:0"]}, "`devices` has a meaning .* 'mirrored' only"),
        ("auto", {"devices": ["CPU:0"]}, "`devices` .*strategy='none'"),
        ("multiworker", {"devices": ["GPU:0"], "cluster": CLUSTER}, "`devices` has"),
        (
            "mirrored",
            {"cluster": CLUSTER},
            "`workers` .* 'multiworker' only.*'a:1,b:2'",
        ),
        ("auto", {"cluster": CLUSTER, "tpu": "x"}, "`tpu` .*strategy='multiworker'"),
        ("none", {"tpu": "x"}, "`tpu` has a meaning for the strategy 'tpu' only"),
    ],
)
def test_an_option_without_meaning_is_refused(name, options, rule):
    with pytest.raises(ValueError, match=rule):
        make_strategy(name, **options)


def test_several_machines_must_be_named():
    with pytest.raises(ValueError, match="needs a TF_CONFIG of several workers, or"):
        make_strategy("multiworker")


# Batches

B = 6


def batches(shards):
    """Two batches with dicts of labels; `shards` gets what was asked for."""
    x = np.arange(2 * B * 3, dtype="float32").reshape(2 * B, 3)
    y = {"label": np.arange(2 * B), "teacher_logits": -x}
    data = tf.data.Dataset.from_tensor_slices((x, y))

    def make(shard, num_shards):
        shards.append((shard, num_shards))
        return data.batch(B, drop_remainder=True)

    return make


def test_replicas_get_the_halves_of_a_batch_in_order(two_replicas):
    shards = []
    data = distributed(two_replicas, B, batches(shards))
    assert shards == [(0, 1)]
    whole = list(batches([])(0, 1))
    for batch, expected in zip(data, whole, strict=True):
        assert batch[1].keys() == {"label", "teacher_logits"}
        for parts, values in zip(
            tf.nest.flatten(batch, expand_composites=False),
            tf.nest.flatten(expected),
            strict=True,
        ):
            first, second = two_replicas.experimental_local_results(parts)
            np.testing.assert_array_equal(first, values[: B // 2])
            np.testing.assert_array_equal(second, values[B // 2 :])


@pytest.mark.parametrize(("replicas", "cuts"), [(2, 1), (6, 3)])
def test_each_process_makes_its_shard_and_cuts_it_for_its_replicas(replicas, cuts):
    def of_both(of_input):
        context = tf.distribute.InputContext
        return [of_input(context(2, number, replicas)) for number in range(2)]

    made = []

    def make(shard, num_shards):
        made.append(tf.data.Dataset.range(100 * shard, 100 * shard + 6).batch(3))
        assert (shard, num_shards) == (len(made) - 1, 2)
        return made[-1]

    strategy = SimpleNamespace(
        num_replicas_in_sync=replicas, distribute_datasets_from_function=of_both
    )
    datasets = distributed(strategy, 6, make)
    for shard, dataset in enumerate(datasets):
        expected = 100 * shard + np.arange(6).reshape(2 * cuts, 3 // cuts)
        np.testing.assert_array_equal(list(dataset), expected)
    assert (datasets == made) == (cuts == 1)  # nothing is done that need not be


def test_one_replica_gets_the_dataset_itself():
    shards = []
    data = distributed(tf.distribute.get_strategy(), 5, batches(shards))
    assert isinstance(data, tf.data.Dataset)
    assert shards == [(0, 1)]


def test_a_batch_that_the_replicas_do_not_divide_is_refused(two_replicas):
    with pytest.raises(ValueError, match="multiple of the 2 replicas.*batch_size=5"):
        distributed(two_replicas, 5, pytest.fail)
