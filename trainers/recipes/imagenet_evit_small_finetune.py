"""EViT from the weights of DeiT-Small, 30 epochs, keep rate 0.7, fused token.

Run:     python -m trainers train --recipe=imagenet_evit_small_finetune
             --output=runs/imagenet_evit_small_finetune
Try:     the same with --smoke: seconds, on the embedded digits
Expect:  79.5 % top-1 (the authors in issue 9 of their repository; a reader there
         repeated it with 79.35 %)
Done:    not at this size, which needs ImageNet and accelerators; shrunk by
         --smoke in the tests
"""

from trainers.recipes._papers import EVIT_FINETUNE

RECIPE = EVIT_FINETUNE
