"""DeiT-Tiny on CIFAR-10 at 224 pixels, on the labels alone.

Run:     python -m trainers train --recipe=cifar10_224_deit_tiny
             --output=runs/cifar10_224_deit_tiny
Try:     the same with --smoke: seconds, on the embedded digits
Expect:  not published; the slides that this project started from have about
         78.4 % after 175 epochs of a slower recipe
Done:    not at this size, which needs an accelerator; shrunk by --smoke in the
         tests
"""

from keras_deit.training.recipe import Recipe

# One of four that share seed, views, epochs and learning rate. Where the recipe of the
# slides repeated a third of the images in every epoch and learned at 6.25e-5, this one
# sees all images and learns at DeiT's rate for its batch, 5e-4.
RECIPE = Recipe(
    variant="deit_tiny_patch16_224",
    dataset="cifar10",
    model_overrides={"drop_path_rate": 0.1},
    epochs=100,
    batch_size=512,
)
