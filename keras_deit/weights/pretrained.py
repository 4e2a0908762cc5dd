"""The one table of published weights, and how their files get here."""

import hashlib
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from keras_deit._checks import check, check_choice
from keras_deit._files import replacing
from keras_deit.weights.download import download, only_one


@dataclass(frozen=True)
class Pretrained:
    """Published weights of a variant.

    Attributes:
        url: Where the file is; with `by_hand`, the page that a person opens.
        file: Its name in the cache folder.
        sha256: Its published SHA-256, or the first 8 digits or more of it (of timm's
            hub files: as others noted it, see `_vit`); None where none is known.
        top1: Top-1 accuracy on ImageNet-1k that was reached with it, in percent.
        licence: Licence of the weights, by its SPDX name.
        source: Who published it, and where `top1` comes from.
        by_hand: Whether it lies behind a page of questions, so that only a person can
            fetch it.
    """

    url: str
    file: str
    sha256: str | None
    top1: float
    licence: str
    source: str
    by_hand: bool = False


def _deit(
    name: str, sha256: str, top1: float, source: str = "DeiT authors; their README"
) -> Pretrained:
    file = f"{name}-{sha256}.pth"
    url = f"https://dl.fbaipublicfiles.com/deit/{file}"
    return Pretrained(url, file, sha256, top1, "Apache-2.0", source)


def _t2t(file: str, top1: float) -> Pretrained:
    url = f"https://github.com/yitu-opensource/T2T-ViT/releases/download/main/{file}"
    source = "T2T-ViT authors; their README"
    return Pretrained(url, file, None, top1, "BSD-3-Clause-Clear", source)


def _vit(
    name: str,
    top1: float,
    sha256: str | None = None,
    tag: str = "augreg_in21k_ft_in1k",
) -> Pretrained:
    """A Vision Transformer pretrained on ImageNet-21k, from timm's hub.

    No hash stands beside these files; those given here were noted by LibreYOLO.
    """
    url = f"https://huggingface.co/timm/{name}.{tag}/resolve/main/model.safetensors"
    source = "ViT authors or timm, by timm; timm's results-imagenet.csv"
    file = f"{name}.{tag}.safetensors"
    return Pretrained(url, file, sha256, top1, "Apache-2.0", source)


def _regnet(folder: str, file: str, top1: float) -> Pretrained:
    """A RegNetY from timm's releases; `top1` is at 224 pixels."""
    repository = "https://github.com/huggingface/pytorch-image-models"
    converted = folder == "v0.1-regnet"
    source = "RegNet authors, by timm" if converted else "timm"
    return Pretrained(
        url=f"{repository}/releases/download/{folder}/{file}",
        file=file,
        sha256=file.removesuffix(".pth").rpartition("-")[2],
        top1=top1,
        licence="MIT" if converted else "Apache-2.0",
        source=f"{source}; timm's RegNet model cards",
    )


DEIT = [
    ("deit_tiny_patch16_224", "a1311bcf", 72.2),
    ("deit_small_patch16_224", "cd65a155", 79.9),
    ("deit_base_patch16_224", "b5f2ef4d", 81.8),
    ("deit_base_patch16_384", "8de9b5d1", 82.9),
    ("deit_tiny_distilled_patch16_224", "b40b3cf7", 74.5),
    ("deit_small_distilled_patch16_224", "649709d9", 81.2),
    ("deit_base_distilled_patch16_224", "df68dfff", 83.4),
    ("deit_base_distilled_patch16_384", "d0272ac0", 85.2),
    ("regnety_160", "a5fe301d", 82.9, "DeiT authors; their paper (2012.12877)"),
]
VIT = [
    (
        "vit_tiny_patch16_224",
        75.454,
        "fecf81b492bd13ee7a5297cb74d1d417aac8bf7e1b7d96aed89c4691984587ed",
    ),
    (
        "vit_small_patch16_224",
        81.384,
        "79c03c635cdfd798a364a9d8c4e5c0b7255b975ea2c9616046d4f77ab01435aa",
    ),
    (
        "vit_base_patch16_224",
        85.096,
        "32aa17d6e17b43500f531d5f6dc9bc93e56ed8841b8a75682e1bb295d722405b",
        "augreg2_in21k_ft_in1k",
    ),
    ("vit_base_patch16_384", 85.996),
    ("vit_base_patch32_224", 80.716),
    ("vit_base_patch32_384", 83.35),
    (
        "vit_large_patch16_224",
        85.834,
        "109390825a5bada2864f1b74445a63d29c51ef079c349644bc98996c452f6cf1",
    ),
    ("vit_large_patch16_384", 87.084),
    ("vit_large_patch32_384", 81.51, None, "orig_in21k_ft_in1k"),
]
PRETRAINED = {
    **{name: _deit(name, *facts) for name, *facts in DEIT},
    "t2t_vit_7": _t2t("71.7_T2T_ViT_7.pth.tar", 71.7),
    "t2t_vit_10": _t2t("75.2_T2T_ViT_10.pth.tar", 75.2),
    "t2t_vit_12": _t2t("76.5_T2T_ViT_12.pth.tar", 76.5),
    "t2t_vit_14": _t2t("81.5_T2T_ViT_14.pth.tar", 81.5),
    "t2t_vit_19": _t2t("81.9_T2T_ViT_19.pth.tar", 81.9),
    "t2t_vit_24": _t2t("82.3_T2T_ViT_24.pth.tar", 82.3),
    "t2t_vit_t_14": _t2t("81.7_T2T_ViTt_14.pth.tar", 81.7),
    "t2t_vit_t_19": _t2t("82.4_T2T_ViTt_19.pth.tar", 82.4),
    "t2t_vit_t_24": _t2t("82.6_T2T_ViTt_24.pth.tar", 82.6),
    "evit_small_patch16_224": Pretrained(
        url="https://drive.google.com/file/d/1FfvdEBss9f8gexjqEY8vOSUQe_8qwYuL/view",
        file="evit_small_patch16_224_keep0.7_fused.pth",
        sha256=None,
        top1=79.5,
        licence="Apache-2.0",
        source="EViT authors, keep rate 0.7 with the fused token; their README",
        by_hand=True,
    ),
    **{name: _vit(name, *facts) for name, *facts in VIT},
    "regnety_002": _regnet("v0.1-regnet", "regnety_002-e68ca334.pth", 70.282),
    "regnety_004": _regnet("v0.1-regnet", "regnety_004-0db870e6.pth", 74.018),
    "regnety_006": _regnet("v0.1-regnet", "regnety_006-c67e57ec.pth", 75.244),
    "regnety_008": _regnet("v0.1-regnet", "regnety_008-dc900dbe.pth", 76.296),
    "regnety_016": _regnet("v0.1-regnet", "regnety_016-54367f74.pth", 77.862),
    "regnety_032": _regnet("v0.1-weights", "regnety_032_ra-7f2439f9.pth", 81.924),
    "regnety_040": _regnet("v0.1-tpu-weights", "regnety_040_ra3-670e1166.pth", 82.304),
    "regnety_080": _regnet("v0.1-tpu-weights", "regnety_080_ra3-1fdc4344.pth", 83.16),
    "regnety_120": _regnet("v0.1-regnet", "regnety_120-721ba79a.pth", 80.37),
}


