"""Measure the accuracy of each head of a model.

Top-1 and top-5 accuracy on the validation images of a dataset, prepared as the model's
weights expect (size, crop, normalization).

Example:
  python -m trainers evaluate --model=runs/student/last.keras --dataset=digits
"""

from absl import flags


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of this program."""
    flags.DEFINE_string(
        "model", None, "The model's .keras file; required.", flag_values=values
    )
    flags.mark_flag_as_required("model", flag_values=values)
    flags.DEFINE_string(
        "dataset",
        None,
        "'digits', a folder of class folders (or of train/ and val/), or a name of "
        "TensorFlow Datasets; required.",
        flag_values=values,
    )
    flags.mark_flag_as_required("dataset", flag_values=values)
    flags.DEFINE_integer("batch_size", 64, "Images in a batch.", flag_values=values)
    flags.DEFINE_bool(
        "download",
        False,
        "Allow a dataset of TensorFlow Datasets to be downloaded.",
        flag_values=values,
    )


def main(values: flags.FlagValues) -> None:
    """Prints the table."""
    from keras_deit.data.pipeline import evaluation_batches
    from keras_deit.data.sources import load_source, naming_unreadable_images
    from keras_deit.models.inference import input_size
    from keras_deit.models.preprocessing import preprocessing_of
    from keras_deit.training.evaluation import evaluate
    from keras_deit.training.report import print_scores
    from keras_deit.weights.loader import load_model

    model = load_model(values.model)
    source = load_source(values.dataset, "validation", values.download)
    batches = evaluation_batches(
        source,
        input_size(model),
        values.batch_size,
        preprocessing_of(model).crop_ratio,
    )
    with naming_unreadable_images(source):
        scores = evaluate(model, batches)
    title = f"{values.model}: {source.num_examples:,} images of {source.name}"
    print_scores(title, scores)
