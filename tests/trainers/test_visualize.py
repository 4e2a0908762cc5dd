import csv
import io
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_deit.models.explanation import explanation_model
from keras_deit.models.factory import build_model
from trainers import _pictures
from trainers._disagreement import Answers, views_of
from trainers._explainers import Explanation, SavedModelExplainer
from trainers._pictures import Panel, painted

NAMES = ["$ant$ of a very, very long name", "bee", "cat"]


@pytest.fixture(autouse=True)
def coarse(monkeypatch):
    """Fewer dots, for speed."""
    monkeypatch.setattr(_pictures, "DPI", 20)
    monkeypatch.setattr(_pictures, "FINE", 32)


@pytest.fixture(scope="module")
def distilled():
    """A model with two heads, at a size that is not square, that drops tokens."""
    keras.utils.set_random_seed(0)
    name = "deit_micro_distilled_patch4_32"
    options = {"depth": 2, "image_size": (24, 32), "keep_rate": 0.5}
    model = build_model(name, 3, embed_dim=16, num_heads=2, **options)
    for weight in model.trainable_weights:
        weight.assign(weight + 0.3 * keras.random.normal(weight.shape))
    return model


@pytest.fixture(scope="module")
def run_folder(distilled, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    distilled.save(folder / "last.keras")
    (folder / "labels.txt").write_text("\n".join(NAMES) + "\n")
    return folder


@pytest.fixture(scope="module")
def saved_model(distilled, tmp_path_factory):
    """A SavedModel that explains; of `export.saved_model` it has what is looked at."""
    explanation, base = explanation_model(distilled), tmp_path_factory.mktemp("served")

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, "image_bytes")])
    def explain(image_bytes):
        pixels = tf.io.decode_png(image_bytes[0], 3)[None]
        pixels = tf.ensure_shape(pixels, (1, 24, 32, 3))
        outputs = explanation(tf.cast(pixels, tf.float32), training=False)
        decoded = tf.strings.length(image_bytes) < 5000
        return {**outputs, "status": tf.where(decoded, "ok", "too_many_bytes")}

    module = tf.Module()
    module.explanation = explanation
    for version in ("9", "10"):
        folder = base / version
        tf.saved_model.save(module, folder, {"explain": explain})
        seen = {"image_size": [24, 32], "crop_ratio": 1.0}
        certificate = json.dumps({"preprocessing": seen, "max_bytes": 5000})
        (folder / "certificate.json").write_text(certificate)
        (folder / "assets" / "labels.txt").write_text("\n".join(NAMES) + "\n")
    return base


@pytest.fixture(scope="module")
def blind_saved_model(tmp_path_factory):
    """A SavedModel that says the same of all files, and takes 2000 pixels at most."""
    shapes = {"logits": (3,), "attention": (1, 1, 6, 8), "rollout": (1, 6, 8)}

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, "image_bytes")])
    def explain(image_bytes):
        outputs = {name: tf.ones((1, *shape)) for name, shape in shapes.items()}
        long = tf.strings.length(image_bytes) > 5000
        return {**outputs, "status": tf.where(long, "said so by the model", "ok")}

    folder = tmp_path_factory.mktemp("blind")
    tf.saved_model.save(tf.Module(), folder, {"explain": explain})
    seen = {"image_size": [24, 32], "crop_ratio": 1.0}
    certificate = {"preprocessing": seen, "max_bytes": 9000, "max_pixels": 2000}
    (folder / "certificate.json").write_text(json.dumps(certificate))
    (folder / "assets" / "labels.txt").write_text("\n".join(NAMES) + "\n")
    return folder


