"""Export a model for TF Serving and for the edge, and prove that it is the same.

Writes OUTPUT/<version>/ (a SavedModel, with the next free version) and
OUTPUT/NAME.tflite, NAME being the last part of OUTPUT. Each is loaded again and must
give the model's logits on real images; the proof is the certificate beside it. One
that does not makes the program fail, and is not kept.

Example:
  python -m trainers export --model=runs/student/last.keras --output=saved_models/digits
"""

from pathlib import Path

from absl import flags

FORMATS = ("saved_model", "tflite")


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of this program."""
    flags.DEFINE_string(
        "model", None, "The model's .keras file; required.", flag_values=values
    )
    flags.mark_flag_as_required("model", flag_values=values)
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
    flags.DEFINE_enum(
        "head",
        "fused",
        ["fused", "fused_softmax", "class", "distillation"],
        "Which head answers.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "labels",
        None,
        "Text file with the name of a class in each line. By default labels.txt beside "
        "the model, where a training run leaves it; without one, classes are numbered.",
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
    from keras_deit.data.sources import load_source, naming_unreadable_images
    from keras_deit.export import saved_model, tflite
    from keras_deit.export.certificate import NUM_CHECK_IMAGES
    from keras_deit.weights.loader import load_model

    check(bool(values.formats), "`formats` must name one.", formats=values.formats)
    for name in values.formats:
        check_choice("formats", name, FORMATS)
    model = load_model(values.model)
    labels = _labels(values.model, values.labels)
    source = load_source(values.dataset, "validation")
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


def _labels(model: str, labels: str | None) -> list[str] | None:
    path = Path(labels) if labels else Path(model).with_name("labels.txt")
    if labels is None and not path.exists():
        return None
    return path.read_text().splitlines()
