"""CIFAR-10 at 224 pixels, from the ImageNet weights of DeiT-Base.

Run:     python -m trainers train --recipe=cifar10_deit_base_finetune
             --output=runs/cifar10_deit_base_finetune
Try:     the same with --smoke: seconds, on the embedded digits
Expect:  99.1 % top-1 (DeiT, arXiv:2012.12877); hyperparameters: issue 45 of the
         official repository
Done:    not at this size, which needs an accelerator; shrunk by --smoke in the
         tests
"""

from trainers.recipes._papers import TRANSFER

RECIPE = TRANSFER
