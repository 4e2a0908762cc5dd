"""Measure the accuracy of each head of a model.

Top-1 and top-5 accuracy on the validation images of a dataset, prepared as the model's
weights expect (size, crop, normalization), and the classes that are known least. The
model is a .keras file, or a variant with published or other weights; for a model of
ImageNet's 1000 classes, the dataset may hold some of them, in folders called by WordNet
id (n01440764).

Examples:
  python -m trainers evaluate --model=runs/student/last.keras --dataset=digits
  python -m trainers evaluate --model=deit_small_patch16_224 --dataset=~/imagenet
  python -m trainers evaluate --model=t2t_vit_7 --weights=a.pth.tar --dataset=imagenette
"""

from absl import flags

from trainers import _model_flags


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of this program."""
    _model_flags.define(values)
    flags.DEFINE_string(
        "dataset",
        None,
        "'digits', a folder of class folders (or of train/ and val/, or val/ alone), "
        "or a name of TensorFlow Datasets; required.",
        flag_values=values,
    )
    flags.mark_flag_as_required("dataset", flag_values=values)
    flags.DEFINE_enum(
        "split",
        "validation",
        ["validation", "train", "all"],
        "Which images. Where there are no splits, a fifth (of TensorFlow Datasets a "
        "tenth) is held out for validation, as in training; 'all' takes every image.",
        flag_values=values,
    )
    flags.DEFINE_integer("batch_size", 64, "Images in a batch.", flag_values=values)
    flags.DEFINE_enum(
        "precision",
        "float32",
        ["float32", "bfloat16"],
        "In which the model computes, whatever it was trained in; bfloat16 is faster "
        "where the processor multiplies in it.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "worst",
        10,
        "How many of the worst classes to list.",
        lower_bound=0,
        flag_values=values,
    )
    flags.DEFINE_bool(
        "download",
        False,
        "Allow a dataset of TensorFlow Datasets to be downloaded.",
        flag_values=values,
    )


def main(values: flags.FlagValues) -> None:
    """Prints the tables."""
    from keras_deit.data.image_folder import naming_unreadable_images
    from keras_deit.data.imagenet import NUM_CLASSES, among_imagenet
    from keras_deit.data.pipeline import evaluation_batches
    from keras_deit.data.sources import load_source
    from keras_deit.models.inference import input_size, num_classes
    from keras_deit.models.preprocessing import preprocessing_of
    from keras_deit.training.evaluation import evaluate, worst_classes
    from keras_deit.training.report import print_scores

    source = load_source(values.dataset, values.split, values.download)
    model = _model_flags.load(values)  # perhaps a download, hence last
    classes = num_classes(model)
    if classes == NUM_CLASSES and _model_flags.names_of_run(values) is None:
        source = among_imagenet(source)
    batches = evaluation_batches(
        source,
        input_size(model),
        values.batch_size,
        preprocessing_of(model).crop_ratio,
    )
    with naming_unreadable_images(source):
        evaluation = evaluate(model, batches, progress=True, precision=values.precision)
    title = f"{values.model}: {source.num_examples:,} images of {source.name}"
    print_scores(title, evaluation.scores)
    worst = worst_classes(evaluation.confusion, values.worst)
    if worst:
        head = list(evaluation.scores)[-1] if len(evaluation.scores) > 1 else None
        _print_worst(worst, _model_flags.class_names(values, classes), head)


def _print_worst(worst, names: list[str], head: str | None) -> None:
    from keras_deit.training.report import percent, print_table

    rows = [
        (
            names[score.label],
            score.num_images,
            percent(score.top1),
            names[score.mistaken_for],
        )
        for score in worst
    ]
    columns = ("class", "images", "top-1", "most often taken for")
    title = "The classes that are known least"
    print_table(f"{title}, by the {head} head" if head else title, columns, rows)
