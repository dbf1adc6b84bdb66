"""What `doctor` says about the device, from the files of real systems."""

import json
import pathlib
import random

import pytest

from edge_agent.agent import doctor_device
from edge_agent.agent.doctor import examine
from edge_agent.core.config.loading import load
from tests.support.command_line import run

HOME = pathlib.PurePosixPath("/var/lib/edge-agent")

RASPBERRY_PI_OS = """\
24 1 179:2 / / rw,noatime shared:1 - ext4 /dev/mmcblk0p2 rw
25 24 0:5 / /dev rw,relatime shared:2 - devtmpfs udev rw,size=3826192k,nr_inodes=956548,mode=755
31 24 0:21 / /run rw,nosuid,nodev shared:5 - tmpfs tmpfs rw,size=804600k,mode=755
64 24 179:1 / /boot/firmware rw,relatime shared:31 - vfat /dev/mmcblk0p1 rw,fmask=0022,dmask=0022,codepage=437,errors=remount-ro
"""
READ_ONLY_ROOT = """\
22 1 0:21 / / rw,relatime shared:1 - overlay overlayroot rw,lowerdir=/media/root-ro,upperdir=/media/root-rw/overlay,workdir=/media/root-rw/w
32 22 0:20 / /media/root-rw rw,relatime shared:2 - tmpfs tmpfs-root rw
33 22 179:2 / /media/root-ro ro,relatime shared:3 - ext4 /dev/mmcblk0p2 ro
"""
CONTAINER = """\
711 594 0:62 / / rw,relatime master:301 - overlay overlay rw,lowerdir=/l:/b,upperdir=/var/lib/docker/overlay2/c/diff,workdir=/w
712 711 0:65 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw
717 711 8:1 /var/lib/docker/volumes/edge/_data /data rw,relatime - ext4 /dev/sda1 rw,discard
"""


def tree(root: pathlib.Path, files: dict[str, str]) -> pathlib.Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def storage(tmp_path: pathlib.Path, mountinfo: str, folder: str = str(HOME), **files: str) -> doctor_device.Finding:
    return doctor_device.storage(pathlib.PurePosixPath(folder), tree(tmp_path, {"proc/self/mountinfo": mountinfo, **files}))


def ext4(options: str) -> str:
    return RASPBERRY_PI_OS.replace("/dev/mmcblk0p2 rw", f"/dev/mmcblk0p2 rw,{options}")


# --- storage


def test_disk_of_a_raspberry_pi_is_fine(tmp_path: pathlib.Path) -> None:
    assert storage(tmp_path, RASPBERRY_PI_OS) == doctor_device.Finding("ext4 at / (/dev/mmcblk0p2)")


@pytest.mark.parametrize(
    ("mountinfo", "folder", "words"),
    [
        (RASPBERRY_PI_OS, "/run/edge-agent", ("in memory (tmpfs)", "would not survive a restart")),
        (RASPBERRY_PI_OS + "70 24 254:0 / /var/lib rw shared:9 - ext4 /dev/zram0 rw\n", str(HOME), ("in memory (/dev/zram0)",)),
        (RASPBERRY_PI_OS + "70 24 0:9 / /ram rw - ramfs none rw\n", "/ram", ("in memory (ramfs)",)),
        (RASPBERRY_PI_OS, "/boot/firmware/x", ("FAT", "no journal")),
        (RASPBERRY_PI_OS + "70 24 8:1 / /media/my\\040stick rw - exfat /dev/sda1 rw\n", "/media/my stick/x", ("exFAT", "/media/my stick")),
        (RASPBERRY_PI_OS + "70 24 8:1 / /media/w rw - fuseblk /dev/sda1 rw\n", "/media/w", ("NTFS (fuseblk)",)),
        (RASPBERRY_PI_OS + "70 24 0:50 / /srv rw - nfs4 box:/x rw,vers=4.2\n", "/srv/edge", ("network file system (nfs4)", "locks")),
        (RASPBERRY_PI_OS + "70 24 0:50 / /srv rw - cifs //box/x rw,vers=3\n", "/srv/edge", ("network file system (cifs)",)),
        (READ_ONLY_ROOT, str(HOME), ("/media/root-rw/overlay is in memory (tmpfs)", "would not survive")),
        (CONTAINER, str(HOME), ("/var/lib/docker/overlay2/c/diff", "may not survive")),
        (ext4("barrier=0"), str(HOME), ("barrier=0", "confirmed")),
        (ext4("nobarrier"), str(HOME), ("nobarrier", "confirmed")),
        (ext4("data=writeback"), str(HOME), ("data=writeback", "stays")),
        (ext4("commit=600"), str(HOME), ("commit=600", "up to 600 s of everything else", "stays")),
        (ext4("fsync_mode=nobarrier").replace("ext4", "f2fs"), str(HOME), ("fsync_mode=nobarrier",)),
        (CONTAINER.replace("rw,lowerdir", "rw,volatile,lowerdir"), str(HOME), ("volatile",)),
    ],
)  # fmt: skip
def test_storage_that_may_lose_the_queue_is_a_warning(mountinfo: str, folder: str, words: tuple[str, ...], tmp_path: pathlib.Path) -> None:
    text = " ".join(storage(tmp_path, mountinfo, folder).warnings)
    assert all(word in text for word in words), text


