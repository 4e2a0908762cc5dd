import pytest

from keras_deit.models.variants import VARIANTS
from trainers.variants import PRINTED


def table(rows_of, said):
    """The rows of the table, by the name of the variant."""
    heading, *rows = rows_of(said)
    return {row[0]: dict(zip(heading, row, strict=True)) for row in rows}


def test_counts_our_own_variants_exactly(run_program, rows_of):
    done = run_program("variants", "--pattern=*micro*")
    assert (done.code, done.err) == (0, "")
    assert done.out.strip().startswith("4 variants, with 1000 classes")
    rows = table(rows_of, done.out)
    assert {name: (row["parameters"], row["GMACs"]) for name, row in rows.items()} == {
        "deit_micro_distilled_patch4_32": ("337,552", "0.016"),
        "deit_micro_patch4_32": ("272,424", "0.015"),
        "regnety_micro_32": ("272,468", "0.006"),
        "t2t_vit_micro_32": ("259,518", "0.016"),
    }
    for row in rows.values():
        assert (row["input"], row["source"]) == ("32 x 32", "our own")
        assert row["slides M"] == row["slides G"] == row["top-1"] == ""
    # Nothing is printed of them, so no note follows the legend.
    legend = done.out.splitlines()[-2:]
    assert legend == [
        "slides M, slides G: millions of parameters, and GMACs, as the slides say",
        "top-1: of the published weights on ImageNet, in percent, as their authors say",
    ]


@pytest.mark.parametrize(
    ("name", "row", "note"),
    [
        (
            "t2t_vit_7",
            ["4,310,222", "1.147", "224 x 224", "4.2", "1.1", "71.7", "T2T-ViT"],
            "printed with 8 blocks; it has 7, and 4.3 M.",
        ),
        (
            "vit_small_depth8_patch16_224",
            ["48,754,408", "9.889", "224 x 224", "48.6", "10.1", "", "T2T-ViT"],
            "printed 786 wide with an MLP of 2358; it is 768 wide with 2304. 48.6 M "
            "leaves out the class token and the positions, and the GMACs are 9.9.",
        ),
    ],
)
def test_what_the_slides_print_stands_beside_with_what_is_wrong_there(
    run_program, rows_of, name, row, note
):
    done = run_program("variants", f"--pattern={name}")
    assert (done.code, done.err) == (0, "")
    assert "1 variant, with 1000 classes" in done.out
    assert rows_of(done.out)[1:] == [[name, *row]]
    assert done.out.splitlines()[-1] == f"{name}: {note}"


def test_what_is_printed_is_of_variants_that_exist():
    assert set(PRINTED) <= set(VARIANTS)


def test_a_pattern_of_no_name_is_refused(refusal):
    message = refusal("variants", "--pattern=vgg*")
    assert message == "No variant has such a name. Received: pattern='vgg*'."
