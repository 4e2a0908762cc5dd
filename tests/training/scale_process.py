"""A process of `test_scale.py`: trains recipes on some devices, saves what came out.

python -m tests.training.scale_process CONFIG, in JSON: `strategy`, `devices`,
`workers`, `index`, `recipes` by name, `steps` and `output`, a file for each recipe.
"""

import json
import sys

import keras
import numpy as np

from keras_deit.training.cluster import find_cluster, meet
from keras_deit.training.parts import build
from keras_deit.training.recipe import recipe_from_dict
from keras_deit.training.strategies import make_strategy
from keras_deit.training.workers import Workers


class Losses(keras.callbacks.Callback):
    """Keeps what was reported after each step."""

    def __init__(self):
        super().__init__()
        self.rows = []

    def on_train_batch_end(self, batch, logs=None):
        self.rows.append([logs[name] for name in sorted(logs)])


def trained(recipe, workers, steps):
    """Losses of all steps, numbers of a validation, and the weights by their paths."""
    parts, losses = build(recipe, workers=workers), Losses()
    history = parts.distiller.fit(
        parts.training(0, 0),
        steps_per_epoch=steps,
        validation_data=parts.validation_of_all,
        callbacks=[losses],
        verbose=0,
    ).history
    validation = [history[n][0] for n in sorted(history) if n.startswith("val_")]
    weights = {weight.path: weight.numpy() for weight in parts.student.weights}
    assert parts.distiller.num_traces == 1
    return {"losses": losses.rows, "validation": validation, **weights}


def main(config):
    cluster = None
    if config["workers"]:
        cluster = find_cluster(config["workers"], config["index"])
        meet(cluster, patience=60)
    strategy = make_strategy(config["strategy"], config["devices"], cluster)
    workers = Workers(strategy)
    for name, values in config["recipes"].items():
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        out = trained(recipe_from_dict(values), workers, config["steps"])
        np.savez(f"{config['output']}-{name}-{workers.index}.npz", **out)
    workers.gather("done")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
