"""A small DeiT on CIFAR-10 at its own 32 pixels, for a CPU, on the labels alone.

Run:     python -m trainers train --recipe=cifar10_32_plain
             --output=runs/cifar10_32_plain
Try:     the same with --epochs=1
Expect:  not published; ours: 58.2 % top-1 after 6 epochs
Done:    on 21 November 2026, see docs/RECIPES.md; shrunk by --smoke in the tests
"""

from dataclasses import replace

from trainers.recipes.cifar10_32_teacher import RECIPE as TEACHER

RECIPE = replace(TEACHER, variant="deit_micro_patch4_32", epochs=6, learning_rate=2e-3)
