"""EViT on DeiT-Small from scratch, keep rate 0.7, fused token.

Run:     python -m trainers train --recipe=imagenet_evit_small
             --output=runs/imagenet_evit_small
Try:     the same with --smoke: seconds, on the embedded digits
Expect:  79.5 % top-1 (official README, keep rate 0.7, fused)
Done:    not at this size, which needs ImageNet and accelerators; shrunk by
         --smoke in the tests
"""

from trainers.recipes._papers import EVIT

RECIPE = EVIT
