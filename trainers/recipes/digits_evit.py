"""The small distilled DeiT on handwritten digits, which drops tokens on its way.

Run:     python -m trainers train --recipe=digits_evit
             --teacher=runs/teacher/last.keras --output=runs/evit
Try:     the same with --epochs=3
Expect:  not published: it shows how the keep rate falls in three stages
Done:    shrunk by --smoke in the tests
"""

from dataclasses import replace

from trainers.recipes.digits_distilled import RECIPE as DISTILLED

RECIPE = replace(
    DISTILLED,
    model_overrides={"keep_rate": 0.7},
    keep_rate_start_epoch=6,
    keep_rate_ramp_epochs=12,
    keep_rate_stages=3,
)