@pytest.fixture
def saying(tmp_path):
    """`saying(*shares)`: a model that answers any image so, by each head: its flag."""

    def flag(*shares):
        name = ("deit_micro_patch4_32", "deit_micro_distilled_patch4_32")[
            len(shares) - 1
        ]
        model = build_model(name, 3, depth=1, embed_dim=16, num_heads=2)
        for head, probabilities in zip(("class", "distillation"), shares, strict=False):
            kernel, bias = model.get_layer(f"{head}_head").weights
            kernel.assign(keras.ops.zeros_like(kernel))
            bias.assign(np.log(probabilities))
        model.save(tmp_path / "saying.keras")
        return f"--model={tmp_path}/saying.keras"

    return flag


@pytest.fixture
def picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.fixture
def three_folders(tmp_path):
    """A dataset of two ants, one bee and one cat."""
    random, folder = np.random.default_rng(0), tmp_path / "three"
    for name, count in (("ant", 2), ("bee", 1), ("cat", 1)):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = random.integers(0, 256, (24, 32, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
    return folder


def drawn(monkeypatch):
    """What is drawn, by file; the files are made all the same."""
    seen, draw = {}, _pictures.draw

    def keep(path, title, sections, *arguments, **options):
        seen[path.name] = (title, sections)
        draw(path, title, sections, *arguments, **options)

    monkeypatch.setattr(_pictures, "draw", keep)
    return seen


def six_answers():
    best = {
        "class": np.array([0, 1, 0, 2, 1, 1]),
        "distillation": np.array([0, 1, 1, 2, 2, 2]),
        "fused": np.array([0, 1, 1, 2, 2, 1]),
    }
    sure = {
        "class": np.array([0.9, 0.9, 0.5, 0.9, 0.8, 0.6]),
        "distillation": np.array([0.9, 0.9, 0.4, 0.9, 0.7, 0.95]),
        "fused": np.full(6, 0.5),
    }
    return Answers(np.array([0, 1, 0, 0, 2, 0]), best, sure)


def test_every_image_is_one_of_five_cases_by_hand():
    answers = six_answers()
    cases = {name: np.flatnonzero(x).tolist() for name, x in answers.outcomes().items()}
    assert cases == {
        "both right": [0, 1],
        "only the class head right": [2],
        "only the distillation head right": [4],
        "both wrong, the same answer": [3],
        "both wrong, different answers": [5],
    }
    np.testing.assert_array_equal(np.flatnonzero(answers.differ), [2, 4, 5])
    # The less sure of both heads: 0.4, 0.7, 0.6.
    assert answers.surest(16).tolist() == [4, 5, 2]
    assert answers.surest(2).tolist() == [4, 5]


def test_the_classes_that_the_heads_differ_on_most_come_first():
    # Class 2: its one image. Class 0: 2 and 5 of four, and each head is right twice,
    # on 0 and on one more. Class 1: none.
    rows = six_answers().worst_classes(9)
    assert rows == [(2, 1, 1.0, 0.0, 1.0), (0, 4, 0.5, 0.5, 0.25)]
    assert six_answers().worst_classes(1) == rows[:1]


def test_what_is_painted_by_hand(monkeypatch):
    monkeypatch.setattr(_pictures, "FINE", 4)
    view = np.full((2, 2, 3), [255, 0, 102], np.uint8)
    np.testing.assert_allclose(
        painted(Panel(("",), view)), np.full((4, 4, 3), [1, 0, 0.4])
    )
    # What was dropped is 85 % white.
    kept = np.array([[True, False]])
    pixels = painted(Panel(("",), view, kept=kept))
    np.testing.assert_allclose(pixels[:, :2], np.full((4, 2, 3), [1, 0, 0.4]))
    np.testing.assert_allclose(pixels[:, 2:], np.full((4, 2, 3), [1, 0.85, 0.91]))


def test_a_map_is_scaled_by_the_patches_that_are_there():
    # Even: all have the smallest value, a quarter of the color, which is black, and
    # three of the grey of the view, 0.6.
    view = np.full((256, 256, 3), [255, 102, 102], np.uint8)
    even = painted(Panel(("",), view, np.full((2, 2), 7.0)))
    np.testing.assert_allclose(even, np.full((256, 256, 3), 0.75 * 0.6), atol=0.005)
    # The dropped patch has the smallest number, and does not count.
    heat, kept = np.array([[1.0, 2.0, 0.0]]), np.array([[True, True, False]])
    pixels = painted(Panel(("",), view, heat, kept))
    np.testing.assert_allclose(pixels[:, 30], 0.75 * np.full((256, 3), 0.6), atol=0.02)
    bright = pixels[:, 120]
    assert np.all(bright[:, 0] > 0.8) and np.all(bright[:, 2] < bright[:, 0])
    assert np.all(pixels[:, 180:] >= 0.85)


def test_a_picture_is_drawn_with_all_that_the_model_looked_at(
    run_program, run_folder, distilled, picture, tmp_path, monkeypatch
):
    seen, output = drawn(monkeypatch), tmp_path / "new" / "out"
    model = f"--model={run_folder}/last.keras"
    done = run_program("visualize", model, f"--output={output}", picture)
    assert (done.code, done.err) == (0, "")
    assert done.out == f"Written to {output}: a-attention.png\n"
    with Image.open(output / "a-attention.png") as image:
        assert image.size == (262, 155)  # 6 panels of 2 inches
        assert len(image.getcolors(2**24)) > 1000
    title, sections = seen["a-attention.png"]
    pixels = np.asarray(Image.open(picture))[None]
    outputs = explanation_model(distilled)(pixels)
    shares = keras.ops.softmax(outputs["logits"][0]).numpy()
    order = np.argsort(-shares)
    said = ", ".join(f"{NAMES[i]} {100 * shares[i]:.1f} %" for i in order)
    assert title == f"a.png: {said}"
    first, by_class, by_distillation = sections.values()
    assert [panel.lines for panel in first] == [
        ("24 x 32 pixels",),
        ("rollout of the class token",),
        ("rollout of the distillation token",),
        ("stage 1: 24 of 48 patches",),
        ("stage 2: 12 of 48 patches",),
    ]
    np.testing.assert_array_equal(first[0].view, pixels[0])
    for panel, rollout in zip(first[1:3], outputs["rollout"][0], strict=True):
        np.testing.assert_allclose(panel.heat, rollout, rtol=1e-4)
    for panel, kept in zip(first[3:], outputs["kept"][0], strict=True):
        np.testing.assert_array_equal(panel.kept, kept)
    for index, panels in enumerate((by_class, by_distillation)):
        for block, panel in enumerate(panels):
            heat = outputs["attention"][0, block, index].numpy()
            np.testing.assert_allclose(panel.heat, heat, rtol=1e-4)
            np.testing.assert_array_equal(panel.kept, heat > 0)
            assert panel.lines == (f"block {block}, up to {100 * heat.max():.1f} %",)


@pytest.mark.slow
def test_a_saved_model_explains_as_its_model_does(
    run_program, run_folder, saved_model, picture, tmp_path, monkeypatch
):
    seen = drawn(monkeypatch)
    for model in (run_folder / "last.keras", saved_model, saved_model / "9"):
        done = run_program(
            "visualize", f"--model={model}", f"--output={tmp_path}/o", picture
        )
        assert (done.code, done.err) == (0, "")
        title, sections = seen.pop("a-attention.png")
        found = title, keras.tree.map_structure(painted, list(sections.values()))
        if model.suffix == ".keras":
            expected = found
        assert found[0] == expected[0]
        keras.tree.map_structure(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-3),
            found[1],
            expected[1],
        )


@pytest.mark.slow
def test_the_last_version_of_a_saved_model_is_taken(saved_model, picture):
    explainer = SavedModelExplainer(saved_model)
    assert explainer.names == NAMES
    one = explainer.explain(str(picture))
    assert isinstance(one, Explanation)
    (saved_model / "9" / "saved_model.pb").rename(saved_model / "9" / "gone.pb")
    other = SavedModelExplainer(saved_model).explain(str(picture))
    np.testing.assert_array_equal(other.rollout, one.rollout)
    (saved_model / "9" / "gone.pb").rename(saved_model / "9" / "saved_model.pb")


def test_pictures_of_one_name_have_files_of_their_own(
    run_program, run_folder, picture, tmp_path
):
    (tmp_path / "b").mkdir()
    other = tmp_path / "b" / "a.png"
    other.write_bytes(picture.read_bytes())
    flags = (f"--model={run_folder}/last.keras", f"--output={tmp_path}")
    done = run_program("visualize", *flags, picture, other)
    assert (done.code, done.err) == (0, "")
    files = "a-attention.png, a-2-attention.png"
    assert done.out == f"Written to {tmp_path}: {files}\n"
    assert (tmp_path / "a-attention.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "a-2-attention.png").is_file()


def test_a_picture_that_is_called_like_a_numbered_one_has_its_own_file(
    run_program, blind_saved_model, picture, tmp_path
):
    others = [tmp_path / "b" / "a.png", tmp_path / "a-2.png", tmp_path / "c" / "a.png"]
    for other in others:
        other.parent.mkdir(exist_ok=True)
        other.write_bytes(picture.read_bytes())
    flags = (f"--model={blind_saved_model}", f"--output={tmp_path}/out")
    done = run_program("visualize", *flags, picture, *others)
    assert (done.code, done.err) == (0, "")
    files = [f"{stem}-attention.png" for stem in ("a", "a-2", "a-2-2", "a-3")]
    assert done.out == f"Written to {tmp_path}/out: {', '.join(files)}\n"
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == sorted(files)


def test_of_a_saved_model_the_view_is_what_its_signature_sees(
    run_program, blind_saved_model, tmp_path, monkeypatch
):
    # Of a GIF it sees the first frame, wherever that lies on its canvas.
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "GIF")
    data = bytearray(file.getvalue())
    data[6:10] = 48, 0, 40, 0  # width and height of the canvas
    frame = data.index(b",\0\0\0\0 \0\x18\0")  # left, top, width and height
    data[frame + 1 : frame + 5] = 8, 0, 16, 0
    (tmp_path / "a.gif").write_bytes(data)
    seen = drawn(monkeypatch)
    flags = (f"--model={blind_saved_model}", f"--output={tmp_path}/out")
    done = run_program("visualize", *flags, tmp_path / "a.gif")
    assert (done.code, done.err) == (0, "")
    title, sections = seen["a-attention.png"]
    view = next(iter(sections.values()))[0].view
    np.testing.assert_array_equal(view, np.repeat(pixels[..., None], 3, -1))
    assert title.startswith("a.gif: $ant$ of a very, very long name 33.3 %, bee 33.3")


def test_what_a_saved_model_refuses_is_named_before_anything_is_drawn(
    refusal, blind_saved_model, picture, tmp_path
):
    other, whole = tmp_path / "other.png", picture.read_bytes()
    Image.new("RGB", (40, 51)).save(other)  # 2040 pixels
    flags = (f"--model={blind_saved_model}", f"--output={tmp_path}/out")
    assert refusal("visualize", *flags, picture, other) == (
        "The SavedModel refuses the image. "
        f"Received: path='{other}', why='too_many_pixels'."
    )
    assert not (tmp_path / "out").exists()
    explainer = SavedModelExplainer(blind_saved_model)
    for data, why in (
        (whole + bytes(9001 - len(whole)), "too_many_bytes"),
        (whole[:100], "not_decodable"),
    ):
        other.write_bytes(data)
        with pytest.raises(ValueError, match=f"path='{other}', why='{why}'"):
            explainer.view(str(other))
    other.write_bytes(whole + bytes(5000))
    explainer.view(str(other))
    with pytest.raises(ValueError, match=f"path='{other}', why='said so by the model'"):
        explainer.explain(str(other))
    with pytest.raises(FileNotFoundError, match="There is no file '.*gone.png'"):
        explainer.view(str(tmp_path / "gone.png"))


def test_the_heads_are_compared_by_hand(
    run_program, rows_of, saying, three_folders, tmp_path, monkeypatch
):
    # Whatever the image, the class head says ant, the distillation head bee, and the
    # mean of the logits ant: 0.7 / 0.2 is more than 0.6 / 0.3.
    model = saying([0.7, 0.2, 0.1], [0.3, 0.6, 0.1])
    seen, output = drawn(monkeypatch), tmp_path / "out"
    flags = (f"--dataset={three_folders}", "--split=all", "--batch_size=3")
    done = run_program("visualize", model, *flags, "--examples=3", f"--output={output}")
    assert (done.code, done.err) == (0, "")
    last = f"Written to {output}: disagreements.csv, disagreements.png"
    assert done.out.splitlines()[-1] == last
    assert rows_of(done.out) == [
        ["case", "images", "share", "fused is right"],
        ["both right", "0", "0.00 %", "0"],
        ["only the class head right", "2", "50.00 %", "2"],
        ["only the distillation head right", "1", "25.00 %", "0"],
        ["both wrong, the same answer", "0", "0.00 %", "0"],
        ["both wrong, different answers", "1", "25.00 %", "0"],
        ["the heads differ", "4", "100.00 %", "2"],
        ["class", "images", "differ", "class right", "distillation right"],
        ["0", "2", "100.00 %", "100.00 %", "0.00 %"],
        ["1", "1", "100.00 %", "0.00 %", "100.00 %"],
        ["2", "1", "100.00 %", "0.00 %", "0.00 %"],
    ]
    with (output / "disagreements.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    assert rows[2] == {
        "index": "2",
        "image": str(three_folders / "bee" / "0.png"),
        "label": "1",
        "class": "0",
        "class_probability": "0.7000",
        "class_right": "0",
        "distillation": "1",
        "distillation_probability": "0.6000",
        "distillation_right": "1",
        "fused": "0",
        "fused_probability": rows[2]["fused_probability"],
        "fused_right": "0",
    }
    title, sections = seen["disagreements.png"]
    assert title == f"The heads differ on 4 of 4 images of {three_folders}"
    (panels,) = sections.values()
    assert [panel.lines for panel in panels[:3]] == [
        ("image 0, label:", "0"),
        ("class head: 70.0 %", "0"),
        ("distillation head: 60.0 %", "1"),
    ]
    colors = [panel.color for panel in panels]
    right, wrong = _pictures.RIGHT, _pictures.WRONG
    assert colors == [*("black", right, wrong) * 2, "black", wrong, right]


def test_images_of_a_dataset_are_found_by_their_places(distilled, three_folders):
    from keras_deit.data.sources import load_source

    source = load_source(str(three_folders), "all", False)
    views = views_of(distilled, source, [3, 1])
    assert set(views) == {1, 3}
    for place, file in ((1, "ant/1.png"), (3, "cat/0.png")):
        with Image.open(three_folders / file) as image:
            np.testing.assert_array_equal(views[place], np.asarray(image))


def test_heads_that_agree_leave_a_list_without_rows(
    run_program, saying, three_folders, picture, tmp_path
):
    model = saying([0.7, 0.2, 0.1], [0.6, 0.3, 0.1])
    (tmp_path / "labels.txt").write_text("ant\nbee\ncat\n")
    flags = (f"--dataset={three_folders}", "--split=all", f"--output={tmp_path}/out")
    done = run_program("visualize", model, *flags, picture)
    assert (done.code, done.err) == (0, "")
    written = f"Written to {tmp_path}/out: disagreements.csv, a-attention.png"
    assert done.out.splitlines()[-1] == written
    assert "differ on most" not in done.out
    assert len((tmp_path / "out/disagreements.csv").read_text().splitlines()) == 1


def test_a_model_of_other_classes_than_the_dataset_is_refused(
    refusal, saying, three_folders, tmp_path
):
    model = saying([0.7, 0.2, 0.1], [0.6, 0.3, 0.1])
    (tmp_path / "labels.txt").write_text("ant\ncat\nbee\n")
    output = f"--output={tmp_path}/out"
    data = (f"--dataset={three_folders}", "--split=all")
    assert refusal("visualize", model, output, *data) == (
        "Model and dataset must have the same classes, in the same order. Received: "
        "label=1, model_class='cat', dataset_class='bee'."
    )
    assert not (tmp_path / "out").exists()


OF_DATASET = {
    "--split=all": "split='all'",
    "--worst=10": "worst=10",
    "--examples=3": "examples=3",
    "--batch_size=3": "batch_size=3",
    "--download": "download=True",
}


@pytest.mark.parametrize("flag", OF_DATASET)
def test_flags_of_a_dataset_are_refused_without_one(refusal, flag, picture, tmp_path):
    name = flag.partition("=")[0]
    message = refusal("visualize", f"--model={tmp_path}/a.keras", flag, picture)
    assert message == (
        f"{name} is for a dataset: give one, --dataset=NAME. "
        f"Received: {OF_DATASET[flag]}."
    )
    message = refusal("visualize", f"--model={tmp_path}", flag, picture)
    assert message == (
        f"A SavedModel is whole and explains pictures: {name} is for other models. "
        f"Received: {OF_DATASET[flag]}."
    )


def test_a_folder_does_not_hide_the_variant_that_it_is_called_like(
    refusal, picture, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deit_micro_patch4_32").mkdir()
    message = refusal("visualize", "--model=deit_micro_patch4_32", picture)
    assert message.startswith("No weights of this variant are published: give a file")


def test_what_cannot_be_shown_ends_in_one_message(
    refusal, run_folder, saying, three_folders, picture, tmp_path
):
    output = f"--output={tmp_path}/out"
    two, one = f"--model={run_folder}/last.keras", saying([0.7, 0.2, 0.1])
    message = refusal("visualize", two, output)
    assert message.startswith("Give at least one picture, or a dataset (--dataset).")
    message = refusal("visualize", two, output, picture, tmp_path / "gone.png")
    assert message == f"There is no file '{tmp_path}/gone.png'."
    data = (f"--dataset={three_folders}", "--split=all")
    message = refusal("visualize", one, output, *data, picture)
    assert message.startswith("To compare its heads, a model must have two: a distil")
    message = refusal("visualize", two, output, "--dataset=digits")
    assert message.endswith("Received: model_classes=3, dataset_classes=10.")
    folder = f"--model={tmp_path}"
    message = refusal("visualize", folder, output, *data)
    assert message.startswith("A SavedModel is whole and explains pictures: --dataset")
    message = refusal("visualize", folder, output, "--keep_rate=0.5", picture)
    assert "--keep_rate is for other models" in message
    message = refusal("visualize", folder, output, picture)
    assert message.startswith("`--model` must be a folder with a SavedModel, or with")
    regnet = build_model("regnety_micro_32", 3, depth=2, stem_width=8, initial_width=8)
    regnet.save(tmp_path / "regnet.keras")
    message = refusal("visualize", f"{folder}/regnet.keras", output, picture)
    assert message.startswith("The model must be a ViT, DeiT, EViT or T2T-ViT of this")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_saved_model_that_cannot_explain_is_refused(
    refusal, saved_model, picture, tmp_path
):
    tf.saved_model.save(tf.Module(), tmp_path / "silent")
    message = refusal("visualize", f"--model={tmp_path}/silent", picture)
    assert message.startswith("The SavedModel must have a signature `explain`: ")
    assert f"model='{tmp_path}/silent', signatures=[]" in message
    padded = tmp_path / "padded.png"
    padded.write_bytes(picture.read_bytes() + bytes(5000))
    output = f"--output={tmp_path}/out"
    message = refusal("visualize", f"--model={saved_model}", output, padded)
    assert message == (
        "The SavedModel refuses the image. Received: "
        f"path='{padded}', why='too_many_bytes'."
    )
