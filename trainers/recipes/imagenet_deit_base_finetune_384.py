"""DeiT-Base brought from 224 to 384 pixels on ImageNet.

Run:     python -m trainers train --recipe=imagenet_deit_base_finetune_384
             --output=runs/imagenet_deit_base_finetune_384
Try:     the same with --smoke: seconds, on the embedded digits
Expect:  83.1 % top-1 (DeiT, arXiv:2012.12877); the released weights give 82.9 %
Done:    not at this size, which needs ImageNet and accelerators; shrunk by
         --smoke in the tests
"""

from trainers.recipes._papers import FINETUNE_384

RECIPE = FINETUNE_384
