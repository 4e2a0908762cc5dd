"""Show what a transformer looks at, and where its two heads disagree.

For each picture a PNG: the picture as the model sees it, the attention rollout of its
class token (and distillation token), the patches that stay where tokens are dropped,
and the attention of each block. With --dataset, for a distilled model: how often its
two heads disagree and which is right, the disagreements as a CSV file, and a PNG of
those where both heads are sure.

The model is a .keras file, a variant with published or other weights, or, for pictures,
the folder of a SavedModel that was exported with --explain.

Examples:
  python -m trainers visualize --model=deit_tiny_patch16_224 --keep_rate=0.7 cat.jpg
  python -m trainers visualize --model=runs/student/last.keras --dataset=digits
  python -m trainers visualize --model=saved_models/deit/1 a.png b.png
"""

from itertools import count
from pathlib import Path

from absl import flags

from trainers import _model_flags

ARGUMENTS = "[IMAGE ...]"
CSV_FILE, GRID_FILE = "disagreements.csv", "disagreements.png"
OF_DATASET = ("split", "batch_size", "examples", "worst", "download")  # flags
NOT_OF_SAVED_MODEL = (
    "weights",
    "num_classes",
    "image_size",
    "keep_rate",
    "dataset",
    *OF_DATASET,
)


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of this program."""
    _model_flags.define(values)
    flags.DEFINE_string(
        "output", "visualizations", "Folder of the pictures.", flag_values=values
    )
    flags.DEFINE_string(
        "dataset",
        None,
        "Where to look for disagreement: 'digits', a folder of class folders (or of "
        "train/ and val/, or val/ alone), or a name of TensorFlow Datasets.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "split",
        "validation",
        ["validation", "train", "all"],
        "Which images of the dataset; see python -m trainers evaluate --help.",
        flag_values=values,
    )
    flags.DEFINE_integer("batch_size", 64, "Images in a batch.", flag_values=values)
    flags.DEFINE_integer(
        "examples",
        16,
        "How many disagreements to draw.",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_integer(
        "worst",
        10,
        "How many of the classes with most disagreement to list.",
        lower_bound=0,
        flag_values=values,
    )
    flags.DEFINE_bool(
        "download",
        False,
        "Allow a dataset of TensorFlow Datasets to be downloaded.",
        flag_values=values,
    )


def main(values: flags.FlagValues, images: list[str]) -> None:
    """Draws the pictures and prints the tables."""
    from keras_deit._checks import check
    from keras_deit.models.variants import VARIANTS

    check(
        bool(images) or values.dataset is not None,
        "Give at least one picture, or a dataset (--dataset).",
        images=images,
    )
    output = Path(values.output)
    # A folder that is called like a variant does not hide the variant.
    if values.model not in VARIANTS and Path(values.model).is_dir():
        written = _draw_of_saved_model(values, images, output)
    else:
        written = _draw_of_model(values, images, output)
    print(f"Written to {output}: {', '.join(written)}")


def _draw_of_saved_model(values, images: list[str], output: Path) -> list[str]:
    from trainers._explainers import SavedModelExplainer

    rule = "A SavedModel is whole and explains pictures: --{} is for other models."
    _refuse(values, NOT_OF_SAVED_MODEL, rule)
    explainer = SavedModelExplainer(Path(values.model))
    for path in images:
        explainer.view(path)  # all are taken, or nothing is drawn
    return _draw_images(explainer.explain, explainer.names, images, output)


def _draw_of_model(values, images: list[str], output: Path) -> list[str]:
    from keras_deit.data.geometry import read_image
    from keras_deit.data.sources import load_source
    from keras_deit.models.inference import num_classes
    from trainers._explainers import explainer_of_model, file_explainer_of_model

    for path in images:
        read_image(path)  # all are readable, or nothing is drawn
    source = None
    if values.dataset is None:
        _refuse(values, OF_DATASET, "--{} is for a dataset: give one, --dataset=NAME.")
    else:
        source = load_source(values.dataset, values.split, values.download)
    model = _model_flags.load(values)  # perhaps a download, hence last
    names = _model_flags.class_names(values, num_classes(model))
    explain = explainer_of_model(model)
    written = []
    if source is not None:
        written += _compare_heads(values, model, explain, names, source, output)
    explain_file = file_explainer_of_model(model, explain)
    return written + _draw_images(explain_file, names, images, output)


def _refuse(values, names: tuple[str, ...], rule: str) -> None:
    """Refuses flags that would be ignored; `rule` has a place for the name of one."""
    from keras_deit._checks import check

    for name in names:
        flag = values[name]
        check(not flag.present, rule.format(name), **{name: flag.value})


def _draw_images(explain, names, images: list[str], output: Path) -> list[str]:
    """Draws what each picture's explanation says; returns the names of the files."""
    from keras_deit.training.progress import tracked
    from trainers._pictures import draw_explanation

    output.mkdir(parents=True, exist_ok=True)
    written = []
    for path in tracked(images, "Drawing", len(images)):
        stem = Path(path).stem
        stems = (f"{stem}-{n}" if n > 1 else stem for n in count(1))
        files = (f"{stem}-attention.png" for stem in stems)
        written.append(next(file for file in files if file not in written))
        draw_explanation(explain(path), names, Path(path).name, output / written[-1])
    return written


def _compare_heads(values, model, explain, names, source, output: Path) -> list[str]:
    """Prints who is right where the heads differ; lists and draws what they say."""
    from keras_deit.data.image_folder import naming_unreadable_images
    from keras_deit.data.imagenet import NUM_CLASSES, among_imagenet
    from trainers import _disagreement
    from trainers._pictures import draw_disagreements

    own_names = _model_flags.names_of_run(values)
    if len(names) == NUM_CLASSES and own_names is None:
        source = among_imagenet(source)
    with naming_unreadable_images(source):
        answers = _disagreement.answers_of(model, source, values.batch_size, own_names)
    title = f"{source.num_examples:,} images of {source.name}"
    heading = f"{values.model}: {title}"
    _disagreement.print_tables(answers, names, heading, values.worst)
    output.mkdir(parents=True, exist_ok=True)
    _disagreement.write_csv(answers, names, source.paths, output / CSV_FILE)
    chosen = answers.surest(values.examples).tolist()
    if not chosen:
        return [CSV_FILE]
    views = _disagreement.views_of(model, source, chosen)
    explanations = {index: explain(views[index]) for index in chosen}
    differ = f"The heads differ on {answers.differ.sum():,} of {title}"
    draw_disagreements(answers, explanations, names, differ, output / GRID_FILE)
    return [CSV_FILE, GRID_FILE]
