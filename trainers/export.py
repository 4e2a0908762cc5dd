r"""Export a model for servers, browsers and phones, and prove that it is the same.

Writes, NAME being the last part of OUTPUT:

  saved_model   OUTPUT/<version>/, with the next free version, for TF Serving
  tflite        OUTPUT/NAME.tflite, for LiteRT: phones, browsers, small machines
  openvino      OUTPUT/NAME.xml and NAME.bin, for Intel processors
  onnx          OUTPUT/NAME.onnx

Each is loaded again and compared with the model on real images. The table says how far
it is, how often it names the same class, how accurate and how fast it is; all of it is
in the certificate beside the artifact. One that is too far makes the program fail, and
is not kept.

A format may name a precision, FORMAT:PRECISION, which then is part of the file's name
(not of a SavedModel's):

  saved_model   float32, bfloat16 (weights frozen; for processors that multiply in it)
  tflite        dynamic_int8 (the default: a quarter of the size, fast on CPUs),
                float32, float16, int8 (layers with weights in integers)
  openvino      float32, bfloat16
  onnx          float32

Examples:
  python -m trainers export --model=runs/student/last.keras --output=saved_models/digits
  python -m trainers export --model=deit_tiny_patch16_224 --output=saved_models/deit \
      --dataset=~/imagenet/val --formats=saved_model,tflite,tflite:float16
  python -m trainers export --model=evit_small_patch16_224 --output=saved_models/evit \
      --keep_rates=1,0.7,0.5 --explain
"""

from pathlib import Path

from absl import flags

from trainers import _model_flags

PRECISIONS = {
    "saved_model": ("float32", "bfloat16"),
    "tflite": ("dynamic_int8", "float32", "float16", "int8"),
    "openvino": ("float32", "bfloat16"),
    "onnx": ("float32",),
}
ENGINES = {"openvino": "OpenVINO", "onnx": "ONNX"}
SUFFIXES = {"tflite": ".tflite", "openvino": ".xml", "onnx": ".onnx"}
NUM_CALIBRATION_IMAGES = 128
WORST_LAYERS = 10


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
        "formats",
        "saved_model,tflite",
        "What to export: each FORMAT or FORMAT:PRECISION.",
        flag_values=values,
    )
    _model_flags.define_head(values)
    flags.DEFINE_list(
        "keep_rates",
        [],
        "The dial of a SavedModel in float32 and of a TFLite file: one set of weights "
        "with a signature for each keep rate, keep_100, keep_70, ...",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "explain",
        False,
        "Give a SavedModel in float32 a signature that shows where a transformer "
        "looks; see visualize.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "sensitivity",
        False,
        "Say which layers int8 hurts, in NAME.int8.sensitivity.csv.",
        flag_values=values,
    )
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
        "On whose validation images the artifacts are checked; the ranges of int8 are "
        "taken from its training images. Images of the model's own task tell most.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "num_images",
        256,
        "On how many images to check, drawn from all.",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_bool(
        "timed",
        True,
        "Measure how fast each artifact is as well: some seconds for each signature.",
        flag_values=values,
    )
    flags.DEFINE_float(
        "min_agreement",
        None,
        "Share of the images on which the best class must be the model's; by default "
        "0.99 for float16, 0.98 for bfloat16, 0.97 for dynamic_int8 and 0 for int8; in "
        "float32 it follows from the largest difference, but for ties.",
        lower_bound=0.0,
        upper_bound=1.0,
        flag_values=values,
    )


def main(values: flags.FlagValues) -> None:
    """Exports, and prints what was written."""
    from keras_deit import export
    from keras_deit.data.sources import load_source
    from keras_deit.models.inference import num_classes

    plan = _plan(values)
    labels = (
        Path(values.labels).read_text("utf-8").splitlines() if values.labels else None
    )
    source = load_source(values.dataset, "validation")
    model = _model_flags.load(values)  # perhaps a download, hence after the rest
    if labels is None:
        labels = _model_flags.class_names(values, num_classes(model))
    images, image_labels = _images(source, labels, values.num_images)
    given = {
        "labels": labels,
        "images": images,
        "image_labels": image_labels,
        "head": values.head,
        "min_agreement": values.min_agreement,
        "timed": values.timed,
    }
    if any(precision == "int8" for _, precision, *_ in plan):
        train = load_source(values.dataset, "train")
        calibration_images, _ = _images(train, labels, NUM_CALIBRATION_IMAGES)
    for kind, precision, path, options in plan:
        if precision == "int8":
            options["calibration_images"] = calibration_images
        written = getattr(export, kind)(model, path, **given, **options)
        print(f"Written: {written}", flush=True)
        if "sensitivity" in options:
            _print_sensitivity(path)
    print(
        f"Done: {len(plan)} of {len(plan)} artifacts with their proofs in "
        f"{values.output}/"
    )


