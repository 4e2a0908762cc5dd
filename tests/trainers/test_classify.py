import keras
import numpy as np
import pytest
from PIL import Image

SHARES = [0.04, 0.3, 0.01, 0.2, 0.02, 0.1, 0.15, 0.05, 0.03, 0.1]


@pytest.fixture
def images(tmp_path):
    """Two small pictures, of other endings."""
    random = np.random.default_rng(0)
    paths = [tmp_path / "a.png", tmp_path / "b.bmp"]
    for path in paths:
        Image.fromarray(random.integers(0, 256, (32, 32, 3), np.uint8)).save(path)
    return paths


@pytest.fixture
def classified(run_program, rows_of):
    """Classifies; the rows of each picture's table, without their headings."""

    def run(*arguments):
        done = run_program("classify", *arguments)
        assert (done.code, done.err) == (0, "")
        rows = rows_of(done.out)
        heads = [i for i, row in enumerate(rows) if row == ["class", "probability"]]
        ends = [*heads[1:], len(rows)]
        return [rows[i + 1 : end] for i, end in zip(heads, ends, strict=True)]

    return run


def test_the_five_best_classes_are_worked_out_by_hand(classified, answering, images):
    (rows,) = classified(*answering(SHARES), images[0])
    # Of two alike (5 and 9) the first comes first.
    assert rows == [
        ["1", "30.00 %"],
        ["3", "20.00 %"],
        ["6", "15.00 %"],
        ["5", "10.00 %"],
        ["9", "10.00 %"],
    ]


def test_a_head_is_chosen(classified, answering, images):
    # In logits, class 0 is ln 4 above class 1 by the class head, ln 1/9 by the other:
    # on average ln 2/3, so 0.4. The mean of the probabilities is 0.45.
    flags = answering([0.8, 0.2], [0.1, 0.9])
    expected = {"class": 80, "distillation": 10, "fused": 40, "fused_softmax": 45}
    for head, share in expected.items():
        (rows,) = classified(*flags, f"--head={head}", images[0])
        assert dict(rows) == {"0": f"{share}.00 %", "1": f"{100 - share}.00 %"}
    (rows,) = classified(*flags, images[0])
    assert dict(rows)["0"] == "40.00 %"


def test_each_picture_has_its_own_table_under_its_path(
    classified, run_program, student, images
):
    path = f"{student.folder}/last.keras"
    tables = classified(f"--model={path}", *images)
    model = keras.models.load_model(path, compile=False)
    for image, rows in zip(images, tables, strict=True):
        with Image.open(image) as opened:
            logits = model.predict(np.asarray(opened)[None], verbose=0)
        logits = (logits["class"][0] + logits["distillation"][0]) / 2
        shares = np.exp(logits) / np.exp(logits).sum()
        best = np.argsort(-shares)[:5]
        assert [name for name, _ in rows] == [str(label) for label in best]
        found = [float(share.removesuffix(" %")) for _, share in rows]
        np.testing.assert_allclose(found, 100 * shares[best], atol=0.006)
        assert found == sorted(found, reverse=True)
        assert sum(found) <= 100
    assert tables[0] != tables[1]
    out = run_program("classify", f"--model={path}", *images).out
    assert [x for x in out.splitlines() if x in map(str, images)] == [*map(str, images)]


def test_a_picture_is_cropped_as_the_model_expects(classified, micro, tmp_path):
    random = np.random.default_rng(2)
    wide = random.integers(0, 256, (32, 64, 3), np.uint8)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    Image.fromarray(wide[:, 16:48]).save(tmp_path / "center.png")
    Image.fromarray(wide[:, :32]).save(tmp_path / "left.png")
    names = ("wide.png", "center.png", "left.png")
    wide, center, left = classified(*micro, *(tmp_path / name for name in names))
    assert wide == center != left


@pytest.mark.parametrize(("top", "count"), [(1, 1), (3, 3), (10, 10), (99, 10)])
def test_more_or_fewer_classes_are_listed(classified, micro, images, top, count):
    (rows,) = classified(*micro, f"--top={top}", images[0])
    assert len(rows) == len({name for name, _ in rows}) == count


def test_a_flag_may_follow_the_pictures(classified, micro, images):
    assert len(classified(*micro, *images, "--top=2")[1]) == 2
    assert classified(*images, *micro) == classified(*micro, *images)


def test_the_classes_have_the_names_that_the_run_left(
    classified, student, images, tmp_path
):
    copy = tmp_path / "copy.keras"
    copy.write_bytes((student.folder / "last.keras").read_bytes())
    (numbered,) = classified(f"--model={copy}", images[0])
    digits = [f"digit {label}" for label in range(10)]
    (tmp_path / "labels.txt").write_text("\n".join(digits) + "\n")
    (named,) = classified(f"--model={copy}", images[0])
    assert named == [[digits[int(label)], share] for label, share in numbered]


def test_1000_classes_are_called_as_imagenet_does(
    classified, answering, images, names_of_imagenet
):
    shares = np.full(1000, 0.5 / 997)
    shares[[281, 999, 0]] = (0.3, 0.15, 0.05)
    (rows,) = classified(*answering(shares), "--top=3", images[0])
    assert rows == [
        ["animal 281", "30.00 %"],
        ["animal 999", "15.00 %"],
        ["animal 0", "5.00 %"],
    ]


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("gone.png", "There is no file '{}/gone.png'."),
        (
            "text.png",
            "`path` must be a whole JPEG, PNG, BMP or GIF image. Received: pa",
        ),
    ],
)
def test_a_picture_that_cannot_be_read_is_refused_before_any_is_classified(
    run_program, micro, images, tmp_path, name, part
):
    (tmp_path / "text.png").write_text("hello")
    done = run_program("classify", *micro, images[0], tmp_path / name)
    assert (done.code, done.out) == (1, "")
    assert part.format(tmp_path) in done.err
    assert name in done.err


def test_bad_input_ends_in_one_message(refusal, micro, student, teacher, images):
    assert refusal("classify", *micro).startswith("Give at least one picture.")
    message = refusal("classify", *micro, "--top=0", images[0])
    assert message == "`top` must be at least 1. Received: top=0."
    model = f"--model={teacher.folder}/last.keras"
    message = refusal("classify", model, "--head=distillation", images[0])
    assert "The model has one head, 'class'." in message
