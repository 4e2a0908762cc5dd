"""A small RegNetY on CIFAR-10 at its own 32 pixels, for a CPU: a teacher.

Run:     python -m trainers train_teacher --recipe=cifar10_32_teacher
             --output=runs/cifar10_32_teacher
Try:     the same with --epochs=1
Expect:  not published; ours: 66.4 % top-1 after 4 epochs
Done:    on 21 November 2026, see docs/RECIPES.md; shrunk by --smoke in the tests
"""

from keras_deit.training.recipe import Recipe

# In so few epochs nothing is learned by heart: crops and mirroring are enough.
RECIPE = Recipe(
    variant="regnety_micro_32",
    dataset="cifar10",
    crop_area=(0.5, 1.0),
    rand_augment=None,
    erasing=0.0,
    mixup=0.0,
    cutmix=0.0,
    epochs=4,
    batch_size=128,
    learning_rate=5e-3,
    learning_rate_batch=None,
    warmup_epochs=1,
)
