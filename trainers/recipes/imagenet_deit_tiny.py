"""DeiT-Tiny on ImageNet, on the labels alone, as in the paper.

Run:     python -m trainers train --recipe=imagenet_deit_tiny
             --output=runs/imagenet_deit_tiny
Try:     the same with --smoke: seconds, on the embedded digits
Expect:  72.2 % top-1 (DeiT, arXiv:2012.12877: no distillation)
Done:    not at this size, which needs ImageNet and accelerators; shrunk by
         --smoke in the tests
"""

from trainers.recipes._papers import DEIT

RECIPE = DEIT
