"""DeiT-Tiny on ImageNet with hard distillation and no token for it.

Run:     python -m trainers train --recipe=imagenet_deit_tiny_hard
             --teacher=regnety_160.keras --output=runs/imagenet_deit_tiny_hard
Try:     the same with --smoke: seconds, on the embedded digits
Expect:  74.3 % top-1 (DeiT, arXiv:2012.12877: hard distillation, no token)
Done:    not at this size, which needs ImageNet and accelerators; shrunk by
         --smoke in the tests
"""

from dataclasses import replace

from trainers.recipes._papers import HARD
from trainers.recipes.imagenet_deit_tiny import RECIPE as PLAIN

RECIPE = replace(PLAIN, **HARD)
