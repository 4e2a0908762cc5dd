"""CIFAR-100 at 224 pixels, from the ImageNet weights of DeiT-Base.

Run:     python -m trainers train --recipe=cifar100_deit_base_finetune
             --output=runs/cifar100_deit_base_finetune
Try:     the same with --smoke: seconds, on the embedded digits
Expect:  90.8 % top-1 (DeiT, arXiv:2012.12877); hyperparameters: those of
         CIFAR-10, since none were published that fit
Done:    not at this size, which needs an accelerator; shrunk by --smoke in the
         tests
"""

from dataclasses import replace

from trainers.recipes._papers import TRANSFER

RECIPE = replace(TRANSFER, dataset="cifar100")
