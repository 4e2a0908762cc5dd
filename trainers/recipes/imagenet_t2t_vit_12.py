"""T2T-ViT-12 on ImageNet, as the official repository trains it.

Run:     python -m trainers train --recipe=imagenet_t2t_vit_12
             --output=runs/imagenet_t2t_vit_12
Try:     the same with --smoke: seconds, on the embedded digits
Expect:  76.5 % top-1 of the averaged weights (official README)
Done:    not at this size, which needs ImageNet and accelerators; shrunk by
         --smoke in the tests
"""

from dataclasses import replace

from trainers.recipes._papers import T2T

RECIPE = replace(T2T, variant="t2t_vit_12", learning_rate=1e-3, weight_decay=0.03)
