"""EViT-Tiny on CIFAR-10 at 224 pixels, on the labels alone.

Run:     python -m trainers train --recipe=cifar10_224_evit_tiny
             --output=runs/cifar10_224_evit_tiny
Try:     the same with --smoke: seconds, on the embedded digits
Expect:  not published; the slides that this project started from have about
         78.1 % after 215 epochs of a slower recipe
Done:    not at this size, which needs an accelerator; shrunk by --smoke in the
         tests
"""

from dataclasses import replace

from trainers.recipes.cifar10_224_deit_tiny import RECIPE as DEIT

RECIPE = replace(
    DEIT,
    variant="evit_tiny_patch16_224",
    keep_rate_start_epoch=10,
    keep_rate_ramp_epochs=30,
)