def test_container_is_told_apart(tmp_path: pathlib.Path) -> None:
    for marker in (".dockerenv", "run/.containerenv"):
        (warning,) = storage(tmp_path / marker.replace("/", ""), CONTAINER, **{marker: ""}).warnings
        assert "container" in warning and "volume" in warning
    assert storage(tmp_path / "volume", CONTAINER, "/data/edge", **{".dockerenv": ""}).warnings == ()


@pytest.mark.parametrize(
    "options",
    ["commit=5", "commit=30", "barrier=1", "data=ordered", "data=journal", "commit=soon", "commit=99999999999999999999", "discard"],
)
def test_usual_options_are_no_warning(options: str, tmp_path: pathlib.Path) -> None:
    assert storage(tmp_path, ext4(options)).warnings == ()


def test_overlay_on_a_disk_is_no_warning(tmp_path: pathlib.Path) -> None:
    on_disk = READ_ONLY_ROOT.replace("- tmpfs tmpfs-root rw", "- ext4 /dev/mmcblk0p3 rw")
    assert storage(tmp_path, on_disk).warnings == ()


@pytest.mark.parametrize(
    ("lines", "folder", "at"),
    [
        (["70 24 8:1 / /var/lib rw - ext4 /dev/a rw", "71 70 8:2 / /var/lib rw - ext4 /dev/b rw"], str(HOME), "/dev/b"),  # over each other
        (["70 24 8:1 / /var/lib/edge-agent rw - ext4 /dev/a rw", "71 24 8:2 / /var rw - ext4 /dev/b rw"], str(HOME), "/dev/b"),  # hidden
        (["70 24 0:40 /@ /var rw - btrfs /dev/a rw,subvol=/@", "71 70 0:40 /@lib /var/lib rw - btrfs /dev/c rw"], str(HOME), "/dev/c"),
        (["70 24 8:1 /srv/x /var/lib/edge-agent rw - ext4 /dev/bound rw"], str(HOME), "/dev/bound"),  # a bind mount
        (["70 24 8:1 / /var/lib/edge rw - ext4 /dev/a rw"], str(HOME), "/dev/mmcblk0p2"),  # a name that only begins like it
        (["70 24 8:1 / /a\\134b\\011c rw - ext4 /dev/a rw"], "/a\\b\tc/home", "/dev/a"),
    ],
)  # fmt: skip
def test_mount_is_the_one_that_a_path_ends_in(lines: list[str], folder: str, at: str, tmp_path: pathlib.Path) -> None:
    assert at in storage(tmp_path, RASPBERRY_PI_OS + "\n".join(lines) + "\n", folder).text


def test_this_device_has_a_file_system() -> None:
    assert "not known" not in doctor_device.storage(pathlib.Path("/").resolve()).text


# --- clock


def test_clock(tmp_path: pathlib.Path) -> None:
    nothing, chip, synchronised = tmp_path / "0", tmp_path / "1", tmp_path / "2"
    tree(chip, {"sys/class/rtc/rtc0/name": "rpi-rtc\n"})
    tree(synchronised, {"run/systemd/timesync/synchronized": ""})
    now, installed = 1.79e9, 1.78e9
    (warning,) = doctor_device.clock(False, installed, now, nothing).warnings
    assert "No clock chip" in warning and "2026-09-21" in warning
    assert doctor_device.clock(True, installed, now, nothing).warnings == ()
    for root in (chip, synchronised):
        assert doctor_device.clock(False, installed, now, root).warnings == ()
        (warning,) = doctor_device.clock(False, installed, 0.0, root).warnings
        assert "1970-01-01" in warning and "before edge-agent was installed" in warning
    for odd in (-1e18, 1e18):
        assert doctor_device.clock(False, installed, odd, nothing).warnings


