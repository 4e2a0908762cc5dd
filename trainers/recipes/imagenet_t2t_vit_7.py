"""T2T-ViT-7 on ImageNet, as the official repository trains it.

Run:     python -m trainers train --recipe=imagenet_t2t_vit_7
             --output=runs/imagenet_t2t_vit_7
Try:     the same with --smoke: seconds, on the embedded digits
Expect:  71.7 % top-1 of the averaged weights (official README)
Done:    not at this size, which needs ImageNet and accelerators; shrunk by
         --smoke in the tests
"""

from dataclasses import replace

from trainers.recipes._papers import T2T

RECIPE = replace(T2T, variant="t2t_vit_7", learning_rate=1e-3, weight_decay=0.03)
