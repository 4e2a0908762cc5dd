"""Numbers of the papers and their official code that several recipes share."""

from dataclasses import replace

from keras_deit.training.recipe import Recipe

# DeiT: arXiv:2012.12877, table 9, and the defaults of the official `main.py`, most of
# which are those of `Recipe`. The official code keeps an average and never looks at it.
DEIT = Recipe(
    variant="deit_tiny_patch16_224",
    dataset="imagenet2012",
    model_overrides={"drop_path_rate": 0.1},
    repeats=3,
    schedule="late_epochs",
    ema_decay=0.99996,
)

# The paper's, section 5.2; the official code divides the soft loss by the number of
# classes too.
SOFT = {"kind": "soft", "alpha": 0.1, "temperature": 3.0, "reduction": "numel"}
HARD = {"kind": "hard", "alpha": 0.5}

# From 224 to 384 pixels: official README. The learning rate stays where the warm-up
# ends, the model in inference mode, so there is no stochastic depth.
FINETUNE_384 = replace(
    DEIT,
    variant="deit_base_patch16_224",
    image_size=384,
    model_overrides={},
    weights="pretrained",
    train_mode=False,
    epochs=30,
    batch_size=512,
    learning_rate=5e-6,
    min_learning_rate=5e-6,
    weight_decay=1e-8,
)

# Other datasets: issue 45 of the official repository, for CIFAR-10 and Cars.
TRANSFER = replace(
    DEIT,
    variant="deit_base_patch16_224",
    dataset="cifar10",
    model_overrides={},
    weights="pretrained",
    train_mode=False,
    erasing=0.0,
    epochs=1000,
    batch_size=768,
    optimizer="sgd",
    learning_rate=0.01,
    learning_rate_batch=None,
    # PyTorch's SGD adds 1e-4 times the weight to the gradient, and momentum multiplies
    # it by 1 / (1 - 0.9); ours decays the weight itself.
    weight_decay=1e-3,
)

# iNaturalist: issues 105 and 141 of the official repository; the rate is not scaled.
INATURALIST = replace(
    DEIT,
    variant="deit_base_patch16_224",
    dataset="i_naturalist2018",
    weights="pretrained",
    erasing=0.1,
    epochs=360,
    batch_size=768,
    learning_rate=7.5e-5,
    learning_rate_batch=None,
)

# T2T-ViT: the official `main.py`, and its README for what differs between the sizes.
T2T = Recipe(
    variant="t2t_vit_7",
    dataset="imagenet2012",
    model_overrides={"drop_path_rate": 0.1},
    epochs=310,
    batch_size=512,
    learning_rate=1e-3,
    learning_rate_batch=None,
    schedule="epochs",
    warmup_epochs=10,
    cooldown_epochs=10,
    ema_decay=0.99996,
    seed=42,
)

# EViT from scratch: the official `run_code.sh`.
EVIT = replace(
    DEIT,
    variant="evit_small_patch16_224",
    batch_size=2048,
    keep_rate_start_epoch=10,
    keep_rate_ramp_epochs=100,
)

# EViT from the weights of DeiT: the official `finetune.sh`. The variant is DeiT's,
# since these are the weights to start from.
EVIT_FINETUNE = replace(
    DEIT,
    variant="deit_small_patch16_224",
    model_overrides={"keep_rate": 0.7},
    weights="pretrained",
    train_mode=False,
    epochs=30,
    batch_size=2048,
    learning_rate=2e-5,
    warmup_epochs=0,
    min_learning_rate=2e-6,
    weight_decay=1e-6,
)
