"""What the firmware of a Raspberry Pi says about throttling: one reader for `doctor` and `bench`, which believes nothing blindly."""

import pathlib
import time

import pytest

from edge_agent.engine import throttling

KERNEL = "sys/devices/platform/soc/soc:firmware/get_throttled"
PROGRAM = "usr/bin/vcgencmd"


def put(root: pathlib.Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0\n", 0),
        ("50005\n", 0x50005),
        ("0x50000", 0x50000),
        ("throttled=0xe0008\n", 0xE0008),
        ("", None),
        ("0x\n", None),
        ("-1\n", None),
        ("nonsense\n", None),
        ("123456789abc\n", None),
        ("0x5 0x5\n", None),
        ("٥\n", None),  # a digit, but not one of the firmware's
        ("0" * 5000, None),
        ("throttled=throttled=0x1", None),
    ],
)
def test_both_sources_are_read_alike(text: str, expected: int | None, tmp_path: pathlib.Path) -> None:
    put(tmp_path / "kernel", KERNEL, text)
    put(tmp_path / "program", PROGRAM, f"#!/bin/sh\n[ \"$1\" = get_throttled ] && printf '%s' '{text}'\n")
    assert throttling.flags(tmp_path / "kernel") == expected
    assert throttling.flags(tmp_path / "program") == expected


@pytest.mark.parametrize(
    "at", ["soc/soc:firmware", "soc@107c000000/soc@107c000000:firmware", "raspberrypi-firmware", "soc/3f00b840.mailbox:firmware"]
)
def test_kernel_is_asked_before_the_program(at: str, tmp_path: pathlib.Path) -> None:
    put(tmp_path, f"sys/devices/platform/{at}/get_throttled", "5\n")
    put(tmp_path, PROGRAM, '#!/bin/sh\ntouch "$0.was-started"\necho throttled=0x0\n')
    assert throttling.flags(tmp_path) == 5
    assert not (tmp_path / f"{PROGRAM}.was-started").exists()


def test_program_is_asked_where_the_kernel_makes_no_sense(tmp_path: pathlib.Path) -> None:
    put(tmp_path, KERNEL, "nonsense\n")
    put(tmp_path, PROGRAM, "#!/bin/sh\nexit 255\n")
    put(tmp_path, "opt/vc/bin/vcgencmd", "#!/bin/sh\necho throttled=0x80000\n")
    assert throttling.flags(tmp_path) == 0x80000


@pytest.mark.parametrize(
    "program",
    [
        "#!/bin/sh\necho throttled=0x0\nexit 1\n",  # as without the rights to ask: what it prints does not count
        "#!/bin/sh\nyes x | head -c 1000000\n",
        "#!/bin/sh\nkill -9 $$\n",
        "#!/no/such/interpreter\n",
        "\x7fELF of another processor",
        "",
    ],
)
def test_program_that_fails_says_nothing(program: str, tmp_path: pathlib.Path) -> None:
    put(tmp_path, PROGRAM, program)
    assert throttling.flags(tmp_path) is None


def test_program_that_hangs_is_not_waited_for(tmp_path: pathlib.Path) -> None:
    put(tmp_path, PROGRAM, "#!/bin/sh\nexec sleep 60\n")
    started = time.monotonic()
    assert throttling.flags(tmp_path, wait_s=0.2) is None
    assert time.monotonic() - started < 10


def test_what_is_not_there_is_not_zero(tmp_path: pathlib.Path) -> None:
    assert throttling.flags(tmp_path) is None
    (tmp_path / KERNEL).mkdir(parents=True)
    (tmp_path / PROGRAM).mkdir(parents=True)
    assert throttling.flags(tmp_path) is None


def test_text_is_that_of_the_firmware() -> None:
    assert [throttling.as_text(found) for found in (0, 0x50005)] == ["0x0", "0x50005"]