# --- power


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("50005\n", ("is too low now (0x50005)", "it is throttled", "it was throttled", "slowed down now")),
        ("0x50000\n", ("was too low since the start (0x50000)", "since the start")),
        ("throttled=0xe0008\n", ("0xe0008", "soft temperature limit")),
        ("80000\n", ("was at its soft temperature limit",)),
    ],
)
@pytest.mark.parametrize("at", ["soc/soc:firmware", "soc@107c000000/soc@107c000000:firmware", "raspberrypi-firmware"])
def test_throttling_flags_of_a_raspberry_pi(text: str, words: tuple[str, ...], at: str, tmp_path: pathlib.Path) -> None:
    found = doctor_device.power(tree(tmp_path, {f"sys/devices/platform/{at}/get_throttled": text}))
    assert all(word in " ".join(found.warnings) for word in words), found


def test_power_that_is_enough_or_not_known_is_no_warning(tmp_path: pathlib.Path) -> None:
    for n, text in enumerate(("0\n", "", "nonsense\n", "-1\n", "123456789abc\n", "0x\n")):
        root = tree(tmp_path / str(n), {"sys/devices/platform/soc/soc:firmware/get_throttled": text})
        assert doctor_device.power(root).warnings == ()
    assert "not known" in doctor_device.power(tmp_path / "nothing").text
    quiet = tree(tmp_path / "quiet", {"sys/class/hwmon/hwmon1/name": "rpi_volt\n", "sys/class/hwmon/hwmon1/in0_lcrit_alarm": "0\n"})
    assert doctor_device.power(quiet) == doctor_device.Finding("no warning of the hardware")


def test_alarm_of_the_voltage(tmp_path: pathlib.Path) -> None:
    tree(tmp_path, {"sys/class/hwmon/hwmon0/name": "cpu_thermal\n", "sys/class/hwmon/hwmon0/in0_lcrit_alarm": "1\n"})
    assert doctor_device.power(tmp_path).warnings == ()
    tree(tmp_path, {"sys/class/hwmon/hwmon1/name": "rpi_volt\n", "sys/class/hwmon/hwmon1/in0_lcrit_alarm": "1\n"})
    (warning,) = doctor_device.power(tmp_path).warnings
    assert "too low now" in warning and "rpi_volt" in warning


# --- processor


def cpu(governor: str, allowed: int, most: int = 2_400_000, driver: str = "cpufreq-dt", policy: str = "cpufreq/policy0") -> dict[str, str]:
    at = f"sys/devices/system/cpu/{policy}"
    return {
        f"{at}/scaling_governor": f"{governor}\n", f"{at}/scaling_driver": f"{driver}\n", f"{at}/scaling_max_freq": f"{allowed}\n",
        f"{at}/cpuinfo_max_freq": f"{most}\n",
    }  # fmt: skip


def heat(degrees: int, trips: dict[str, int]) -> dict[str, str]:
    at = "sys/class/thermal/thermal_zone0"
    found = {f"{at}/type": "cpu-thermal\n", f"{at}/temp": f"{degrees}\n"}
    for n, (kind, limit) in enumerate(trips.items()):
        found |= {f"{at}/trip_point_{n}_type": f"{kind}\n", f"{at}/trip_point_{n}_temp": f"{limit}\n"}
    return found


def test_processor_that_may_not_run_at_its_full_speed(tmp_path: pathlib.Path) -> None:
    (warning,) = doctor_device.processor(tree(tmp_path / "0", cpu("powersave", 2_400_000))).warnings
    assert "/sys/devices/system/cpu/cpufreq/policy0/scaling_governor" in warning and "lowest frequency" in warning
    (warning,) = doctor_device.processor(tree(tmp_path / "1", cpu("ondemand", 1_500_000))).warnings
    assert "1.50 GHz only, of 2.40 GHz" in warning and "arm_freq" in warning
    assert len(doctor_device.processor(tree(tmp_path / "2", cpu("powersave", 600_000, policy="cpu0/cpufreq"))).warnings) == 2
    for driver in ("intel_pstate", "amd-pstate-epp"):  # there, powersave is the one that adapts
        assert doctor_device.processor(tree(tmp_path / driver, cpu("powersave", 2_400_000, driver=driver))).warnings == ()
    fine = doctor_device.processor(tree(tmp_path / "3", cpu("ondemand", 2_400_000)))
    assert fine == doctor_device.Finding("up to 2.40 GHz, governor ondemand")


