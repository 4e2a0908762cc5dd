"""The same small DeiT on the labels alone: what a teacher is compared with.

Run:     python -m trainers train --recipe=digits_plain --output=runs/plain
Try:     the same with --epochs=1
Expect:  96 to 98 % top-1 on the held-out fifth, a minute on two cores
Done:    by `make demo`, every time
"""

from dataclasses import replace

from trainers.recipes.digits_distilled import RECIPE as DISTILLED

RECIPE = replace(DISTILLED, variant="deit_micro_patch4_32", kind="none")
