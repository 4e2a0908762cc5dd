"""DeiT-Small on ImageNet with hard distillation and no token for it.

Run:     python -m trainers train --recipe=imagenet_deit_small_hard
             --teacher=regnety_160.keras --output=runs/imagenet_deit_small_hard
Try:     the same with --smoke: seconds, on the embedded digits
Expect:  80.9 % top-1 (DeiT, arXiv:2012.12877: hard distillation, no token)
Done:    not at this size, which needs ImageNet and accelerators; shrunk by
         --smoke in the tests
"""

from dataclasses import replace

from trainers.recipes._papers import HARD
from trainers.recipes.imagenet_deit_small import RECIPE as PLAIN

RECIPE = replace(PLAIN, **HARD)
