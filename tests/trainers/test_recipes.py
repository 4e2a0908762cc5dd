import importlib
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from absl import flags

from keras_deit.models.factory import variant_config
from keras_deit.training.recipe import Recipe
from keras_deit.training.schedules import learning_rate_schedule
from trainers.recipes import find_recipe, list_recipes
from trainers.recipes.digits_plain import RECIPE as PLAIN


def test_lists_the_recipes_of_the_digits():
    assert {"digits_teacher", "digits_plain", "digits_distilled"} <= set(list_recipes())
    assert list_recipes() == sorted(list_recipes())


def test_what_begins_with_an_underscore_is_no_recipe():
    assert not [name for name in list_recipes() if name.startswith("_")]
    with pytest.raises(ValueError, match="`recipe` must be one of"):
        find_recipe("_papers")


def parts_of(doc):
    """The labeled parts of a recipe's docstring, each on one line."""
    parts = {}
    for line in doc.partition("\n\n")[2].partition("\n\n")[0].splitlines():
        if line[0] != " ":
            label, _, line = line.partition(":")
            parts[label] = ""
        parts[label] = f"{parts[label]} {line.strip()}".strip()
    return parts


@pytest.mark.parametrize("name", list_recipes())
def test_a_recipe_says_how_it_is_run_and_what_to_expect(name):
    module = importlib.import_module(f"trainers.recipes.{name}")
    assert isinstance(module.RECIPE, Recipe)
    assert find_recipe(name) is module.RECIPE
    summary, empty, *_ = module.__doc__.splitlines()
    assert summary.endswith(".")
    assert empty == ""
    parts = parts_of(module.__doc__)
    assert list(parts) == ["Run", "Try", "Expect", "Done"]
    assert all(parts.values())
    assert re.search("--(smoke|epochs=[0-9]+)", parts["Try"])
    assert re.search("--smoke|make demo", parts["Done"])


@pytest.mark.parametrize("name", list_recipes())
def test_the_command_that_runs_a_recipe_can_be_given(name):
    module = importlib.import_module(f"trainers.recipes.{name}")
    python, m, trainers, program, *arguments = parts_of(module.__doc__)["Run"].split()
    assert (python, m, trainers) == ("python", "-m", "trainers")
    is_teacher = module.RECIPE.variant.startswith("regnety")
    assert program == ("train_teacher" if is_teacher else "train")
    values = flags.FlagValues()
    importlib.import_module(f"trainers.{program}").define_flags(values)
    assert values([program, *arguments]) == [program]
    assert values.recipe == name
    assert values.output.startswith("runs/")
    if program == "train":
        assert (values.teacher is not None) == (module.RECIPE.kind != "none")


def test_the_page_of_recipes_lists_each_with_its_program():
    page = (Path(__file__).parents[2] / "docs" / "RECIPES.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (\w+) \|", page, re.MULTILINE))
    assert sorted(rows) == list_recipes()
    for name, program in rows.items():
        module = importlib.import_module(f"trainers.recipes.{name}")
        assert parts_of(module.__doc__)["Run"].split()[3] == program


