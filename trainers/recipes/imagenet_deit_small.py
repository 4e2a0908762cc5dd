"""DeiT-Small on ImageNet, on the labels alone, as in the paper.

Run:     python -m trainers train --recipe=imagenet_deit_small
             --output=runs/imagenet_deit_small
Try:     the same with --smoke: seconds, on the embedded digits
Expect:  79.8 % top-1 (DeiT, arXiv:2012.12877: no distillation)
Done:    not at this size, which needs ImageNet and accelerators; shrunk by
         --smoke in the tests
"""

from dataclasses import replace

from trainers.recipes._papers import DEIT

RECIPE = replace(DEIT, variant="deit_small_patch16_224")