def _plan(values: flags.FlagValues) -> list[tuple[str, str, Path, dict]]:
    """Each format, precision, place and options; refuses what has no meaning."""
    from keras_deit._checks import check, check_choice
    from keras_deit.export.dial import check_keep_rates
    from keras_deit.export.engines import check_installed

    check(bool(values.formats), "`formats` must name one.", formats=values.formats)
    rates = check_keep_rates(_rates(values.keep_rates))
    output, plan = Path(values.output), []
    for text in values.formats:
        kind, _, precision = text.strip().partition(":")
        check_choice("formats", kind, PRECISIONS)
        check_choice(
            f"formats={kind}", precision or PRECISIONS[kind][0], PRECISIONS[kind]
        )
        path = output
        if kind in SUFFIXES:
            middle = f".{precision}" if precision else ""
            path = output / f"{output.absolute().name}{middle}{SUFFIXES[kind]}"
        if kind in ENGINES:
            check_installed(ENGINES[kind])
        precision = precision or PRECISIONS[kind][0]
        options = _options(values, kind, precision)
        if rates and "keep_rates" not in options:
            print(f"{kind}, {precision}: keeps its own rate, there is no dial.")
        plan.append((kind, precision, path, options))
    used = {name for *_, options in plan for name in options}
    for name in ("keep_rates", "explain", "sensitivity"):
        check(
            not values[name].value or name in used,
            f"`{name}` has no meaning for these formats.",
            **{name: values[name].value},
            formats=values.formats,
        )
    return plan


def _options(values: flags.FlagValues, kind: str, precision: str) -> dict:
    """The options that have a meaning for a format, where they are given."""
    dialed = kind == "tflite" or (kind, precision) == ("saved_model", "float32")
    options = {"precision": precision} if len(PRECISIONS[kind]) > 1 else {}
    if values.keep_rates and dialed:
        options["keep_rates"] = _rates(values.keep_rates)
    if values.explain and (kind, precision) == ("saved_model", "float32"):
        options["explain"] = True
    if values.sensitivity and precision == "int8":
        options["sensitivity"] = True
    return options


def _print_sensitivity(path: Path) -> None:
    """Prints the layers that int8 hurts most."""
    from keras_deit.export.sensitivity import read_sensitivity
    from keras_deit.training.report import print_table

    file = path.with_suffix(".sensitivity.csv")
    rows = read_sensitivity(file)[:WORST_LAYERS]
    cells = [(r.layer, r.operator, f"{r.relative_error:.3f}") for r in rows]
    print_table(f"What int8 hurts most ({file})", ("layer", "operator", "error"), cells)


def _rates(texts: list[str]) -> tuple[float, ...]:
    from keras_deit._checks import check

    try:
        return tuple(float(text) for text in texts)
    except ValueError:
        check(False, "`keep_rates` must be numbers.", keep_rates=texts)


def _images(source, labels: list[str], count: int) -> tuple[list, list | None]:
    """Draws images, and their classes if the dataset's are those of the model."""
    from keras_deit.data.image_folder import naming_unreadable_images
    from keras_deit.data.imagenet import NUM_CLASSES, among_imagenet, imagenet_synsets

    if len(labels) == NUM_CLASSES and set(source.class_names) <= {*imagenet_synsets()}:
        source = among_imagenet(source)
        known = True
    else:
        known = list(source.class_names) == list(labels)
    with naming_unreadable_images(source):
        examples = list(source.shuffled(seed=0, epoch=0).take(count))
    images = [example["image"].numpy() for example in examples]
    return images, [int(e["label"]) for e in examples] if known else None
