"""The flags that say on which devices a run computes."""

from absl import flags


def define_strategy_flags(values: flags.FlagValues) -> None:
    """Defines the flags of `strategy_of`."""
    flags.DEFINE_enum(
        "strategy",
        "auto",
        ["auto", "none", "mirrored", "multiworker", "tpu"],
        "On one device (none), several of this machine (mirrored), those of several "
        "machines, on each of which this command is given (multiworker), or a TPU. "
        "auto takes what there is: workers, a TPU that is named, several GPUs.",
        flag_values=values,
    )
    flags.DEFINE_list(
        "devices",
        [],
        "Of --strategy=mirrored: its devices, as GPU:0,GPU:1; without it all GPUs.",
        flag_values=values,
    )
    flags.DEFINE_list(
        "workers",
        [],
        "Of --strategy=multiworker: host:port of each worker, the same list on all of "
        "them; the first one writes the files. Without it TF_CONFIG is read.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "worker_index",
        None,
        "Which of --workers this one is, from 0.",
        lower_bound=0,
        flag_values=values,
    )
    flags.DEFINE_float(
        "worker_patience",
        600.0,
        "Seconds to wait until all workers are there.",
        lower_bound=0.0,
        flag_values=values,
    )
    flags.DEFINE_string(
        "tpu",
        None,
        "Of --strategy=tpu: its name or address; 'local' on a TPU VM.",
        flag_values=values,
    )


def strategy_of(values: flags.FlagValues):
    """Makes the strategy of a program, once all workers are there."""
    from keras_deit.training.cluster import find_cluster, meet
    from keras_deit.training.strategies import choose_strategy, make_strategy

    cluster = find_cluster(values.workers, values.worker_index)
    chosen = values.devices, cluster, values.tpu
    name = choose_strategy(values.strategy, *chosen)
    if name == "multiworker" and cluster is not None:
        meet(cluster, values.worker_patience)
    return make_strategy(name, *chosen)
