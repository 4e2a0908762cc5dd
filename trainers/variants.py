"""List the variants: parameters, arithmetic, input, published accuracy, source.

Parameters and multiply-adds (GMACs: convolutions, dense layers and both products of
attention, for one image) are counted on the model that is built here. Beside them
stands what the slides print from which this project started, and below it what is wrong
there.

Examples:
  python -m trainers variants
  python -m trainers variants --pattern='t2t*'
"""

from absl import flags

# Millions of parameters and GMACs as the slides print them, and what is wrong there.
PRINTED = {
    "deit_tiny_patch16_224": ("5", "", ""),
    "deit_small_patch16_224": ("22.1", "4.6", ""),
    "deit_base_patch16_224": ("86", "", ""),
    "deit_small_distilled_patch16_224": (
        "22.1",
        "4.7",
        "the parameters printed are those without the distillation token",
    ),
    "t2t_vit_7": ("4.2", "1.1", "printed with 8 blocks; it has 7, and 4.3 M"),
    "t2t_vit_12": ("6.8", "1.8", "printed with 6.8 M; it has 6.9 M"),
    "t2t_vit_14": (
        "21.5",
        "4.8",
        "at 384 pixels 21.5 M and 17.1 G are printed; it has 21.7 M and 16.4 G",
    ),
    "t2t_vit_19": ("39.2", "8.5", ""),
    "t2t_vit_24": ("64.1", "13.8", "the GMACs are 13.7"),
    "t2t_vit_t_14": ("21.5", "6.1", ""),
    "vit_small_depth8_patch16_224": (
        "48.6",
        "10.1",
        "printed 786 wide with an MLP of 2358; it is 768 wide with 2304. 48.6 M leaves "
        "out the class token and the positions, and the GMACs are 9.9",
    ),
    "vit_base_patch16_224": (
        "86.8",
        "17.6",
        "printed 786 wide, with 86.8 M in one table and 86.4 M in another; it is 768 "
        "wide and has 86.6 M",
    ),
    "vit_large_patch16_224": ("304.3", "63.6", "the GMACs are 61.6"),
}
COLUMNS = (
    "variant",
    "parameters",
    "GMACs",
    "input",
    "slides M",
    "slides G",
    "top-1",
    "source",
)


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of this program."""
    flags.DEFINE_string(
        "pattern",
        "*",
        "Shell pattern of the names to list, for instance 'deit_*'.",
        flag_values=values,
    )


def main(values: flags.FlagValues) -> None:
    """Prints the table and the notes to it."""
    import keras
    from rich.console import Console
    from rich.progress import track

    from keras_deit._checks import check
    from keras_deit.models.variants import list_variants
    from keras_deit.training.report import print_table

    names = list_variants(values.pattern)
    check(bool(names), "No variant has such a name.", pattern=values.pattern)
    console = Console(stderr=True)
    rows = []
    for name in track(
        names, "Counting", console=console, disable=not console.is_terminal
    ):
        rows.append(_row(name))
        keras.backend.clear_session()  # the large ones add up
    number = "1 variant" if len(rows) == 1 else f"{len(rows)} variants"
    print_table(f"{number}, with 1000 classes", COLUMNS, rows)
    print("slides M, slides G: millions of parameters, and GMACs, as the slides say")
    print(
        "top-1: of the published weights on ImageNet, in percent, as their authors say"
    )
    for name in names:
        note = PRINTED.get(name, ("", "", ""))[2]
        if note:
            print(f"{name}: {note}.")


def _row(name: str) -> tuple:
    from keras_deit.models.complexity import count_macs, count_parameters
    from keras_deit.models.factory import build_model
    from keras_deit.models.variants import VARIANTS
    from keras_deit.weights.pretrained import PRETRAINED

    model = build_model(name)
    height, width = model.input_shape[1:3]
    parameters, gmacs, _ = PRINTED.get(name, ("", "", ""))
    published = PRETRAINED.get(name)
    return (
        name,
        f"{count_parameters(model):,}",
        f"{count_macs(model) / 1e9:.3f}",
        f"{height} x {width}",
        parameters,
        gmacs,
        f"{published.top1:.1f}" if published else "",
        VARIANTS[name].source.partition(",")[0],
    )
