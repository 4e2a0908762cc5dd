"""DeiT-Base on ImageNet with soft distillation and no token for it.

Run:     python -m trainers train --recipe=imagenet_deit_base_soft
             --teacher=regnety_160.keras --output=runs/imagenet_deit_base_soft
Try:     the same with --smoke: seconds, on the embedded digits
Expect:  81.8 % top-1 (DeiT, arXiv:2012.12877: usual distillation, no token)
Done:    not at this size, which needs ImageNet and accelerators; shrunk by
         --smoke in the tests
"""

from dataclasses import replace

from trainers.recipes._papers import SOFT
from trainers.recipes.imagenet_deit_base import RECIPE as PLAIN

RECIPE = replace(PLAIN, **SOFT)
