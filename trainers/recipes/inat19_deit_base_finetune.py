"""iNaturalist 2019 at 224 pixels, from the ImageNet weights of DeiT-Base.

Run:     python -m trainers train --recipe=inat19_deit_base_finetune
             --dataset=FOLDER --output=runs/inat19_deit_base_finetune
Try:     the same with --smoke: seconds, on the embedded digits
Expect:  77.7 % top-1 (DeiT, arXiv:2012.12877); hyperparameters: issue 105 of the
         official repository
Done:    not at this size, which needs iNaturalist and accelerators; shrunk by
         --smoke in the tests
"""

from dataclasses import replace

from trainers.recipes._papers import INATURALIST

# TensorFlow Datasets does not have it: --dataset names its folder.
RECIPE = replace(INATURALIST, dataset="i_naturalist2019")
