"""How large the datasets of the recipes are, known without reading them."""

from dataclasses import dataclass

from keras_deit._checks import check


@dataclass(frozen=True)
class DatasetSize:
    """How large a training split is.

    Attributes:
        num_examples: Images.
        num_classes: Classes.
        file_kilobytes: Mean size of an image file, in 10^3 bytes; None if not known.
    """

    num_examples: int
    num_classes: int
    file_kilobytes: float | None = None


# The training splits of the datasets of our recipes, as `load_source` finds them. Mean
# sizes: of the digits those of the pixels, of CIFAR those of TensorFlow Datasets; of
# ImageNet the 147,897,477,120 bytes of ILSVRC2012_img_train.tar over its images.
DATASETS = {
    "digits": DatasetSize(1_438, 10, 3.1),
    "cifar10": DatasetSize(50_000, 10, 2.3),
    "cifar100": DatasetSize(50_000, 100, 2.3),
    "cars196": DatasetSize(8_144, 196),
    "oxford_flowers102": DatasetSize(1_020, 102),
    "i_naturalist2018": DatasetSize(437_513, 8_142),
    "i_naturalist2019": DatasetSize(265_213, 1_010),
    "imagenet2012": DatasetSize(1_281_167, 1_000, 115.4),
}


def dataset_size(
    name: str,
    num_examples: int | None = None,
    num_classes: int | None = None,
    file_kilobytes: float | None = None,
) -> DatasetSize:
    """Finds the size of a training split without reading it.

    Args:
        name: The recipe's dataset.
        num_examples: Images, in place of the known number.
        num_classes: Classes, in place of the known number.
        file_kilobytes: Mean size of a file, in place of the known one, in 10^3 bytes.

    Raises:
        ValueError: If the number of images or classes is neither known nor given, or a
            number is not positive.
    """
    given = {
        "num_examples": num_examples,
        "num_classes": num_classes,
        "file_kilobytes": file_kilobytes,
    }
    for field, number in given.items():
        rule = f"`{field}` must be positive."
        check(number is None or number > 0, rule, **{field: number})
    given = {field: number for field, number in given.items() if number is not None}
    known = vars(DATASETS[name]) if name in DATASETS else {}
    check(
        {"num_examples", "num_classes"} <= {**known, **given}.keys(),
        f"`num_examples` and `num_classes` must be given for a dataset that is none of "
        f"{sorted(DATASETS)}: no dataset is read here.",
        dataset=name,
        num_examples=num_examples,
        num_classes=num_classes,
    )
    return DatasetSize(**{**known, **given})
