"""A small RegNetY on scikit-learn's handwritten digits: the teacher of the demo.

Run:     python -m trainers train_teacher --recipe=digits_teacher --output=runs/teacher
Try:     the same with --epochs=1
Expect:  about 99 % top-1 on the held-out fifth, half a minute on two cores
Done:    by `make demo`, every time
"""

from keras_deit.training.recipe import Recipe

RECIPE = Recipe(
    variant="regnety_micro_32",
    dataset="digits",
    crop_area=(0.7, 1.0),
    crop_aspect_ratio=(0.8, 1.25),
    flip=False,  # a mirrored 2 is no 2
    rand_augment=None,
    erasing=0.0,
    mixup=0.0,
    cutmix=0.0,
    epochs=10,
    batch_size=32,
    learning_rate=1e-2,
    learning_rate_batch=None,
    warmup_epochs=1,
)
