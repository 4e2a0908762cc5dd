"""What a step changes without a gradient: seeds and moving statistics."""

import keras
import tensorflow as tf

_SEED = "seed_generator_state"  # Keras' name of it: (seed, count)
_STRIDE = 0x9E3779B1  # from a replica's seeds to those of the next one


class _Scope(keras.StatelessScope):
    """Knows which variables were changed that it was given no value of."""

    def __init__(self, variables, values):
        pairs = zip(variables, values, strict=True)
        super().__init__(pairs, collect_losses=True)
        self._own = {id(variable) for variable in variables}
        self.others = {}

    def add_update(self, update):
        super().add_update(update)
        variable, value = update
        if id(variable) not in self._own:
            self.others[id(variable)] = variable, value


class SideState:
    """The untrained variables of a model, as values that pass through a step.

    Layers change their seeds and moving statistics where they are. In a step of several
    replicas all would then draw the same random numbers, since a seed is the same
    variable on each of them; and in a loop such a change is refused. So a step reads
    the values, hands them to the layers in a `keras.StatelessScope`, and writes what
    became of them.

    Each replica has seeds of its own: those of the model on the first one, whose number
    is 0; on number r they are shifted by r times a constant.

    Args:
        model: The model; its untrained variables are asked for at each step.
    """

    def __init__(self, model: keras.Model):
        self._model = model
        self._changed = set()  # places of the variables that layers change

    def read(self) -> list:
        """Returns the values, with this replica's seeds."""
        variables = self._model.non_trainable_variables
        return [self._shifted(v, tf.convert_to_tensor(v.value), 1) for v in variables]

    def scope(self, values) -> keras.StatelessScope:
        """A scope in which the layers see values, and change them, not the variables.

        Losses that layers add are in its `losses`.
        """
        return _Scope(self._model.non_trainable_variables, values)

    def after(self, scope: keras.StatelessScope, before) -> list:
        """Returns the values that a scope was left with, which was given `before`.

        What is not the model's, such as Keras' own seed of all numbers that are drawn
        without one, is changed here and now.
        """
        for variable, value in scope.others.values():
            variable.assign(value)
        variables = self._model.non_trainable_variables
        values = [scope.get_current_value(variable) for variable in variables]
        places = enumerate(zip(before, values, strict=True))
        self._changed |= {place for place, (old, new) in places if new is not old}
        return values

    def write(self, values) -> None:
        """Gives the variables that layers change their values after a step.

        Moving statistics become the mean of those of all replicas.
        """
        variables = self._model.non_trainable_variables
        places = sorted(self._changed)
        values = {i: self._shifted(variables[i], values[i], -1) for i in places}
        statistics = [i for i in places if values[i].dtype.is_floating]
        replicas = tf.distribute.get_replica_context()
        if statistics and replicas.num_replicas_in_sync > 1:
            means = replicas.all_reduce(
                tf.distribute.ReduceOp.MEAN, [values[i] for i in statistics]
            )
            values |= dict(zip(statistics, means, strict=True))
        for place, value in values.items():
            variables[place].assign(value)

    def _shifted(self, variable, value, sign: int):
        """A seed, shifted to this replica's or back; any other value as it is."""
        replicas = tf.distribute.get_replica_context()
        if variable.name != _SEED or replicas.num_replicas_in_sync == 1:
            return value
        number = tf.cast(replicas.replica_id_in_sync_group, tf.int64)
        shift = tf.stack([number * _STRIDE, tf.zeros_like(number)])
        return value + tf.cast(sign * shift, value.dtype)
