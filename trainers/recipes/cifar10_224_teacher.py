"""RegNetY-16GF brought from ImageNet to CIFAR-10 at 224 pixels: a teacher.

Run:     python -m trainers train_teacher --recipe=cifar10_224_teacher
             --output=runs/cifar10_224_teacher
Try:     the same with --smoke: seconds, on the embedded digits
Expect:  not published; the DeiT paper's RegNetY-16GF, trained on CIFAR-10 alone,
         has 98.0 % top-1
Done:    not at this size, which needs an accelerator; shrunk by --smoke in the
         tests

What went wrong in the slides' transfer, at 78 %, cannot happen here: while the head is
trained alone the network is in inference mode, so its batch norms keep the statistics
that they are used with; every epoch has new views of all images, where one view each of
a third of them was kept; the head is a part of the model that is saved and teaches, and
there is one format of files.
"""

from keras_deit.training.recipe import Recipe

RECIPE = Recipe(
    variant="regnety_160",
    dataset="cifar10",
    weights="pretrained",
    head_epochs=5,
    epochs=30,
    batch_size=256,
    learning_rate=2e-4,
    learning_rate_batch=None,
    warmup_epochs=2,
)
