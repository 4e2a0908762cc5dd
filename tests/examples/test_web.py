import base64
import contextlib
import functools
import http.server
import io
import json
import shutil
import subprocess
import tarfile
import threading
import urllib.parse
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from PIL import Image
from sklearn.datasets import load_digits

import keras_deit
from keras_deit import export
from keras_deit.data.geometry import decode_image, evaluation_view
from keras_deit.models.factory import build_model
from keras_deit.models.preprocessing import Preprocessing

PAGE = Path(__file__).parents[2] / "examples" / "web"
DRIVER = Path(__file__).parent / "drive_page.mjs"
RATES = (1.0, 0.7, 0.5)
SIGNATURES = ["keep_100", "keep_70", "keep_50"]
MARKUP = "<img src=nowhere onerror=alert(1)>"

pytestmark = pytest.mark.web


@pytest.fixture(scope="module", autouse=True)
def installed():
    """Skips, and says why, where the page cannot be run."""
    for program in ("node", "chromium"):
        if shutil.which(program) is None:
            pytest.skip(f"there is no {program}")
    for folder in ("node_modules/playwright-core", "vendor"):
        if not (PAGE / folder).is_dir():
            pytest.skip(f"there is no {folder} in examples/web: run npm install there")


@contextlib.contextmanager
def serving(folder, **headers):
    """Serves a folder on this machine, with headers; gives its address."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def end_headers(self):
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            super().end_headers()

        def log_message(self, *_):
            pass

    handler = functools.partial(Handler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The page as `web`, and a folder `models` beside it."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "web").symlink_to(PAGE, target_is_directory=True)
    (folder / "models").mkdir()
    return folder


@pytest.fixture(scope="module")
def address(site):
    with serving(site) as address:
        yield address


def view_of(path, size, crop_ratio):
    pixels = decode_image(tf.io.read_file(str(path)))
    return evaluation_view(pixels, size, crop_ratio).numpy()


@pytest.fixture(scope="module")
def micro(site, pictures):
    """A small model at a size that is not square, with a crop and three keep rates."""
    model = build_model(
        "deit_micro_patch4_32",
        10,
        depth=2,
        embed_dim=16,
        num_heads=2,
        reorganize_at=(0,),
        image_size=(48, 40),
        preprocessing=Preprocessing((0.4, 0.5, 0.6), (0.2, 0.3, 0.4), crop_ratio=0.8),
    )
    random = np.random.default_rng(0)
    for weight in model.weights:
        if weight.path.endswith("kernel"):  # so that tokens matter
            weight.assign(random.normal(size=weight.shape) / 2)
    # On the whole no class is more likely than another.
    views = np.stack([view_of(path, (48, 40), 0.8) for path in pictures])
    logits = model(views.astype("float32"), training=False)
    model.layers[-1].bias.assign_sub(tf.reduce_mean(logits, 0))
    labels = [MARKUP, *"123456789"]
    path = site / "models" / "small model.tflite"
    options = {"precision": "float32", "keep_rates": RATES, "verbose": False}
    return export.tflite(model, path, labels=labels, **options)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Twenty files of several kinds and shapes, some of them hard to read right."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    shapes = [(64, 64), (48, 40), (33, 90), (160, 21), (5, 3), (1, 1), (199, 301)]
    kinds = ["png", "jpg", "webp", "gif", "bmp"]
    for index, digit in enumerate(load_digits().images[:20]):
        color = np.array([digit, 16 - digit, np.roll(digit, 1, 0)]).transpose(1, 2, 0)
        noise = random.uniform(-1, 1, color.shape)
        pixels = np.clip(16 * (color + noise), 0, 255).astype(np.uint8)
        rows, columns = shapes[index % len(shapes)]
        image = Image.fromarray(pixels).resize(
            (columns, rows), Image.Resampling.BICUBIC
        )
        path = folder / f"{index:02}.{kinds[index % len(kinds)]}"
        image.save(path, **({"lossless": True} if path.suffix == ".webp" else {}))
    turned = image.getexif()
    turned[0x112] = 6  # a quarter turn
    wide = Image.fromarray(pixels).resize((90, 50))
    wide.save(folder / "00.png", exif=turned)
    wide.save(folder / "01.jpg", exif=turned)
    wide.convert("L").save(folder / "06.jpg")
    wide.convert("P").save(folder / "10.png")
    alpha = random.integers(0, 256, (50, 90), np.uint8) // 128 * 255
    alpha[:25] = np.arange(90)
    wide.putalpha(Image.fromarray(alpha))
    wide.save(folder / "05.png")
    return sorted(folder.iterdir())


def visit(folder, *visits):
    """What the page says at each visit, driven in a browser with a fresh profile.

    Images are chosen with the keyboard, and so are keep rates, or dropped.
    """
    task = {
        "chromium": shutil.which("chromium"),
        "profile": str(folder / "profile"),
        "visits": visits,
    }
    done = subprocess.run(
        ["node", DRIVER, json.dumps(task, default=str)],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def url_of(address, path):
    return f"{address}/web/?model=../models/{urllib.parse.quote(path.name)}"


def hold_page_to_python(said, path, images, tolerance):
    """The page sees the pixels that Python sees, and says what Python says of them.

    Returns how often both have the same best class, by signature. They must, unless the
    two best are closer than twice the tolerance.
    """
    interpreter = Interpreter(str(path))
    labels = path.with_suffix(".labels.txt").read_text().splitlines()
    certificate = json.loads(path.with_suffix(".certificate.json").read_text())
    crop_ratio = certificate["preprocessing"]["crop_ratio"]
    assert [image["name"] for image in said["images"]] == [i.name for i in images]
    agreed = {}
    for image, shown in zip(images, said["images"], strict=True):
        assert list(shown["answers"]) == SIGNATURES
        for signature, answer in shown["answers"].items():
            run = interpreter.get_signature_runner(signature)
            _, *size, _ = run.get_input_details()["pixels"]["shape"]
            view = view_of(image, [int(side) for side in size], crop_ratio)
            png = base64.b64decode(shown["view"].removeprefix("data:image/png;base64,"))
            seen = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
            np.testing.assert_array_equal(seen, view, err_msg=image.name)
            expected = run(pixels=view[None].astype("float32"))["probabilities"][0]
            shares = [
                float(share.removesuffix(" %")) / 100 for share in answer["shares"]
            ]
            best = np.sort(expected)[::-1]
            np.testing.assert_allclose(shares, best[:5], atol=tolerance)
            is_same = answer["top"][0] == labels[expected.argmax()]
            assert is_same or best[0] - best[1] < 2 * tolerance, image.name
            agreed.setdefault(signature, []).append(is_same)
            assert answer["best"] == f"{answer['top'][0]}, {answer['shares'][0]}"
            assert float(answer["time"].removesuffix(" ms")) > 0
    return {signature: np.mean(same) for signature, same in agreed.items()}


def test_the_view_has_the_pixels_of_python():
    random = np.random.default_rng(0)
    cases = []
    for rows, columns, size, crop_ratio in [
        (64, 64, (32, 32), 0.875),
        (1, 1, (32, 32), 1.0),
        (2, 300, (32, 32), 0.9),
        (300, 3, (24, 40), 0.8),
        (33, 32, (32, 32), 1.0),  # the crop begins at 0.5, which is rounded to 0
        (32, 35, (32, 32), 1.0),  # at 1.5, which is rounded to 2
        (300, 451, (32, 32), 0.9),  # 52.6 columns, of which 52 are made
        (451, 300, (32, 32), 0.9),
        (375, 500, (224, 224), 0.875),
    ]:
        image = random.integers(0, 256, (rows, columns, 3), np.uint8)
        cases.append((image, size, crop_ratio))
    script = f"""
        import {{ evaluationView }} from "{(PAGE / "geometry.js").as_uri()}";
        import {{ readFileSync }} from "node:fs";
        const cases = JSON.parse(readFileSync(0));
        const views = cases.map(([text, height, width, ...more]) => {{
          const data = Buffer.from(text, "base64");
          const view = evaluationView({{ data, height, width }}, ...more);
          return Buffer.from(view).toString("base64");
        }});
        console.log(JSON.stringify(views));
    """
    request = [
        (base64.b64encode(image).decode(), *image.shape[:2], size, crop_ratio)
        for image, size, crop_ratio in cases
    ]
    done = subprocess.run(
        ["node", "--input-type=module", "-e", script],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=True,
    )
    for case, view in zip(cases, json.loads(done.stdout), strict=True):
        expected = evaluation_view(*case).numpy()
        received = np.frombuffer(base64.b64decode(view), np.uint8)
        np.testing.assert_array_equal(received.reshape(expected.shape), expected)


def test_the_page_says_what_python_says(address, micro, pictures, tmp_path):
    picture = tmp_path / "page.png"
    screenshots = [{"path": picture, "width": 1000, "dark": False}]
    url = url_of(address, micro)
    task = {"url": url, "images": pictures, "screenshots": screenshots}
    [said] = visit(tmp_path, task)
    agreed = hold_page_to_python(said, micro, pictures, tolerance=0.001)
    assert agreed == dict.fromkeys(SIGNATURES, 1.0)
    answers = [image["answers"] for image in said["images"]]
    # Images of one class would prove nothing, nor would rates that change nothing.
    assert len({answer["keep_100"]["top"][0] for answer in answers}) > 2
    assert any(a["keep_100"]["shares"] != a["keep_50"]["shares"] for a in answers)
    assert said["complaints"] == []
    assert "error" not in said
    # It asks nobody else.
    assert {urllib.parse.urlsplit(url).netloc for url in said["requests"]} == {
        urllib.parse.urlsplit(address).netloc
    }
    # A name of a class is text, whatever it looks like.
    names = {label for answer in answers for label in answer["keep_100"]["top"]}
    assert MARKUP in names
    assert not any("nowhere" in url for url in said["requests"])
    assert "40 × 48 pixels" in said["facts"]
    assert said["runtime"].endswith("one thread")
    with Image.open(picture) as screenshot:
        assert screenshot.size[0] == 1000
        assert len(screenshot.convert("RGB").getcolors(1 << 24)) > 100


def test_threads_are_used_where_the_headers_allow_them(site, micro, pictures, tmp_path):
    headers = {
        "Cross_Origin_Opener_Policy": "same-origin",
        "Cross_Origin_Embedder_Policy": "require-corp",
    }
    with serving(site, **headers) as address:
        task = {"url": url_of(address, micro), "images": pictures[:4]}
        [said] = visit(tmp_path, task)
    assert said["complaints"] == []
    assert said["runtime"].endswith("several threads")
    assert any("threaded" in url for url in said["requests"])
    assert len(said["images"]) == 4


def test_of_dropped_files_those_that_are_no_images_are_told_of(
    address, micro, pictures, tmp_path
):
    text, empty = tmp_path / "notes.png", tmp_path / "empty.jpg"
    text.write_text("no image")
    empty.write_bytes(b"")
    images = [text, pictures[0], empty, pictures[1]]
    task = {"url": url_of(address, micro), "images": images, "dropped": True}
    [said] = visit(tmp_path, task)
    assert [image["name"] for image in said["images"]] == [i.name for i in pictures[:2]]
    reason = "it is no image that this browser can read"
    assert said["error"] == f"notes.png: {reason}\nempty.jpg: {reason}"


def test_a_model_without_a_dial_has_one_row(address, micro, site, pictures, tmp_path):
    model = build_model("deit_micro_patch4_32", 3, depth=1, embed_dim=16, num_heads=2)
    path = export.tflite(model, site / "models" / "plain.tflite", verbose=False)
    [said] = visit(tmp_path, {"url": url_of(address, path), "images": pictures[:2]})
    assert [list(image["answers"]) for image in said["images"]] == [
        ["serving_default"]
    ] * 2
    assert len(said["images"][0]["answers"]["serving_default"]["top"]) == 3


def test_an_artifact_that_is_not_whole_is_refused(address, micro, tmp_path):
    expected = []

    def refused(suffix, content, message):
        """A copy of the artifact with one file changed, or None for left out."""
        copy = micro.with_name(f"copy{len(expected)}.tflite")
        for kind in (".tflite", ".labels.txt", ".certificate.json"):
            shutil.copy(micro.with_suffix(kind), copy.with_suffix(kind))
        copy.with_suffix(suffix).unlink()
        if content is not None:
            copy.with_suffix(suffix).write_bytes(content)
        expected.append(message.format(f"/models/{copy.stem}"))
        return {"url": url_of(address, copy), "images": []}

    absent = "There is no {}%s on this server (404)"
    visits = [
        refused(".tflite", None, absent % ".tflite"),
        refused(".labels.txt", None, absent % ".labels.txt"),
        refused(".certificate.json", None, absent % ".certificate.json"),
        refused(
            ".certificate.json",
            b'{"format": 1, "preprocessing": {"crop_ratio": 1}}',
            "{}.certificate.json is no certificate of format 2",
        ),
        refused(
            ".certificate.json",
            b"{",
            "{}.certificate.json is no certificate of format 2",
        ),
        refused(
            ".labels.txt",
            b"one\ntwo\n",
            "There must be one label for each class. Received: 2 labels, 10 classes",
        ),
        refused(
            ".tflite",
            b"else",
            "The model is not the file that its certificate is about",
        ),
    ]
    said = visit(tmp_path, *visits)
    assert [page["error"] for page in said] == expected
    assert not any(page["images"] for page in said)


def test_another_host_and_another_kind_of_file_are_refused(address, tmp_path):
    models = ["https://example.org/a.tflite", "model.onnx"]
    visits = [{"url": f"{address}/web/?model={m}", "images": []} for m in models]
    said = visit(tmp_path, *visits)
    expected = "`model` must be a .tflite file of this server. Received: "
    assert [page["error"] for page in said] == [expected + model for model in models]
    hosts = {urllib.parse.urlsplit(url).hostname for url in said[0]["requests"]}
    assert hosts == {"127.0.0.1"}


def test_the_page_classifies_real_photographs(address, site, shared, tmp_path):
    data = shared("data")
    checkpoint = data / "checkpoints" / "deit_tiny_patch16_224-lnrounded.pth"
    with tarfile.open(data / "imagenet300_ss256.tar") as pack:
        files = [member for member in pack if member.name.endswith(".JPEG")][::15]
        pack.extractall(tmp_path, files, filter="data")
    photographs = [tmp_path / member.name for member in files]
    files = [tf.io.read_file(str(path)) for path in photographs[:4]]
    path = export.tflite(
        keras_deit.create_model("evit_tiny_patch16_224", weights=checkpoint),
        site / "models" / "photographs.tflite",
        images=[decode_image(file).numpy() for file in files],
        keep_rates=RATES,
        min_agreement=0.5,  # of four, and nobody trained it to drop tokens
        verbose=False,
    )
    [said] = visit(tmp_path, {"url": url_of(address, path), "images": photographs})
    assert len(photographs) == 20
    # Each set of kernels rounds int8 activations its own way: Python's answers with and
    # without XNNPACK lie up to 0.04 apart.
    agreed = hold_page_to_python(said, path, photographs, tolerance=0.06)
    assert agreed["keep_100"] >= 0.95
    times = {
        signature: np.median(
            [
                float(image["answers"][signature]["time"].removesuffix(" ms"))
                for image in said["images"]
            ]
        )
        for signature in SIGNATURES
    }
    assert times["keep_50"] < times["keep_100"]
