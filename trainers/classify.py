"""Say what is on a picture: the five best classes and their probabilities.

The picture is prepared as the model's weights expect (size, crop, normalization). The
model is a .keras file, or a variant with published or other weights.

Examples:
  python -m trainers classify --model=deit_tiny_patch16_224 cat.jpg
  python -m trainers classify --model=runs/student/best.keras a.png b.png
"""

from absl import flags

from trainers import _model_flags

ARGUMENTS = "IMAGE ..."


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of this program."""
    _model_flags.define(values)
    _model_flags.define_head(values)
    flags.DEFINE_integer("top", 5, "How many classes to list.", flag_values=values)


def main(values: flags.FlagValues, images: list[str]) -> None:
    """Prints a table for each picture."""
    import tensorflow as tf

    from keras_deit._checks import check
    from keras_deit.data.geometry import evaluation_view, read_image
    from keras_deit.models.inference import input_size, num_classes
    from keras_deit.models.preprocessing import preprocessing_of
    from keras_deit.training.compiled import compiled
    from keras_deit.training.report import percent, print_table

    check(bool(images), "Give at least one picture.", images=images)
    check(values.top >= 1, "`top` must be at least 1.", top=values.top)
    pictures = [read_image(path) for path in images]  # all are readable, or none is run
    model = _model_flags.load(values)
    logits_of = compiled(model, head=values.head)
    names = _model_flags.class_names(values, num_classes(model))
    crop_ratio = preprocessing_of(model).crop_ratio
    for path, picture in zip(images, pictures, strict=True):
        view = evaluation_view(picture, input_size(model), crop_ratio)
        shares = tf.nn.softmax(logits_of(view))
        best = tf.math.top_k(shares, min(values.top, len(names)))
        rows = [
            (names[label], percent(float(share)))
            for share, label in zip(best.values, best.indices.numpy(), strict=True)
        ]
        print_table(path, ("class", "probability"), rows)
