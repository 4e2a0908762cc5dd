"""Oxford Flowers at 224 pixels, from the ImageNet weights of DeiT-Base.

Run:     python -m trainers train --recipe=flowers_deit_base_finetune
             --output=runs/flowers_deit_base_finetune
Try:     the same with --smoke: seconds, on the embedded digits
Expect:  98.4 % top-1 (DeiT, arXiv:2012.12877); hyperparameters were never
         published: those of CIFAR-10 with a smaller batch
Done:    not at this size, which needs an accelerator; shrunk by --smoke in the
         tests
"""

from dataclasses import replace

from trainers.recipes._papers import TRANSFER

RECIPE = replace(TRANSFER, dataset="oxford_flowers102", batch_size=256)
