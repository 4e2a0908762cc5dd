"""T2T-ViT-24 on ImageNet, as the official repository trains it.

Run:     python -m trainers train --recipe=imagenet_t2t_vit_24
             --output=runs/imagenet_t2t_vit_24
Try:     the same with --smoke: seconds, on the embedded digits
Expect:  82.3 % top-1 of the averaged weights (official README)
Done:    not at this size, which needs ImageNet and accelerators; shrunk by
         --smoke in the tests
"""

from dataclasses import replace

from trainers.recipes._papers import T2T

RECIPE = replace(T2T, variant="t2t_vit_24", learning_rate=5e-4, weight_decay=0.065)
