"""iNaturalist as its organizers publish it: images, and lists of them in JSON."""

import json
from collections import Counter
from pathlib import Path

import numpy as np

from keras_deit._checks import check
from keras_deit.data.image_folder import source_of_files
from keras_deit.data.source import Source

KEYS = {
    "images": {"id": int, "file_name": str},
    "annotations": {"image_id": int, "category_id": int},
    "categories": {"id": int, "name": str},
}


def is_inaturalist(root: Path) -> bool:
    """Tells whether the lists of both splits lie in a folder."""
    return bool(_years(root))


def inaturalist(root: Path, split: str, unreadable: str = "refuse") -> Source:
    """Finds the images of an official split; see `load_source`.

    Labels follow the ids of the categories; a class is called by its name, by
    "supercategory/name" where names repeat, or by its id where these repeat too. The id
    of an image is the official one.

    Args:
        root: Folder with `train2019.json`, `val2019.json` and the images they name
            (`train_val2019/`), or the same of another year.
        split: "train" or "validation".
        unreadable: "refuse" or "skip".

    Raises:
        ValueError: If a list is not as it should be, or names a file outside the
            folder.
        FileNotFoundError: If files that are listed are missing.

    Reference:
        https://github.com/visipedia/inat_comp, "Annotation Format".
    """
    years = _years(root)
    check(
        len(years) == 1,
        "A folder of iNaturalist must hold the lists of one year.",
        folder=str(root),
        years=years,
    )
    check(
        split != "all",
        "`split` 'all' is for a folder without a second split.",
        folder=str(root),
    )
    lists = {
        "train": root / f"train{years[0]}.json",
        "validation": root / f"val{years[0]}.json",
    }
    tables = {name: _tables(path) for name, path in lists.items()}
    categories = {name: _categories(tables[name], lists[name]) for name in lists}
    check(
        categories["train"] == categories["validation"],
        f"`{lists['train'].name}` and `{lists['validation'].name}` must have the same "
        "categories.",
        folder=str(root),
    )
    names, labels = _labeled_files(tables[split], categories[split], lists[split])
    ids = np.array(sorted(names), np.int64)
    paths = [str(root / names[image]) for image in ids]
    missing = [path for path in paths if not Path(path).is_file()]
    if missing:
        raise FileNotFoundError(
            f"Of the {len(paths)} images listed in {lists[split]}, {len(missing)} are "
            f"missing: {', '.join(missing[:5])}"
        )
    return source_of_files(
        root,
        _class_names(categories["train"]),
        paths,
        np.array([labels[image] for image in ids]),
        ids,
        unreadable,
    )


def _years(root: Path) -> list[str]:
    lists = (path.name for path in root.glob("train20[0-9][0-9].json"))
    years = sorted(name[len("train") : -len(".json")] for name in lists)
    return [year for year in years if (root / f"val{year}.json").is_file()]


def _tables(path: Path) -> dict[str, list[dict]]:
    """The three tables of a list, each row with its keys."""
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    check(isinstance(content, dict), "The list must be an object.", file=str(path))
    for table, keys in KEYS.items():
        rows = content.get(table)
        described = " and ".join(f"`{key}` ({keys[key].__name__})" for key in keys)
        rule = f"`{table}` must be a list of one or more objects with {described}."
        check(isinstance(rows, list) and bool(rows), rule, file=str(path), rows=rows)
        for row in rows:
            fits = isinstance(row, dict) and all(
                type(row.get(key)) is kind for key, kind in keys.items()
            )
            check(fits, rule, file=str(path), row=row)
    return content


def _by_id(rows: list[dict], table: str, path: Path) -> dict[int, dict]:
    """The rows by their ids, in the order of these."""
    by_id = {row["id"]: row for row in sorted(rows, key=lambda row: row["id"])}
    check(
        len(by_id) == len(rows) and all(0 <= key < 2**63 for key in by_id),
        f"The ids of the {table} must be distinct and at least 0.",
        file=str(path),
    )
    return by_id


def _categories(content: dict, path: Path) -> dict[int, tuple[str, str]]:
    """Name and supercategory of each category by its id, in the order of the ids."""
    rows = _by_id(content["categories"], "categories", path)
    return {i: (row["name"], row.get("supercategory", "")) for i, row in rows.items()}


def _class_names(categories: dict[int, tuple[str, str]]) -> list[str]:
    names = [name for name, _ in categories.values()]
    longer = [f"{above}/{name}" for name, above in categories.values()]
    ids = [str(number) for number in categories]
    return next(x for x in (names, longer, ids) if len(set(x)) == len(x))


def _labeled_files(content: dict, categories, path: Path):
    """The file name and the label of each image by its id."""
    images = _by_id(content["images"], "images", path)
    label_of = {category: label for label, category in enumerate(categories)}
    labels = {}
    for row in content["annotations"]:
        check(
            row["image_id"] in images and row["category_id"] in label_of,
            "An annotation must be of an image and a category of the list.",
            file=str(path),
            annotation=row,
        )
        labels[row["image_id"]] = label_of[row["category_id"]]
    times = Counter(row["image_id"] for row in content["annotations"])
    other = [image for image in images if times[image] != 1]
    check(
        not other,
        "Each image must have one annotation.",
        file=str(path),
        images=other[:5],
    )
    names = {image: row["file_name"] for image, row in images.items()}
    for name in names.values():
        inside = not (name[:1] in ("", "/") or ".." in name.split("/") or "\0" in name)
        rule = "A file name must be of a file within the folder of the list."
        check(inside, rule, file=str(path), file_name=name)
    return names, labels
