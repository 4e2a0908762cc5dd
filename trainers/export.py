"""Export a model for TF Serving and for the edge, and prove that it is the same.

Writes OUTPUT/<version>/ (a SavedModel, with the next free version) and
OUTPUT/NAME.tflite, NAME being the last part of OUTPUT. Each is loaded again and must
give the model's logits on real images; the proof is the certificate beside it. One
that does not makes the program fail, and is not kept.

Examples:
  python -m trainers export --model=runs/student/last.keras --output=saved_models/digits
  python -m trainers export --model=deit_tiny_patch16_224 --output=saved_models/deit
"""

from pathlib import Path

from absl import flags

from trainers import _model_flags

FORMATS = ("saved_model", "tflite")


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of this program."""
    _model_flags.define(values)
    flags.DEFINE_string(
        "output",
        None,
        "Folder of the artifacts, for instance saved_models/NAME; required.",
        flag_values=values,
    )
    flags.mark_flag_as_required("output", flag_values=values)
    flags.DEFINE_list(
        "formats", ",".join(FORMATS), "What to export.", flag_values=values
    )
    _model_flags.define_head(values)
    flags.DEFINE_string(
        "labels",
        None,
        "Text file with the name of a class in each line. By default labels.txt beside "
        "the model or its weights, where a training run leaves it; without one, "
        "ImageNet's names for 1000 classes, and numbers for others.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "dataset",
        "digits",
        "Whose validation images the artifacts are checked on.",
        flag_values=values,
    )


def main(values: flags.FlagValues) -> None:
    """Exports, and prints what was written."""
    from keras_deit._checks import check, check_choice
    from keras_deit.data.image_folder import naming_unreadable_images
    from keras_deit.data.sources import load_source
    from keras_deit.export import saved_model, tflite
    from keras_deit.export.certificate import NUM_CHECK_IMAGES
    from keras_deit.models.inference import num_classes

    check(bool(values.formats), "`formats` must name one.", formats=values.formats)
    for name in values.formats:
        check_choice("formats", name, FORMATS)
    labels = Path(values.labels).read_text().splitlines() if values.labels else None
    source = load_source(values.dataset, "validation")
    model = _model_flags.load(values)  # perhaps a download, hence after the rest
    if labels is None:
        labels = _model_flags.class_names(values, num_classes(model))
    with naming_unreadable_images(source):
        examples = list(source.in_order().take(NUM_CHECK_IMAGES))
    images = [example["image"].numpy() for example in examples]
    output = Path(values.output)
    if "saved_model" in values.formats:
        path = saved_model(model, output, labels, images, values.head)
        print(f"SavedModel: {path} (proof: {path / 'certificate.json'})")
    if "tflite" in values.formats:
        path = output / f"{output.absolute().name}.tflite"
        tflite(model, path, labels=labels, images=images, head=values.head)
        print(f"TFLite: {path} (proof: {path.with_suffix('.certificate.json')})")
