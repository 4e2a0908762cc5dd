"""The small DeiT on CIFAR-10 at 32 pixels, for a CPU, with hard labels from a RegNetY.

Run:     python -m trainers train --recipe=cifar10_32_distilled
             --teacher=runs/cifar10_32_teacher/last.keras
             --output=runs/cifar10_32_distilled
Try:     the same with --epochs=1
Expect:  not published; ours: 59.3 % top-1, both heads fused, after 6 epochs
Done:    on 21 November 2026, see docs/RECIPES.md; shrunk by --smoke in the tests
"""

from dataclasses import replace

from trainers.recipes.cifar10_32_plain import RECIPE as PLAIN

RECIPE = replace(PLAIN, variant="deit_micro_distilled_patch4_32", kind="hard")