# As published: peak learning rate, its end, epochs of warm-up and in all, batch, weight
# decay, views of an image in a batch.
PUBLISHED = {
    **{
        f"imagenet_deit_{size}{token}{kind}": (1e-3, 1e-5, 5, 300, 1024, 0.05, 3)
        for size in ("tiny", "small", "base")
        for token in ("", "_distilled")
        for kind in ("_soft", "_hard")
    },
    "imagenet_deit_tiny": (1e-3, 1e-5, 5, 300, 1024, 0.05, 3),
    "imagenet_deit_small": (1e-3, 1e-5, 5, 300, 1024, 0.05, 3),
    "imagenet_deit_base": (1e-3, 1e-5, 5, 300, 1024, 0.05, 3),
    "imagenet_t2t_vit_7": (1e-3, 1e-5, 10, 310, 512, 0.03, 1),
    "imagenet_t2t_vit_12": (1e-3, 1e-5, 10, 310, 512, 0.03, 1),
    "imagenet_t2t_vit_14": (1e-3, 1e-5, 10, 310, 512, 0.05, 1),
    "imagenet_t2t_vit_19": (5e-4, 1e-5, 10, 310, 512, 0.065, 1),
    "imagenet_t2t_vit_24": (5e-4, 1e-5, 10, 310, 512, 0.065, 1),
    "imagenet_evit_small": (2e-3, 1e-5, 5, 300, 2048, 0.05, 3),
    "imagenet_evit_base": (2e-3, 1e-5, 5, 300, 2048, 0.05, 3),
    "imagenet_evit_small_finetune": (8e-5, 2e-6, 0, 30, 2048, 1e-6, 3),
    "imagenet_evit_base_finetune": (8e-5, 2e-6, 0, 30, 2048, 1e-6, 3),
    "imagenet_deit_base_finetune_384": (5e-6, 5e-6, 5, 30, 512, 1e-8, 3),
    "imagenet_deit_base_distilled_finetune_384": (5e-6, 5e-6, 5, 30, 512, 1e-8, 3),
    # 1e-4 / (1 - 0.9), for a decay apart from the gradient.
    "cifar10_deit_base_finetune": (0.01, 1e-5, 5, 1000, 768, 1e-3, 3),
    "cifar100_deit_base_finetune": (0.01, 1e-5, 5, 1000, 768, 1e-3, 3),
    "cars_deit_base_finetune": (0.01, 1e-5, 5, 1000, 768, 1e-3, 3),
    "inat18_deit_base_finetune": (7.5e-5, 1e-5, 5, 360, 768, 0.05, 3),
    "inat19_deit_base_finetune": (7.5e-5, 1e-5, 5, 360, 768, 0.05, 3),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_has_the_published_numbers(name):
    recipe = find_recipe(name)
    assert (
        recipe.peak_learning_rate,
        recipe.min_learning_rate,
        recipe.warmup_epochs,
        recipe.epochs,
        recipe.batch_size,
        recipe.weight_decay,
        recipe.repeats,
    ) == pytest.approx(PUBLISHED[name])
    assert recipe.warmup_learning_rate == 1e-6
    assert recipe.label_smoothing == 0.1
    assert recipe.rand_augment == "rand-m9-mstd0.5-inc1"
    mixing = recipe.mixing
    assert (mixing.mixup, mixing.cutmix, mixing.probability) == (0.8, 1.0, 1.0)
    assert recipe.ema_decay == 0.99996
    is_t2t = "t2t" in name
    assert recipe.schedule == ("epochs" if is_t2t else "late_epochs")
    assert recipe.cooldown_epochs == (10 if is_t2t else 0)
    assert recipe.seed == (42 if is_t2t else 0)


@pytest.mark.parametrize("name", list_recipes())
def test_only_what_learns_from_a_teacher_is_distilled_and_as_the_paper_has_it(name):
    recipe = find_recipe(name)
    if name.endswith("_soft"):
        expected = ("soft", 0.1, 3.0, "numel")
    elif name.endswith("_hard") or "distilled" in name or name == "digits_evit":
        expected = ("hard", 0.5, 1.0, "batchmean")
    else:
        expected = ("none", 0.5, 1.0, "batchmean")
    kind = (recipe.kind, recipe.alpha, recipe.temperature, recipe.reduction)
    assert kind == expected
    if "regnety" not in recipe.variant:
        config = variant_config(recipe.variant, **recipe.model_overrides)
        has_token = "distilled" in name or name == "digits_evit"
        has_token |= name.startswith("cifar10_224") and name.endswith("_hard")
        assert config.encoder.distilled == has_token


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("imagenet_deit_base_soft", ("deit_base_patch16_224", 0.1, 1, None, True)),
        ("imagenet_t2t_vit_19", ("t2t_vit_19", 0.1, 1, None, True)),
        ("imagenet_evit_base", ("evit_base_patch16_224", 0.1, 0.7, None, True)),
        (
            "imagenet_evit_base_finetune",
            ("deit_base_patch16_224", 0, 0.7, "pretrained", False),
        ),
        (
            "imagenet_deit_base_distilled_finetune_384",
            ("deit_base_distilled_patch16_224", 0, 1, "pretrained", False),
        ),
        (
            "cars_deit_base_finetune",
            ("deit_base_patch16_224", 0, 1, "pretrained", False),
        ),
        (
            "inat18_deit_base_finetune",
            ("deit_base_patch16_224", 0.1, 1, "pretrained", True),
        ),
        ("cifar10_224_evit_tiny_hard", ("evit_tiny_patch16_224", 0.1, 0.7, None, True)),
    ],
)
def test_a_recipe_trains_the_published_model_from_the_published_weights(name, config):
    recipe = find_recipe(name)
    encoder = variant_config(recipe.variant, **recipe.model_overrides).encoder
    assert encoder.fuse
    assert (
        recipe.variant,
        encoder.drop_path_rate,
        encoder.keep_rate,
        recipe.weights,
        recipe.train_mode,
    ) == config


