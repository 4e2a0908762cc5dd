"""On which devices a run computes, and how its batches get there."""

import json
import os
import re
import socket
from collections.abc import Callable, Sequence

import tensorflow as tf

from keras_deit._checks import check, check_choice
from keras_deit.training.cluster import Cluster

STRATEGIES = ("auto", "none", "mirrored", "multiworker", "tpu")
CONNECT_SECONDS = 10.0  # to the address of a TPU
_KINDS = ("CPU", "GPU")
_GRPC = "grpc://"


def make_strategy(
    name: str = "auto",
    devices: Sequence[str] = (),
    cluster: Cluster | None = None,
    tpu: str | None = None,
) -> tf.distribute.Strategy:
    """Makes the strategy of a run.

    It must be made before TensorFlow computes anything.

    Args:
        name: "none" for one device, or for what Keras chooses; "mirrored" for several
            devices of this machine, "multiworker" for those of several machines, each
            with a process of its own; "tpu" for a TPU. "auto" takes "multiworker" with
            a `cluster` of several workers, "tpu" with a `tpu`, "mirrored" with several
            `devices` or GPUs, and else "none".
        devices: Of "mirrored", for instance ["GPU:0", "GPU:1"]; none means all GPUs.
            Several of the kind "CPU:0" are parts of the one processor, for trials.
        cluster: Of "multiworker"; see `find_cluster`.
        tpu: Of "tpu", the name of the TPU or its address; "local" for those of this
            machine.

    Returns:
        The strategy; its scope need not be entered for `train`.

    Raises:
        ValueError: If there is no such strategy or device, or an argument has no
            meaning for the strategy or is missing.
        RuntimeError: If no TPU can be reached, or TensorFlow has begun already.
    """
    name = choose_strategy(name, devices, cluster, tpu)
    if name == "mirrored":
        return _mirrored(devices)
    if name == "multiworker":
        return _multiworker(cluster)
    return _tpu(tpu) if name == "tpu" else tf.distribute.get_strategy()


def choose_strategy(
    name: str,
    devices: Sequence[str] = (),
    cluster: Cluster | None = None,
    tpu: str | None = None,
) -> str:
    """Says which strategy `make_strategy` would make of its arguments.

    Raises:
        ValueError: If there is no such strategy, or an argument has no meaning for it.
    """
    check_choice("strategy", name, STRATEGIES)
    if name == "auto":
        name = _chosen(devices, cluster, tpu)
    for option, value, meant_for in (
        ("devices", list(devices), "mirrored"),
        ("workers", cluster and ",".join(cluster.workers), "multiworker"),
        ("tpu", tpu, "tpu"),
    ):
        check(
            not value or name == meant_for,
            f"`{option}` has a meaning for the strategy {meant_for!r} only.",
            **{option: value},
            strategy=name,
        )
    return name


def _chosen(devices, cluster, tpu) -> str:
    if cluster is not None and len(cluster.workers) > 1:
        return "multiworker"
    if tpu is not None:
        return "tpu"
    many = len(devices) > 1 or len(tf.config.list_physical_devices("GPU")) > 1
    return "mirrored" if many else "none"


def _mirrored(devices: Sequence[str]) -> tf.distribute.Strategy:
    found = tf.config.list_physical_devices("GPU")
    names = [name.upper() for name in devices]
    names = names or [f"GPU:{number}" for number in range(len(found))]
    check(
        names
        and len(set(names)) == len(names)
        and all(re.fullmatch(r"[CG]PU:\d+", name) for name in names),
        "`devices` must be different devices such as GPU:0 (none means all GPUs, of "
        f"which there are {len(found)}).",
        devices=",".join(devices),
    )
    numbers = {kind: [_number(n) for n in names if n[:3] == kind] for kind in _KINDS}
    check(
        all(number < len(found) for number in numbers["GPU"]),
        f"`devices` must be there; this machine has {len(found)} GPUs.",
        devices=",".join(devices),
    )
    _divide_processor(max(numbers["CPU"], default=0) + 1)
    return tf.distribute.MirroredStrategy(names)


def _number(name: str) -> int:
    return int(name.partition(":")[2])


def _divide_processor(count: int) -> None:
    """Makes several devices of the processor, unless there are so many."""
    (processor,) = tf.config.list_physical_devices("CPU")
    parts = tf.config.get_logical_device_configuration(processor) or [None]
    if len(parts) < count:
        parts = [tf.config.LogicalDeviceConfiguration()] * count
        tf.config.set_logical_device_configuration(processor, parts)


def _multiworker(cluster: Cluster | None) -> tf.distribute.Strategy:
    check(
        cluster is not None,
        "The strategy 'multiworker' needs a TF_CONFIG of several workers, or `workers` "
        "and `worker_index`.",
        cluster=cluster,
    )
    # TensorFlow reads it again in other places than where the cluster is given.
    task = {"type": "worker", "index": cluster.index}
    jobs = {"worker": list(cluster.workers)}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": jobs, "task": task})
    return tf.distribute.MultiWorkerMirroredStrategy()


def _tpu(name: str | None) -> tf.distribute.Strategy:
    try:
        if name is not None and name.startswith(_GRPC):  # or TensorFlow waits for ever
            host, _, port = name.removeprefix(_GRPC).rpartition(":")
            socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(name)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, OSError, tf.errors.OpError) as error:
        raise RuntimeError(
            "There is no TPU that can be reached; name it with `tpu` ('local' on a TPU "
            f"VM). TensorFlow says: {' '.join(str(error).split())[:300]} Received: "
            f"tpu={name!r}."
        ) from error
    return tf.distribute.TPUStrategy(resolver)


def distributed(
    strategy: tf.distribute.Strategy,
    batch_size: int,
    make: Callable[[int, int], tf.data.Dataset],
):
    """Gives each replica its part of each batch.

    Args:
        strategy: The strategy.
        batch_size: B, images in a batch of all replicas together.
        make: Called with a shard and the number of shards, returns its B / number
            images of each batch.

    Returns:
        A dataset for `fit`.

    Raises:
        ValueError: If the replicas do not divide the batch.
    """
    replicas = strategy.num_replicas_in_sync
    check(
        batch_size % replicas == 0,
        f"`batch_size` must be a multiple of the {replicas} replicas; --devices takes "
        "fewer, --strategy=none one.",
        batch_size=batch_size,
    )
    if replicas == 1:
        return make(0, 1)

    def of_input(context):
        shard = make(context.input_pipeline_id, context.num_input_pipelines)
        if replicas == context.num_input_pipelines:
            return shard
        return shard.rebatch(batch_size // replicas, drop_remainder=True)

    return strategy.distribute_datasets_from_function(of_input)
