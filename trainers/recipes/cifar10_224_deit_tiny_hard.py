"""DeiT-Tiny on CIFAR-10 at 224 pixels, with hard labels from a RegNetY.

Run:     python -m trainers train --recipe=cifar10_224_deit_tiny_hard
             --teacher=runs/cifar10_224_teacher/last.keras
             --output=runs/cifar10_224_deit_tiny_hard
Try:     the same with --smoke: seconds, on the embedded digits
Expect:  not published; the slides that this project started from have about
         69.0 % after 85 epochs of a slower recipe
Done:    not at this size, which needs an accelerator; shrunk by --smoke in the
         tests
"""

from dataclasses import replace

from trainers.recipes.cifar10_224_deit_tiny import RECIPE as PLAIN

RECIPE = replace(PLAIN, variant="deit_tiny_distilled_patch16_224", kind="hard")