def cache_folder() -> Path:
    """Folder of the downloaded files: `$KERAS_DEIT_CACHE` or `~/.cache/keras_deit`."""
    chosen = os.environ.get("KERAS_DEIT_CACHE")
    return Path(chosen or "~/.cache/keras_deit").expanduser()


def pretrained_file(name: str) -> Path:
    """Finds the published weights of a variant, and downloads them if need be.

    The SHA-256 of the file is compared with the published one. Where none was
    published, it is compared with that of the first use on this computer, and a line
    on standard error says when that was recorded.

    Hash, size and time of change are recorded in "<file>.sha256" beside the file. While
    size and time stay the same, the file is not hashed again: a change that hides both
    is not seen. Without that record, the file is hashed anew.

    Args:
        name: Name of a variant with published weights, a key of `PRETRAINED`.

    Returns:
        The verified file, in `cache_folder()`.

    Raises:
        ValueError: If no weights were published under that name, or the file has
            another hash than it must have. A file of the cache is left as it is, a
            download is thrown away.
        FileNotFoundError: If the weights must be fetched by hand, and are not there.
        ConnectionError: If they cannot be downloaded; what has arrived is kept, and
            the next call goes on from there.
        OSError: If the cache folder cannot be written.

    Example:
    >>> entry = PRETRAINED["deit_tiny_patch16_224"]
    >>> entry.file, entry.top1, entry.licence
    ('deit_tiny_patch16_224-a1311bcf.pth', 72.2, 'Apache-2.0')
    """
    check_choice("name", name, PRETRAINED)
    entry = PRETRAINED[name]
    path = cache_folder() / entry.file
    if _is_unchanged(entry, path):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with only_one(path):
        if path.exists():
            digest = _verify(entry, path, path, f"delete {path} and try again")
        elif entry.by_hand:
            raise FileNotFoundError(
                f"The weights of {name!r} lie behind a confirmation page: open "
                f"{entry.url} and put the file at {path}."
            )
        else:
            part = download(entry.url, path)
            try:
                digest = _verify(entry, path, part, "the download is thrown away")
            except ValueError:
                part.unlink()
                raise
            part.replace(path)
        _record(entry, path, digest)
    return path


def _verify(entry: Pretrained, path: Path, file: Path, remedy: str) -> str:
    """Returns the SHA-256 of what is or becomes `path`, if it is the one it must be."""
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    expected, whose = entry.sha256, "the known SHA-256"
    if expected is None:
        expected = _recorded(path).get("sha256", "")
        whose = f"the SHA-256 of its first use, as {_record_of(path)} has it,"
    rule = f"`{path.name}` must have {whose} {expected!r}: {remedy}."
    check(digest.startswith(expected), rule, sha256=digest)
    return digest


def _record_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _record(entry: Pretrained, path: Path, digest: str) -> None:
    """Records what was verified; says so where there was nothing to compare with."""
    stat = path.stat()
    record = {"sha256": digest, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    if entry.sha256 is None and not _record_of(path).exists():
        print(
            f"no hash was published for {path.name}; recorded {digest} "
            f"({stat.st_size} bytes) at first use",
            file=sys.stderr,
        )
    with replacing(_record_of(path)) as partial:
        partial.write_text(json.dumps(record))


def _recorded(path: Path) -> dict:
    """What was recorded of a file; empty if nothing was."""
    if not _record_of(path).exists():
        return {}
    try:
        record = json.loads(_record_of(path).read_text())
    except ValueError:
        record = None
    whole = isinstance(record, dict) and {*record} == {"sha256", "size", "mtime_ns"}
    rule = f"{_record_of(path)} must hold what was recorded of a file: delete it."
    check(whole, rule, record=record)
    return record


def _is_unchanged(entry: Pretrained, path: Path) -> bool:
    """Whether a file is there and has not changed since it was verified."""
    record = _recorded(path)
    if not record or not path.exists():
        return False
    stat = path.stat()
    same_size = record["size"] == stat.st_size
    same_time = record["mtime_ns"] == stat.st_mtime_ns
    return same_size and same_time and record["sha256"].startswith(entry.sha256 or "")
