"""EViT from the weights of DeiT-Base, 30 epochs, keep rate 0.7, fused token.

Run:     python -m trainers train --recipe=imagenet_evit_base_finetune
             --output=runs/imagenet_evit_base_finetune
Try:     the same with --smoke: seconds, on the embedded digits
Expect:  not published
Done:    not at this size, which needs ImageNet and accelerators; shrunk by
         --smoke in the tests
"""

from dataclasses import replace

from trainers.recipes._papers import EVIT_FINETUNE

RECIPE = replace(EVIT_FINETUNE, variant="deit_base_patch16_224")