@pytest.mark.parametrize(
    ("degrees", "trips", "model", "is_warning"),
    [
        (55_000, {"critical": 110_000}, "Raspberry Pi 4 Model B Rev 1.4\0", False),
        (76_000, {"critical": 110_000}, "Raspberry Pi 4 Model B Rev 1.4\0", True),  # its firmware slows it down at 80
        (76_000, {"critical": 110_000}, "", False),
        (83_000, {"active": 50_000, "passive": 85_000, "critical": 105_000}, "", True),
        (60_000, {"active": 50_000, "passive": 85_000}, "", False),
        (60_000, {"passive": 0, "hot": -274_000, "critical": 999_000_000}, "", False),
        (-40_000, {"passive": 85_000}, "", False),
    ],
)
def test_heat(degrees: int, trips: dict[str, int], model: str, is_warning: bool, tmp_path: pathlib.Path) -> None:
    found = doctor_device.processor(tree(tmp_path, heat(degrees, trips) | ({"proc/device-tree/model": model} if model else {})))
    assert bool(found.warnings) == is_warning and (not is_warning or f"It is {degrees / 1000:.0f} °C (cpu-thermal)" in found.warnings[0])


# --- all of them


def test_files_that_are_missing_or_make_no_sense_never_break_it(tmp_path: pathlib.Path) -> None:
    """Folders in the place of files, bytes that are no text, lines without an end, numbers without a limit, circles."""
    names = [
        "proc/self/mountinfo", "proc/cpuinfo", "proc/device-tree/model", "run/systemd/timesync/synchronized", "sys/class/rtc/rtc0",
        "sys/devices/platform/soc/soc:firmware/get_throttled", "sys/class/hwmon/hwmon0/name", "sys/class/hwmon/hwmon0/in0_lcrit_alarm",
        *heat(1, {"passive": 2}), *cpu("x", 1),
    ]  # fmt: skip
    chance, whole = random.Random(5), "\n".join((RASPBERRY_PI_OS, READ_ONLY_ROOT, CONTAINER)).encode()
    for n in range(60):
        root = tmp_path / str(n)
        for name in names:
            path = root / name
            kind = chance.randrange(6)
            if kind == 0:
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            if kind == 1:
                path.mkdir()
            elif kind == 2:
                path.write_bytes(chance.randbytes(300))
            elif kind == 3:
                path.write_bytes(b"9" * 5000)
            elif kind == 4:
                path.write_text("5 5 0:1 / / rw - ext4 x rw\n6 6 0:1 / / rw - \n7 8 a b / /var - - -\n8 7 0:1 / /var x - tmpfs\n")
            else:
                damaged = bytearray(whole)
                for _ in range(20):
                    damaged[chance.randrange(len(damaged))] = chance.choice(b" \n\\,=-0/\xff")
                path.write_bytes(damaged)
        for found in (
            doctor_device.storage(HOME, root), doctor_device.clock(False, 0.0, 1e9, root), doctor_device.power(root),
            doctor_device.processor(root),
        ):  # fmt: skip
            assert found.text and all(warning.endswith((".", "scaling_governor")) for warning in found.warnings)


def test_warnings_are_told_apart_and_leave_the_exit_code_alone(home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    root = tree(
        tmp_path / "root", {"proc/self/mountinfo": "24 1 0:1 / / rw - tmpfs tmpfs rw\n", "proc/cpuinfo": "flags : i8mm\nFeatures : i8mm\n"}
    )
    found = {check.name: check for check in examine(load({}), root=root)}
    assert "would not survive" in found["storage"].warnings[0] and found["storage"].exit_code == 0
    assert "MATMUL_INT8" in found["build"].warnings[0] and "It is a slow " in found["build"].warnings[0] and found["build"].exit_code == 0
    done = run("doctor", "--json")
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert done.returncode == 0 and isinstance(rows["clock"]["warnings"], list)
    done = run("doctor")
    assert done.returncode == 0 and sum(line.startswith("!!") for line in done.stdout.splitlines()) == sum(
        len(row["warnings"]) for row in rows.values()
    )
