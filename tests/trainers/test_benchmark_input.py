import json

import numpy as np
import pytest
from PIL import Image

from trainers import _benchmark_input
from trainers._contestants.photographs import write_photographs


def test_made_up_photographs_are_like_those_of_imagenet(tmp_path):
    write_photographs(tmp_path, 4)
    files = sorted(tmp_path.rglob("*.jpg"))
    names = [str(path.relative_to(tmp_path)) for path in files]
    assert names == [
        *("class0/0000.jpg", "class0/0002.jpg", "class1/0001.jpg", "class1/0003.jpg")
    ]
    pixels = np.stack([np.asarray(Image.open(path)) for path in files])
    assert pixels.shape == (4, 375, 500, 3)
    assert 100 < pixels.mean() < 140
    assert 40 < pixels.std() < 65
    assert len({path.read_bytes() for path in files}) == 4
    # ImageNet's of this size have 120 kB in the mean.
    assert all(80_000 < path.stat().st_size < 160_000 for path in files)


def test_images_of_a_dataset_are_taken_evenly(monkeypatch, tmp_path):
    monkeypatch.setattr(_benchmark_input, "MOST_IMAGES", 4)
    dataset, folder = tmp_path / "dataset", tmp_path / "folder"
    folder.mkdir()
    for split, number in (("train", 5), ("val", 1)):
        for name in ("cat", "dog"):
            for index in range(number):
                path = dataset / split / name / f"{index}.JPEG"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(f"{split} {name} {index}".encode())
    (dataset / "labels.csv").write_text("no image")
    said = _benchmark_input.fill_with_images(str(dataset), 4, folder)
    assert said == f"4 images of {dataset}"
    linked = {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*.jpg")}
    assert linked == {
        "cat/0000.jpg": "train cat 0",
        "cat/0001.jpg": "train cat 3",
        "dog/0002.jpg": "train dog 1",
        "dog/0003.jpg": "train dog 4",
    }


@pytest.mark.slow
def test_our_own_input_is_measured_stage_by_stage(run_program, rows_of, tmp_path):
    output = tmp_path / "benchmarks" / "input.json"
    done = run_program("benchmark", "--quick", "--rounds=1", f"--output={output}")
    assert done.code == 0, done.err
    record = json.loads(output.read_text())
    assert record["errors"] == {}
    ours = {r["task"]: r for r in record["rows"] if r["contestant"] == "keras_deit"}
    path = [task for task, row in ours.items() if row["stage_share"] is not None]
    assert path == [
        *("read", "decode the crop", "resize", "flip", "RandAugment", "erasing"),
        *("batch and mix", "recipe"),
    ]
    assert sum(ours[task]["stage_share"] for task in path) == pytest.approx(1)
    assert {t for t in ours if t not in path} == {
        *("decode", "only decode", "only decode the crop", "only resize"),
        *("only RandAugment", "only mix"),
    }
    other = [r for r in record["rows"] if r["contestant"] == "keras_deit, keras-cv"]
    names = {row["task"] for row in other}
    assert names == {"RandAugment", "only RandAugment", "recipe"}
    assert "64 made-up photographs of 500 x 375" in done.out
    assert done.out.splitlines()[-1].startswith("What limits keras_deit: ")
