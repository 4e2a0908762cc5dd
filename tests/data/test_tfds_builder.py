import pytest

from keras_deit.data.tfds_builder import prepared_builder

PREPARE = "tensorflow_datasets.core.DatasetBuilder.download_and_prepare"


@pytest.fixture
def no_datasets(tmp_path, monkeypatch):
    """A TensorFlow Datasets folder in which nothing is."""
    folder = tmp_path / "tensorflow_datasets"
    monkeypatch.setattr("tensorflow_datasets.core.constants.DATA_DIR", str(folder))
    return folder


@pytest.fixture
def no_download(monkeypatch):
    monkeypatch.setattr(PREPARE, lambda _: pytest.fail("a download was tried"))


def test_a_dataset_that_is_prepared_is_found(no_datasets):
    import tensorflow_datasets as tfds

    features = {"label": tfds.features.ClassLabel(names=["cat", "dog"])}
    tfds.dataset_builders.store_as_tfds_dataset(
        name="of_my_own",  # no name that comes with TensorFlow Datasets
        version="1.0.0",
        data_dir=no_datasets,
        features=tfds.features.FeaturesDict(features),
        split_datasets={"train": [(0, {"label": 0}), (1, {"label": 1})]},
    )
    for name in ("of_my_own", "of_my_own:1.0.0"):
        info = prepared_builder(name, download=False).info
        assert info.full_name == "of_my_own/1.0.0"
        assert info.features["label"].names == ["cat", "dog"]
    with pytest.raises(FileNotFoundError, match="has no 'of_my_own:2.0.0': "):
        prepared_builder("of_my_own:2.0.0", download=False)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("no_such_place", ""), ("imagenete", " Did you mean 'imagenette'?")],
)
def test_a_name_that_nobody_knows_is_refused(name, hint, no_datasets):
    message = (
        f"There is no folder '{name}', and TensorFlow Datasets knows no dataset of "
        f"that name.{hint} Give 'digits', an existing folder, or a name listed at "
        "https://www.tensorflow.org/datasets."
    )
    with pytest.raises(FileNotFoundError) as raised:
        prepared_builder(name, download=False)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("name", "year", "files"),
    [
        ("i_naturalist2019", 2019, "train_val2019, train2019.json and val2019.json"),
        ("iNat19", 2019, "train_val2019, train2019.json and val2019.json"),
        ("i_naturalist2021", 2021, "train and val"),
    ],
)
def test_inaturalist_of_some_years_is_to_be_had_elsewhere(
    name, year, files, no_datasets
):
    message = (
        f"cannot give '{name}'. Get the official files of iNaturalist {year}, unpack "
        f"them into one folder, in which {files} lie then, and give that folder"
    )
    with pytest.raises(FileNotFoundError, match=message):
        prepared_builder(name, download=True)


@pytest.mark.parametrize(
    "name",
    [
        *("imagenet2012", "imagenette", "cifar10", "cifar100", "oxford_flowers102"),
        *("cars196", "i_naturalist2018"),
    ],
)
def test_a_dataset_that_is_not_prepared_is_refused_without_a_download(
    name, no_datasets, no_download
):
    message = (
        rf"There is no folder '{name}', and the dataset '{name}' of TensorFlow "
        rf"Datasets is not prepared in {no_datasets}/{name}/[\w./-]+\. Allow its "
        r"download \(--download, or download=True\), or set TFDS_DATA_DIR to where it "
        r"is\."
    )
    with pytest.raises(FileNotFoundError, match=message):
        prepared_builder(name, download=False)
    assert not no_datasets.exists()


def test_what_must_be_got_by_hand_is_said(no_datasets, no_download):
    with pytest.raises(FileNotFoundError, match=r" By hand: manual_dir should contain"):
        prepared_builder("imagenet2012", download=False)
    archives = no_datasets / "downloads" / "manual"
    rule = (
        r"To prepare 'imagenet2012', ILSVRC2012_img_train\.tar and "
        rf"ILSVRC2012_img_val\.tar must lie in {archives}\. By hand: .*image-net\.org"
    )
    with pytest.raises(FileNotFoundError, match=rule):
        prepared_builder("imagenet2012", download=True)
    archives.mkdir(parents=True)
    (archives / "ILSVRC2012_img_train.tar").touch()
    rule = r"'imagenet2012', ILSVRC2012_img_val\.tar must lie in "
    with pytest.raises(FileNotFoundError, match=rule):
        prepared_builder("imagenet2012", download=True)


def test_what_is_there_is_left_to_tensorflow_datasets(no_datasets, monkeypatch):
    archives = no_datasets / "downloads" / "manual"
    archives.mkdir(parents=True)
    for part in ("train", "val"):
        (archives / f"ILSVRC2012_img_{part}.tar").touch()
    prepared = []
    monkeypatch.setattr(PREPARE, lambda builder: prepared.append(builder.name))
    assert prepared_builder("imagenet2012", download=True).name == "imagenet2012"
    assert prepared == ["imagenet2012"]


def test_a_download_that_fails_says_what_was_tried(no_datasets, monkeypatch):
    def fail(self):
        raise OSError("no way to the network")

    monkeypatch.setattr(PREPARE, fail)
    message = rf"could not prepare 'mnist' in {no_datasets}/.*: no way to the network"
    with pytest.raises(FileNotFoundError, match=message):
        prepared_builder("mnist", download=True)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("mnist:9.9.9", r"Dataset mnist cannot be loaded at version 9\.9\.9, only: 3"),
        (
            "imagenette/tiny",
            r"BuilderConfig tiny not found with version 1\.0\.0\. Its configs: full-s",
        ),
        ("mnist/", r"Parsing builder name string mnist/ failed\.$"),
    ],
)
def test_a_version_or_config_that_does_not_exist_is_refused(name, reason, no_datasets):
    with pytest.raises(FileNotFoundError, match=f"has no '{name}': {reason}"):
        prepared_builder(name, download=True)
