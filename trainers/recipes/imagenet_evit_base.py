"""EViT on DeiT-Base from scratch, keep rate 0.7, fused token.

Run:     python -m trainers train --recipe=imagenet_evit_base
             --output=runs/imagenet_evit_base
Try:     the same with --smoke: seconds, on the embedded digits
Expect:  81.3 % top-1 (EViT-DeiT-B at keep rate 0.7, as a survey cites it)
Done:    not at this size, which needs ImageNet and accelerators; shrunk by
         --smoke in the tests
"""

from dataclasses import replace

from trainers.recipes._papers import EVIT

RECIPE = replace(EVIT, variant="evit_base_patch16_224")
