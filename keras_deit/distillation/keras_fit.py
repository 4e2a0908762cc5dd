"""What `fit` of Keras 3 cannot do among several workers, and its repair.

Keras reduces a batch, and the numbers of a step, in ways that fail under
`MultiWorkerMirroredStrategy` (issue 20585 of Keras, open with 3.15). Both repairs are
methods of `Distiller` in the place of Keras' own.
"""

from collections.abc import Callable

import keras
import tensorflow as tf

from keras_deit._checks import check


def num_workers(strategy: tf.distribute.Strategy) -> int:
    """Over how many processes the replicas of a strategy are spread."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return 1
    jobs = strategy.cluster_resolver.cluster_spec().as_dict()
    return max(1, sum(len(jobs.get(job, ())) for job in ("chief", "worker")))


def function_of(step: Callable, model: keras.Model) -> Callable:
    """Makes what `fit` calls for each step, from a step of a replica.

    The step must return the same numbers on all replicas, so that those of the first
    one here are enough: Keras would take their mean over an axis that they do not have.

    Args:
        step: Called with a batch in each replica, returns a dict of scalars.
        model: Whose strategy and way of compiling are used.

    Returns:
        A function of an iterator of batches.

    Raises:
        ValueError: If `steps_per_execution` is above 1, steps are to run eagerly, or
            Keras is another one than what is repaired here.
    """
    check(
        hasattr(keras.Model, "_maybe_symbolic_build"),
        "`fit` among workers is repaired for Keras 3.15; this one is built otherwise.",
        keras=keras.__version__,
    )
    check(
        model.steps_per_execution == 1 and not model.run_eagerly,
        "Among several workers there is one compiled step for each call.",
        steps_per_execution=model.steps_per_execution,
        run_eagerly=model.run_eagerly,
    )
    strategy = model.distribute_strategy

    @tf.function(autograph=False, reduce_retracing=True, jit_compile=model.jit_compile)
    def step_of_all(data):
        numbers = strategy.run(step, args=(data,))
        return keras.tree.map_structure(
            lambda x: strategy.experimental_local_results(x)[0], numbers
        )

    return lambda iterator: step_of_all(next(iterator))
