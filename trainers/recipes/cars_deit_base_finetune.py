"""Stanford Cars at 224 pixels, from the ImageNet weights of DeiT-Base.

Run:     python -m trainers train --recipe=cars_deit_base_finetune
             --output=runs/cars_deit_base_finetune
Try:     the same with --smoke: seconds, on the embedded digits
Expect:  92.1 % top-1 (DeiT, arXiv:2012.12877); hyperparameters: issue 45 of the
         official repository
Done:    not at this size, which needs an accelerator; shrunk by --smoke in the
         tests
"""

from dataclasses import replace

from trainers.recipes._papers import TRANSFER

RECIPE = replace(TRANSFER, dataset="cars196")
