"""Which datasets TensorFlow Datasets has, and what is missing where it has not."""

import re
from difflib import get_close_matches
from pathlib import Path

# What must lie in its folder of manual downloads.
MANUAL_FILES = {"imagenet2012": ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar")}
# It knows no iNaturalist of 2019, and lacks a file to build that of 2021.
INATURALIST = {
    "19": "train_val2019, train2019.json and val2019.json",
    "21": "train and val",
}


def prepared_builder(name: str, download: bool):
    """Finds a dataset that is prepared, or prepares it.

    Args:
        name: Name of the dataset, with a config or version if wanted.
        download: Whether it may be downloaded. Without a network, TensorFlow Datasets
            tries for three to four minutes.

    Returns:
        Its builder of TensorFlow Datasets.

    Raises:
        FileNotFoundError: If there is no such dataset or it cannot be prepared; the
            message says what was tried and what to do.
    """
    builder = _described(name)
    # Asked first: to find out by loading takes TensorFlow Datasets minutes offline.
    if builder.is_prepared():
        return builder
    instructions = builder.MANUAL_DOWNLOAD_INSTRUCTIONS or ""
    by_hand = f" By hand: {' '.join(instructions.split())}" if instructions else ""
    if not download:
        raise FileNotFoundError(
            f"There is no folder {name!r}, and the dataset {name!r} of TensorFlow "
            f"Datasets is not prepared in {builder.data_path}. Allow its download "
            "(--download, or download=True), or set TFDS_DATA_DIR to where it is."
            + by_hand
        )
    archives = builder.data_dir_root / "downloads" / "manual"
    wanted = MANUAL_FILES.get(builder.name, ())
    missing = [file for file in wanted if not (archives / file).exists()]
    if missing:
        raise FileNotFoundError(
            f"To prepare {name!r}, {' and '.join(missing)} must lie in {archives}."
            + by_hand
        )
    try:
        builder.download_and_prepare()
    except Exception as error:
        raise FileNotFoundError(
            f"TensorFlow Datasets could not prepare {name!r} in {builder.data_path}: "
            f"{error}"
        ) from error
    return builder


def _described(name: str):
    """What TensorFlow Datasets knows of a dataset, prepared or not."""
    import tensorflow_datasets as tfds

    base = re.split("[/:]", name)[0]
    known = tfds.list_builders(with_community_datasets=False)
    own = (Path(tfds.core.constants.DATA_DIR).expanduser() / base).is_dir()
    inaturalist = re.fullmatch(r"i_?nat\w*?(19|21)", base, re.IGNORECASE)
    if inaturalist and not own:
        year = inaturalist[1]
        raise FileNotFoundError(
            f"TensorFlow Datasets cannot give {name!r}. Get the official files of "
            f"iNaturalist 20{year}, unpack them into one folder, in which "
            f"{INATURALIST[year]} lie then, and give that folder."
        )
    if base not in known and not own:
        near = get_close_matches(base, ["digits", *known], n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise FileNotFoundError(
            f"There is no folder {name!r}, and TensorFlow Datasets knows no dataset of "
            f"that name.{hint} Give 'digits', an existing folder, or a name listed at "
            "https://www.tensorflow.org/datasets."
        )
    try:
        return tfds.builder(name, try_gcs=False)
    except Exception as error:  # of many kinds, for a wrong version or config
        reason = str(error).strip().splitlines()[0].rpartition('}": ')[2]
        reason = reason.partition(" Here are ")[0].rstrip(".")
        configs = list(tfds.builder_cls(base).builder_configs if base in known else ())
        raise FileNotFoundError(
            f"TensorFlow Datasets has no {name!r}: {reason}."
            + (f" Its configs: {', '.join(configs[:10])}." if configs else "")
        ) from error
