import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest

from keras_deit.export.certificate import (
    LIMITS,
    _fault,
    certify,
    check_labels,
    limits_of,
)
from keras_deit.export.trials import Comparison, Speed, Trial

FACTS = {"bytes": 2**20, "operators": ["ADD", "MUL"]}


def trial(difference=0.0, relative=0.0, agreement=1.0, margin=0.0, accuracy=None):
    comparison = Comparison(20, difference, relative, agreement, margin)
    return Trial(comparison, accuracy, accuracy, Speed(1.0, 2.0, 30.0, 32), None)


@pytest.fixture
def certified(tmp_path, small_model):
    """Certifies trials: what was written."""

    def run(precision="float32", min_agreement=None, verbose=False, **trials):
        path = tmp_path / "certificate.json"
        returned = certify(
            path,
            small_model,
            "A file",
            precision,
            trials,
            limits_of(precision, min_agreement),
            verbose,
            **FACTS,
        )
        said = json.loads(path.read_text())
        assert json.loads(json.dumps(returned)) == said
        return said

    return run


def test_the_certificate_says_what_was_tried_and_with_what(certified):
    said = certified(serving_default=trial(accuracy=0.75), pixels=trial(1e-5))
    assert said["format"] == 2
    assert (said["kind"], said["precision"]) == ("A file", "float32")
    assert said["model"] == "deit_micro_patch4_32"
    assert said["limits"] == asdict(LIMITS["float32"])
    assert list(said["signatures"]) == ["serving_default", "pixels"]
    assert said["signatures"]["pixels"] == asdict(trial(1e-5))
    assert said["signatures"]["serving_default"]["accuracy"] == 0.75
    assert (said["bytes"], said["operators"]) == (2**20, ["ADD", "MUL"])
    assert said["preprocessing"] == {
        "image_size": [32, 32],
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "crop_ratio": 1.0,
    }
    assert len(said["preprocessing_sha256"]) == 64
    assert {"keras_deit", "python", "keras", "tensorflow", "numpy"} <= {
        *said["versions"]
    }
    assert said["machine"]["cores"] >= 1


def test_the_digest_is_that_of_the_weights(certified, small_model):
    first = certified(pixels=trial())["weights_sha256"]
    assert len(first) == 64
    weight = small_model.weights[0]
    kernel = weight.numpy()
    weight.assign(kernel + np.float32(1e-3))
    other = certified(pixels=trial())["weights_sha256"]
    weight.assign(kernel)
    assert other != first
    assert certified(pixels=trial())["weights_sha256"] == first


@pytest.mark.parametrize(
    ("precision", "good", "bad", "fault"),
    [
        (
            "float32",
            {"difference": 0.9e-4},
            {"difference": 1.1e-4},
            r"max_difference is 0\.00011, at most 0\.0001 is allowed",
        ),
        (
            "float16",
            {"difference": 5.0, "relative": 0.009, "agreement": 0.95, "margin": 9.0},
            {"relative": 0.011},
            r"relative_difference is 0\.011, at most 0\.01 is allowed",
        ),
        (
            "bfloat16",
            {"agreement": 0.95},  # of 20 images one: 2 % are rounded up to it
            {"agreement": 0.9},
            r"top1_agreement is 0\.9000, at least 0\.98 is asked",
        ),
        (
            "dynamic_int8",
            {"agreement": 0.95, "relative": 0.19},
            {"agreement": 0.9},
            r"top1_agreement is 0\.9000, at least 0\.97 is asked",
        ),
        (
            "int8",
            {"difference": 9.0, "relative": 9.0, "agreement": 0.0, "margin": 9.0},
            {"difference": math.inf},
            "its logits are not all numbers",
        ),
    ],
)
def test_each_precision_has_its_limits(
    certified, tmp_path, precision, good, bad, fault
):
    certified(precision, pixels=trial(**good))
    (tmp_path / "certificate.json").unlink()
    message = (
        rf"The exported artifact differs from the model in 'pixels': {fault}; it is "
        r"not kept\. .* Received: \{'num_images': 20"
    )
    with pytest.raises(RuntimeError, match=message):
        certified(precision, serving_default=trial(), pixels=trial(**bad))
    assert not (tmp_path / "certificate.json").exists()


@pytest.mark.parametrize("precision", LIMITS)
def test_what_is_no_number_passes_nowhere(certified, precision):
    with pytest.raises(RuntimeError, match="not all numbers"):
        certified(precision, pixels=trial(math.nan, math.nan))


def test_the_agreement_that_is_asked_can_be_another(certified):
    said = certified("dynamic_int8", 0.5, pixels=trial(agreement=0.6, margin=1.0))
    assert said["limits"]["top1_agreement"] == 0.5
    with pytest.raises(RuntimeError, match=r"at least 1 is asked"):
        certified("float32", 1.0, pixels=trial(agreement=0.95, margin=1e-6))
    with pytest.raises(ValueError, match=r"`min_agreement` must be in \[0, 1\]"):
        limits_of("int8", 1.5)


@pytest.mark.parametrize(("images", "most"), [(300, 9), (33, 1), (32, 1), (3, 1)])
def test_the_images_that_may_differ_are_whole(images, most):
    for others, fault in ((most, False), (most + 1, True)):
        found = Comparison(images, 0.0, 0.0, 1 - others / images, 1.0)
        one = replace(trial(), comparison=found)
        assert (_fault(one, LIMITS["dynamic_int8"]) is not None) is fault


def test_a_table_tells_it_to_people(certified, capsys):
    certified(verbose=True, pixels=trial(2e-5, 1e-6, 0.95, 1e-5, accuracy=0.8125))
    said = capsys.readouterr().out
    assert "A file float32 of deit_micro_patch4_32" in said
    assert "20 images" in said
    row = next(line for line in said.splitlines() if "pixels" in line)
    for part in ("2.0e-05", "1.0e-06", "95.00 %", "81.25 %", "1.0 / 2.0", "30.0 (32)"):
        assert part in row
    assert "1.0 MiB, 2 operators: ADD, MUL" in said
    certified(verbose=True, pixels=replace(trial(), speed=None))
    assert "pixels" in capsys.readouterr().out
    certified(pixels=trial())
    assert not capsys.readouterr().out


def test_labels_are_numbers_unless_given():
    assert check_labels(None, 3) == ["0", "1", "2"]
    assert check_labels(("cat", "dog"), 2) == ["cat", "dog"]


def test_labels_of_another_number_are_refused():
    message = (
        r"`labels` must have one name for each class\. Received: labels=1, classes=2\."
    )
    with pytest.raises(ValueError, match=message):
        check_labels(["cat"], 2)


@pytest.mark.parametrize("name", ["a\nb", "cat\n", "", "\ud800"])
def test_a_label_that_is_no_line_of_text_is_refused(name):
    with pytest.raises(ValueError, match=r"A name in `labels` must be a line\."):
        check_labels([name, "dog"], 2)


def test_a_text_is_no_list_of_labels_and_one_class_is_no_choice():
    with pytest.raises(ValueError, match=r"`labels` must be a list\. Received: labels"):
        check_labels("ab", 2)
    with pytest.raises(ValueError, match=r"The model must have two classes or more\."):
        check_labels(["a"], 1)
