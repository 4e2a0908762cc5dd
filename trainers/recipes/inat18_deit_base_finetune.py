"""iNaturalist 2018 at 224 pixels, from the ImageNet weights of DeiT-Base.

Run:     python -m trainers train --recipe=inat18_deit_base_finetune
             --output=runs/inat18_deit_base_finetune
Try:     the same with --smoke: seconds, on the embedded digits
Expect:  73.2 % top-1 (DeiT, arXiv:2012.12877); hyperparameters: issue 105 of the
         official repository
Done:    not at this size, which needs iNaturalist and accelerators; shrunk by
         --smoke in the tests
"""

from trainers.recipes._papers import INATURALIST

RECIPE = INATURALIST
