"""What a step changes without a gradient: seeds and moving statistics."""

import keras
import tensorflow as tf

_SEED = "seed_generator_state"  # Keras' name of it: (seed, count)
_STRIDE = 0x9E3779B1  # from a replica's seeds to those of the next one


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

    def read(self) -> list:
        """Returns the values, with this replica's seeds."""
        variables = self._model.non_trainable_variables
        return [self._shifted(v, tf.convert_to_tensor(v.value), 1) for v in variables]

    def scope(self, values) -> keras.StatelessScope:
        """A scope in which the layers see values, and change them, not the variables.

        Losses that layers add are in its `losses`.
        """
        variables = self._model.non_trainable_variables
        pairs = zip(variables, values, strict=True)
        return keras.StatelessScope(pairs, collect_losses=True)

    def after(self, scope: keras.StatelessScope) -> list:
        """Returns the values that a scope was left with."""
        variables = self._model.non_trainable_variables
        return [scope.get_current_value(variable) for variable in variables]

    def write(self, before, after) -> None:
        """Changes the variables whose values are not those from before."""
        variables = self._model.non_trainable_variables
        for variable, old, new in zip(variables, before, after, strict=True):
            if new is not old:
                variable.assign(self._shifted(variable, new, -1))

    def _shifted(self, variable, value, sign: int):
        """A seed, shifted to this replica's or back; any other value as it is."""
        replicas = tf.distribute.get_replica_context()
        if variable.name != _SEED or replicas.num_replicas_in_sync == 1:
            return value
        number = tf.cast(replicas.replica_id_in_sync_group, tf.int64)
        shift = tf.stack([number * _STRIDE, tf.zeros_like(number)])
        return value + tf.cast(sign * shift, value.dtype)