def test_evit_drops_tokens_when_the_official_code_does():
    def ramp(name):
        recipe = find_recipe(name)
        return recipe.keep_rate_start_epoch, recipe.keep_rate_ramp_epochs

    assert ramp("imagenet_evit_small") == ramp("imagenet_evit_base") == (10, 100)
    assert ramp("imagenet_evit_small_finetune") == (0, 0)


def test_a_fine_tuned_recipe_sees_what_its_authors_saw():
    assert find_recipe("imagenet_deit_base_finetune_384").image_size == 384
    assert find_recipe("imagenet_deit_base_distilled_finetune_384").image_size == 384
    erasing = {
        name: find_recipe(name).erasing
        for name in PUBLISHED
        if "_base_" in name and "_finetune" in name
    }
    assert erasing == {
        "imagenet_evit_base_finetune": 0.25,
        "imagenet_deit_base_finetune_384": 0.25,
        "imagenet_deit_base_distilled_finetune_384": 0.25,
        "cifar10_deit_base_finetune": 0,
        "cifar100_deit_base_finetune": 0,
        "cars_deit_base_finetune": 0,
        "inat18_deit_base_finetune": 0.1,
        "inat19_deit_base_finetune": 0.1,
    }
    sgd = {name for name in list_recipes() if find_recipe(name).optimizer == "sgd"}
    datasets = ("cars", "cifar10", "cifar100", "flowers")
    assert sgd == {f"{dataset}_deit_base_finetune" for dataset in datasets}


def test_the_four_of_the_matrix_differ_in_model_and_teacher_alone():
    plain = find_recipe("cifar10_224_deit_tiny")
    same = {"variant": plain.variant, "model_overrides": plain.model_overrides}
    same |= {"kind": "none", "keep_rate_start_epoch": 0, "keep_rate_ramp_epochs": 0}
    for name in ("deit_tiny_hard", "evit_tiny", "evit_tiny_hard"):
        assert replace(find_recipe(f"cifar10_224_{name}"), **same) == plain
    teacher = find_recipe("cifar10_224_teacher")
    assert (teacher.variant, teacher.weights) == ("regnety_160", "pretrained")
    assert 0 < teacher.head_epochs < teacher.epochs
    assert teacher.repeats == plain.repeats == 1  # all images in every epoch


def test_both_students_of_cifar10_at_32_pixels_learn_alike():
    plain = find_recipe("cifar10_32_plain")
    distilled = find_recipe("cifar10_32_distilled")
    assert replace(distilled, variant=plain.variant, kind="none") == plain


def test_the_digits_are_never_mirrored_nor_mixed():
    for name in list_recipes():
        if name.startswith("digits"):
            recipe = find_recipe(name)
            assert recipe.mixing is None
            assert (recipe.flip, recipe.rand_augment, recipe.erasing) == (
                False,
                None,
                0,
            )


def test_a_student_with_a_teacher_differs_from_the_plain_one_in_that_alone():
    distilled = find_recipe("digits_distilled")
    assert (distilled.kind, PLAIN.kind) == ("hard", "none")
    assert replace(distilled, variant=PLAIN.variant, kind="none") == PLAIN


def test_reads_a_recipe_from_a_file(tmp_path):
    path = tmp_path / "recipe.json"
    path.write_text(PLAIN.over(3).to_json())
    assert find_recipe(str(path)) == PLAIN.over(3)


def test_an_unknown_recipe_is_refused():
    message = r"`recipe` must be one of .*Did you mean 'digits_plain'\? Received: recip"
    with pytest.raises(ValueError, match=message):
        find_recipe("digits_plan")


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"recipe\.json"):
        find_recipe(str(tmp_path / "recipe.json"))


def test_a_file_without_a_recipe_is_refused(tmp_path):
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps({"variant": PLAIN.variant, "datset": "digits"}))
    with pytest.raises(ValueError, match="no field 'datset'. Did you mean 'dataset'"):
        find_recipe(str(path))


@pytest.mark.parametrize("name", list_recipes())
def test_a_recipe_can_be_tried_for_a_few_epochs(name):
    recipe = find_recipe(name).over(3)
    schedule = learning_rate_schedule(recipe, 4)
    rates = [float(schedule(step)) for step in range(12)]
    assert max(rates) > 0.6 * recipe.peak_learning_rate
    assert max(rates) <= recipe.peak_learning_rate * (1 + 1e-6)
    if recipe.warmup_epochs:
        assert rates[0] < max(rates)


def test_a_file_that_is_no_text_is_named(tmp_path):
    (tmp_path / "bin.json").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"bin\.json: 'utf-8' codec"):
        find_recipe(str(tmp_path / "bin.json"))
