import pytest

from keras_deit.training.accelerators import ACCELERATORS, Accelerator, read_fleet


@pytest.mark.parametrize(
    ("text", "hosts", "devices", "name"),
    [
        ("8xA100", 1, 8, "A100"),
        ("4x8xH100", 4, 8, "H100"),
        ("a100-80gb", 1, 1, "A100-80GB"),
        ("2xTPU-v4", 1, 2, "TPU-v4"),
        # Two cores are a chip, four chips a host.
        ("tpu-v4-8", 1, 4, "TPU-v4"),
        ("TPU-V5P-32", 4, 4, "TPU-v5p"),
    ],
)
def test_reads_hosts_devices_and_their_kind(text, hosts, devices, name):
    fleet = read_fleet(text)
    assert (fleet.hosts, fleet.devices_per_host) == (hosts, devices)
    assert fleet.num_devices == hosts * devices
    assert fleet.accelerator == ACCELERATORS[name]


def test_knows_what_the_sheets_say():
    a100, tpu = ACCELERATORS["A100"], ACCELERATORS["TPU-v4"]
    assert (a100.memory_gb, a100.peak("mixed_bfloat16")) == (40, 312e12)
    assert (tpu.memory_gb, tpu.peak("mixed_bfloat16")) == (32, 275e12)
    assert ACCELERATORS["H100"].peak("mixed_float16") == 989.4e12


def test_float32_is_computed_in_what_frameworks_take_for_it():
    assert ACCELERATORS["A100"].format_of("float32") == "tf32"
    assert ACCELERATORS["V100"].format_of("float32") == "float32"
    assert ACCELERATORS["TPU-v5p"].format_of("float32") == "bfloat16"
    assert ACCELERATORS["TPU-v5p"].is_tpu
    assert not ACCELERATORS["A100"].is_tpu


def test_figures_that_are_given_replace_those_of_the_table():
    given = read_fleet("1xcpu", peak_tflops=0.5, memory_gb=16).accelerator
    assert (given.name, given.memory_gb) == ("CPU", 16)
    assert given.peak("float32") == given.peak("mixed_bfloat16") == 0.5e12
    own = read_fleet("2xNPU", peak_tflops=3, memory_gb=8)
    assert (own.num_devices, own.accelerator.name) == (2, "NPU")
    less = read_fleet("8xA100", memory_gb=20).accelerator
    assert (less.memory_gb, less.tflops) == (20, ACCELERATORS["A100"].tflops)


def test_refuses_a_precision_without_a_figure():
    with pytest.raises(
        ValueError, match=r"`precision` must .* Received: precision='mi"
    ):
        ACCELERATORS["V100"].format_of("mixed_bfloat16")
    with pytest.raises(ValueError, match=r"'X'.* which is \['bfloat16'\]"):
        Accelerator("X", {"bfloat16": 1}, 1).format_of("mixed_float16")


@pytest.mark.parametrize("text", ["", "8x", "4x8x2xA100", "8 A100", "-1xA100"])
def test_refuses_what_names_no_devices(text):
    with pytest.raises(ValueError, match=r"`devices` must be COUNTxNAME.* Received"):
        read_fleet(text)


@pytest.mark.parametrize("text", ["0xA100", "0x8xA100", "2x0xA100"])
def test_refuses_no_devices_at_all(text):
    with pytest.raises(ValueError, match="`devices` must name at least one device"):
        read_fleet(text)


@pytest.mark.parametrize("text", ["tpu-v4-0", "tpu-v4-12"])
def test_refuses_a_slice_of_no_whole_hosts(text):
    with pytest.raises(ValueError, match="a multiple of 8 cores"):
        read_fleet(text)


@pytest.mark.parametrize(
    ("text", "given"),
    [("8xB52", {}), ("8xB52", {"memory_gb": 1}), ("1xcpu", {"peak_tflops": 1})],
)
def test_refuses_a_device_without_both_figures(text, given):
    with pytest.raises(ValueError, match=r"one of \['A10', .*'V100-32GB'\], or both"):
        read_fleet(text, **given)


@pytest.mark.parametrize("name", ["peak_tflops", "memory_gb"])
def test_refuses_figures_that_are_not_positive(name):
    with pytest.raises(ValueError, match=f"`{name}` must be positive"):
        read_fleet("8xA100", **{name: 0})
