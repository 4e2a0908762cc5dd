"""What devices can do, as their makers say, and how a set of them is named."""

import re
from dataclasses import dataclass, replace

from keras_deit._checks import check

FORMATS = ("float32", "tf32", "bfloat16", "float16")  # what products are computed in
CHIPS_OF_A_TPU_HOST = 4  # of v4 and v5p
CORES_OF_A_TPU_CHIP = 2

_GRAMMAR = re.compile(r"(?:(\d+)x)?(?:(\d+)x)?([^\d\W][\w.-]*)")


@dataclass(frozen=True)
class Accelerator:
    """A kind of device.

    Attributes:
        name: What it is called in `--devices`.
        tflops: Peak of dense products, in 10^12 operations a second, by the format; a
            format that it lacks is not there. Empty if there is no sheet.
        memory_gb: Its memory, in 10^9 bytes; None if there is no sheet.
    """

    name: str
    tflops: dict[str, float]
    memory_gb: float | None

    @property
    def is_tpu(self) -> bool:
        """Whether it is reached by `TPUStrategy`."""
        return self.name.startswith("TPU-")

    def format_of(self, precision: str) -> str:
        """Names the format of the products of a model.

        On TPUs the products of float32 are computed in bfloat16, and on GPUs that have
        it in TF32: these are the defaults of XLA and TensorFlow.

        Args:
            precision: Of the model: "float32", "mixed_bfloat16" or "mixed_float16".

        Returns:
            One of `FORMATS`.

        Raises:
            ValueError: If there is no figure for it.
        """
        wanted = (precision.removeprefix("mixed_"),)
        if precision == "float32":
            wanted = ("bfloat16",) if self.is_tpu else ("tf32", "float32")
        found = [name for name in wanted if name in self.tflops]
        check(
            bool(found),
            f"`precision` must be one that the device {self.name!r} computes in, which "
            f"is {sorted(self.tflops)}.",
            precision=precision,
        )
        return found[0]

    def peak(self, precision: str) -> float:
        """Returns the most operations a second of a model in a precision."""
        return 1e12 * self.tflops[self.format_of(precision)]


def _nvidia(name: str, memory_gb: float, **tflops: float) -> Accelerator:
    return Accelerator(name, tflops, memory_gb)


def _tpu(name: str, memory_gb: float, bfloat16: float) -> Accelerator:
    return Accelerator(name, {"bfloat16": bfloat16}, memory_gb)


_AMPERE = {"float32": 19.5, "tf32": 156, "bfloat16": 312, "float16": 312}
_HOPPER = {"float32": 67, "tf32": 494.7, "bfloat16": 989.4, "float16": 989.4}

# NVIDIA's data sheets of V100, T4, A10, A100, L4, H100 and H200 (the SXM forms where
# there are several), without sparsity: where a sheet prints sparse figures, half of
# them. Google's: cloud.google.com/tpu/docs/v4 and /v5p, of a chip with its two cores.
# A CPU has no row: its peak is its cores times their clock times their vectors.
ACCELERATORS = {
    device.name: device
    for device in (
        _nvidia("V100", 16, float32=15.7, float16=125),
        _nvidia("V100-32GB", 32, float32=15.7, float16=125),
        _nvidia("T4", 16, float32=8.1, float16=65),
        _nvidia("A10", 24, float32=31.2, tf32=62.5, bfloat16=125, float16=125),
        _nvidia("L4", 24, float32=30.3, tf32=60, bfloat16=121, float16=121),
        _nvidia("A100", 40, **_AMPERE),
        _nvidia("A100-80GB", 80, **_AMPERE),
        _nvidia("H100", 80, **_HOPPER),
        _nvidia("H200", 141, **_HOPPER),
        _tpu("TPU-v4", 32, 275),
        _tpu("TPU-v5p", 95, 459),
        Accelerator("CPU", {}, None),
    )
}


@dataclass(frozen=True)
class Fleet:
    """The devices of a run.

    Attributes:
        hosts: Machines.
        devices_per_host: Devices of each.
        accelerator: What they are.
    """

    hosts: int
    devices_per_host: int
    accelerator: Accelerator

    @property
    def num_devices(self) -> int:
        """All devices together."""
        return self.hosts * self.devices_per_host


def read_fleet(
    text: str, peak_tflops: float | None = None, memory_gb: float | None = None
) -> Fleet:
    """Reads what `--devices` says.

    Args:
        text: "8xA100" (one host with 8), "4x8xH100" (4 hosts with 8 each), or
            "tpu-v4-32" (a slice, by its number of cores, two to a chip and four chips
            to a host). Large and small letters are the same.
        peak_tflops: Peak of a device in 10^12 operations a second, in place of the
            table's and for any precision; positive.
        memory_gb: Memory of a device in 10^9 bytes, in place of the table's; positive.

    Returns:
        The devices. A chip of a TPU counts as one.

    Raises:
        ValueError: If the text is none of these, a number is refused, or a device is
            not in the table and not both figures are given.

    Example:
    >>> fleet = read_fleet("4x8xH100")
    >>> fleet.hosts, fleet.devices_per_host, fleet.accelerator.memory_gb
    (4, 8, 80)
    """
    for name, number in (("peak_tflops", peak_tflops), ("memory_gb", memory_gb)):
        rule = f"`{name}` must be positive."
        check(number is None or number > 0, rule, **{name: number})
    slice_ = re.fullmatch(r"tpu-(v4|v5p)-(\d+)", text, re.IGNORECASE)
    if slice_:
        hosts, devices = _chips(text, int(slice_[2]))
        name = f"TPU-{slice_[1]}"
    else:
        parts = _GRAMMAR.fullmatch(text)
        check(
            parts is not None,
            "`devices` must be COUNTxNAME, HOSTSxCOUNTxNAME or tpu-v4-CORES, for "
            "instance 8xA100, 4x8xH100 or tpu-v4-8.",
            devices=text,
        )
        first, second, name = parts.groups()
        hosts, devices = (int(first), int(second)) if second else (1, int(first or 1))
    check(
        hosts >= 1 and devices >= 1,
        "`devices` must name at least one device.",
        devices=text,
    )
    return Fleet(hosts, devices, _accelerator(name, peak_tflops, memory_gb))


def _chips(text: str, cores: int) -> tuple[int, int]:
    """Hosts of a slice, and the chips of each."""
    of_a_host = CORES_OF_A_TPU_CHIP * CHIPS_OF_A_TPU_HOST
    check(
        cores > 0 and cores % of_a_host == 0,
        f"A slice must have a multiple of {of_a_host} cores, those of a host.",
        devices=text,
    )
    return cores // of_a_host, CHIPS_OF_A_TPU_HOST


def _accelerator(
    name: str, peak_tflops: float | None, memory_gb: float | None
) -> Accelerator:
    """A device of the table, or one whose figures are given."""
    known = {key.lower(): device for key, device in ACCELERATORS.items()}
    device = known.get(name.lower(), Accelerator(name, {}, None))
    if peak_tflops is not None:
        device = replace(device, tflops=dict.fromkeys(FORMATS, peak_tflops))
    if memory_gb is not None:
        device = replace(device, memory_gb=memory_gb)
    sheets = sorted(name for name, device in ACCELERATORS.items() if device.tflops)
    check(
        bool(device.tflops) and device.memory_gb is not None,
        f"A device must be one of {sheets}, or both its peak and its memory must be "
        "given (`peak_tflops`, `memory_gb`).",
        device=name,
        peak_tflops=peak_tflops,
        memory_gb=memory_gb,
    )
    return device
