"""DeiT-Base on ImageNet with a distillation token and soft distillation.

Run:     python -m trainers train --recipe=imagenet_deit_base_distilled_soft
             --teacher=regnety_160.keras
             --output=runs/imagenet_deit_base_distilled_soft
Try:     the same with --smoke: seconds, on the embedded digits
Expect:  not published; the paper has the token with hard distillation alone
Done:    not at this size, which needs ImageNet and accelerators; shrunk by
         --smoke in the tests
"""

from dataclasses import replace

from trainers.recipes._papers import SOFT
from trainers.recipes.imagenet_deit_base import RECIPE as PLAIN

RECIPE = replace(PLAIN, variant="deit_base_distilled_patch16_224", **SOFT)
