"""Costs of models by round numbers, and devices for them."""

from keras_deit.training.accelerators import Accelerator, Fleet
from keras_deit.training.model_costs import Activations, ModelCosts
from keras_deit.training.recipe import Recipe
from keras_deit.training.workload import Workload

GIGA = 10**9
# About DeiT-Small: 4.6 billion multiply-adds of which 4.5 are in the blocks.
STUDENT = ModelCosts(46 * GIGA // 10, 45 * GIGA // 10, 100, 80, 10, 8)
TEACHER = ModelCosts(16 * GIGA, 0, 1_000, 900, 20, 15)
ALONE = Workload(STUDENT, Activations(50, 20, 5))
TAUGHT = Workload(STUDENT, Activations(50, 20, 5), TEACHER, Activations(0, 0, 7))
DEVICE = Accelerator("X", {"float32": 100.0, "bfloat16": 200.0}, 1e-5)  # 10,000 bytes
FLEET = Fleet(1, 8, DEVICE)
RECIPE = Recipe("deit_micro_patch4_32", "digits", batch_size=64, epochs=10)
