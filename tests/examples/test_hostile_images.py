import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.data.hostile_files import (
    NOT_IMAGES,
    TOO_LARGE,
    after_magic_numbers,
    animated,
    encoded,
    gif_bomb,
    png_bomb,
    png_with_text,
    smooth_files,
)
from tests.data.pictures import smooth

# What a stranger's client is: TensorFlow, the signature's names, and nothing of ours.
CLIENT = """
import json, resource, sys

sys.modules.update(dict.fromkeys(["keras", "keras_deit", "tf_keras"]))
import tensorflow as tf

def peak():  # in MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

model, batch_size, *paths = sys.argv[1:]
signature = tf.saved_model.load(model).signatures["serving_default"]
files = [open(path, "rb").read() for path in paths]
signature(image_bytes=tf.constant(files[:1]))
before, rows = peak(), []
for start in range(0, len(files), int(batch_size)):
    batch = tf.constant(files[start : start + int(batch_size)])
    answer = {n: x.numpy() for n, x in signature(image_bytes=batch).items()}
    for i in range(len(batch)):
        best = int(answer["top_k_classes"][i, 0])
        row = [answer["status"][i].decode(), best, answer["logits"][i].tolist()]
        rows.append(row + [answer["top_k_labels"][i, 0].decode()])
print(json.dumps({"rows": rows, "grown": peak() - before}))
"""

pytestmark = pytest.mark.slow


def real_files():
    """21 files that are images: each format, other sizes, other colors."""
    whole = list(smooth_files().values())
    pictures = [smooth(30 + 10 * i, 90 - 5 * i) for i in range(12)]
    kinds = ("JPEG", "PNG", "GIF", "WEBP")
    whole += [encoded(x, kinds[i % 4]) for i, x in enumerate(pictures)]
    inks = Image.fromarray(pictures[0]).convert("CMYK")
    return [*whole, encoded(inks, "JPEG"), animated("GIF")]


def hostile_files():
    """Files that are no images, or too large, or cut off, and bombs."""
    bad = [*TOO_LARGE.values(), *NOT_IMAGES.values(), png_bomb(10_000)]
    bad += [v for k, v in after_magic_numbers().items() if not k.startswith("bmp")]
    return bad + [data[: len(data) * 2 // 3] for data in smooth_files().values()]


def test_among_hostile_files_the_real_ones_get_their_answers(version, tmp_path):
    real, hostile = real_files(), hostile_files()
    bombs = [gif_bomb(), png_with_text(2**22)]  # they have a first picture
    random = np.random.default_rng(0)
    files = real + hostile + bombs
    order = random.permutation(len(files))
    paths = [tmp_path / str(i) for i in order]
    for index, path in zip(order, paths, strict=True):
        path.write_bytes(files[index])
    command = [sys.executable, "-I", "-c", CLIENT, version, "9", *paths]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    rows = dict(zip(order.tolist(), answer["rows"], strict=True))
    signature = tf.saved_model.load(str(version)).signatures["serving_default"]
    for index, file in enumerate(real):
        alone = signature(image_bytes=tf.constant([file]))
        status, best, logits, label = rows[index]
        assert status == "ok"
        np.testing.assert_allclose(logits, alone["logits"][0], atol=1e-5)
        assert best == alone["top_k_classes"][0, 0]
        assert label == alone["top_k_labels"][0, 0].numpy().decode()
    for index in range(len(real), len(real) + len(hostile)):
        status, best, logits, label = rows[index]
        assert status in ("too_many_bytes", "too_many_pixels", "not_decodable")
        assert (best, label, any(logits)) == (-1, "", False)
    for index in range(len(real) + len(hostile), len(files)):
        assert rows[index][0] == "ok"
    # The bombs are 300 megabytes of PNG and 1350 of GIF when they are unpacked.
    assert answer["grown"] < 200
