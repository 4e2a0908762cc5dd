"""DeiT-Small on ImageNet with a distillation token and hard distillation.

Run:     python -m trainers train --recipe=imagenet_deit_small_distilled_hard
             --teacher=regnety_160.keras
             --output=runs/imagenet_deit_small_distilled_hard
Try:     the same with --smoke: seconds, on the embedded digits
Expect:  81.2 % top-1, both heads fused (DeiT, arXiv:2012.12877)
Done:    not at this size, which needs ImageNet and accelerators; shrunk by
         --smoke in the tests
"""

from dataclasses import replace

from trainers.recipes._papers import HARD
from trainers.recipes.imagenet_deit_small import RECIPE as PLAIN

RECIPE = replace(PLAIN, variant="deit_small_distilled_patch16_224", **HARD)
