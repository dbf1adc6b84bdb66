"""Checks the device under an installation: its storage, clock, power and processor.

Owns what files of Linux say about them; `doctor` prints it. Reads only, all of it below a `root` folder. Invariant: a file that is
missing or makes no sense is "not known", never an error. Nothing here stops edge-agent from working, so all findings are warnings.
"""

from __future__ import annotations

import pathlib
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

from edge_agent.engine import throttling

ROOT = pathlib.Path("/")
MOST_COMMIT_S = 30  # the kernel leaves unsynced data in memory for that long anyway (vm.dirty_expire_centisecs)
NEAR_C = 5.0  # a processor this near to its limit will reach it while a visitor waits
PI_LIMIT_C = 80.0  # where the firmware of a Raspberry Pi begins to slow it down

_MAX_BYTES = 1 << 20
_IN_MEMORY = {"tmpfs", "ramfs", "rootfs", "devtmpfs"}
_OVERLAYS = {"overlay", "overlayfs", "aufs", "fuse.fuse-overlayfs", "unionfs", "fuse.unionfs-fuse"}
_OVER_NETWORK = {
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ncpfs", "vboxsf", "fuse.sshfs", "fuse.vmhgfs-fuse", "fuse.glusterfs",
    "fuse.s3fs", "fuse.rclone", "fuse.davfs", "davfs",
}  # fmt: skip
_WITHOUT_JOURNAL = {"vfat": "FAT", "msdos": "FAT", "fat": "FAT", "exfat": "exFAT", "fuse.exfat": "exFAT", "ext2": "ext2"}
_NTFS = {"ntfs", "ntfs3", "fuseblk", "fuse.ntfs-3g"}
_ESCAPED = re.compile(r"\\([0-7]{3})")
_THROTTLED = {
    0: "the voltage is too low", 1: "the frequency is capped", 2: "it is throttled", 3: "it is at its soft temperature limit",
    16: "the voltage was too low", 17: "the frequency was capped", 18: "it was throttled", 19: "it was at its soft temperature limit",
}  # fmt: skip
_OF_VOLTAGE, _NOW = 0x10001, 0xF


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check of the device found: a `text`, and `warnings`, each a sentence with the value and what to do."""

    text: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Mount:
    """One mounted file system, from a line of /proc/self/mountinfo (proc_pid_mountinfo(5))."""

    number: int
    parent: int
    point: str
    kind: str
    source: str
    options: dict[str, str]


def storage(folder: pathlib.PurePath, root: pathlib.Path = ROOT) -> Finding:
    """Whether the file system of `folder`, an absolute path without links, keeps what was stored when the power goes."""
    mounts = _mounts(_read(root / "proc/self/mountinfo"))
    mount = mount_of(str(folder), mounts)
    if mount is None:
        return Finding(f"the file system of {folder} is not known")
    warnings = [*_about_kind(mount, mounts, str(folder), root), *_about_options(mount)]
    return Finding(f"{mount.kind} at {mount.point} ({mount.source or 'no source'})", tuple(warnings))


def clock(is_synchronised: bool, installed_s: float, now_s: float | None = None, root: pathlib.Path = ROOT) -> Finding:
    """Whether this device knows what time it is. `is_synchronised` is what the kernel says; edge-agent came here at `installed_s`."""
    now_s = time.time() if now_s is None else now_s
    has_chip = any(_listed(root / "sys/class/rtc"))
    is_synchronised = is_synchronised or (root / "run/systemd/timesync/synchronized").exists()
    date = time.strftime("%Y-%m-%d", time.gmtime(now_s)) if 0 <= now_s < 1e11 else f"{now_s:.0f} s"
    text = f"{date}, {'synchronised' if is_synchronised else 'not synchronised'}, {'a' if has_chip else 'no'} clock chip"
    if now_s < installed_s - 86_400:  # a day: a file keeps the local time of its archive
        return Finding(text, (
            f"The clock says {date}, which is before edge-agent was installed: dates in the log are wrong and TLS refuses the cloud's "
            "certificate; connect the network, set the time (timedatectl set-time) or replace the battery of the clock.",
        ))  # fmt: skip
    if not has_chip and not is_synchronised:
        return Finding(text, (
            f"No clock chip is here and the time ({date}) was not set over a network: dates in the log may be wrong and TLS may refuse "
            "the cloud's certificate, although waits and ages are counted right; add a clock chip or let the device reach a time server.",
        ))  # fmt: skip
    return Finding(text)


def power(root: pathlib.Path = ROOT) -> Finding:
    """Whether the power supply is strong enough, as a Raspberry Pi measures it."""
    flags = throttling.flags(root)
    alarm = any(
        _line(hwmon / "name") == "rpi_volt" and _line(hwmon / "in0_lcrit_alarm") == "1" for hwmon in _listed(root / "sys/class/hwmon")
    )
    if flags is None and not alarm:
        return Finding("no warning of the hardware" if _has_alarm(root) else "not known: this device does not measure its supply")
    flags = flags or 0
    bits, warnings = throttling.as_text(flags), []
    if alarm or flags & _OF_VOLTAGE:
        when = "is too low now" if alarm or flags & 1 else "was too low since the start"
        warnings.append(
            f"The voltage {when} ({bits}{', rpi_volt alarm' if alarm else ''}): the processor is slowed down, and a power cut may "
            "damage what is being written; use the official power supply and a short cable."
        )
    if others := flags & ~_OF_VOLTAGE:
        words = ", ".join(text for bit, text in _THROTTLED.items() if others >> bit & 1)
        if words:
            when = "now" if others & _NOW else "since the start"
            warnings.append(f"The processor is or was slowed down {when} ({bits}: {words}): answers take longer; cool it better.")
    return Finding(f"throttling flags {bits}", tuple(warnings))


def processor(root: pathlib.Path = ROOT) -> Finding:
    """Whether the processor may run at its full frequency, and how hot it is."""
    known, warnings = [], []
    cpus = root / "sys/devices/system/cpu"
    for policy in [*_listed(cpus / "cpufreq", "policy*")] or [cpus / "cpu0/cpufreq"]:
        governor, driver = _line(policy / "scaling_governor"), _line(policy / "scaling_driver")
        most, allowed = _number(policy / "cpuinfo_max_freq"), _number(policy / "scaling_max_freq")
        if most is not None and f"up to {most / 1e6:.2f} GHz" not in known:
            known.append(f"up to {most / 1e6:.2f} GHz")
        if governor:
            known += [f"governor {governor}"] if f"governor {governor}" not in known else []
        if governor == "powersave" and not (driver.startswith("intel_pstate") or driver.startswith("amd-pstate")):
            warnings.append(
                "The governor is powersave, so the processor stays at its lowest frequency; set another one: "
                f"echo schedutil | sudo tee {pathlib.PurePosixPath('/', policy.relative_to(root).as_posix()) / 'scaling_governor'}"
            )
        if most and allowed and allowed < most:
            warnings.append(
                f"The processor may run at {allowed / 1e6:.2f} GHz only, of {most / 1e6:.2f} GHz: answers take longer; raise "
                f"scaling_max_freq in {pathlib.PurePosixPath('/', policy.relative_to(root).as_posix())}, or arm_freq in config.txt."
            )
    hottest = max(_temperatures(root), default=None)
    if hottest:
        margin, degrees, limit, zone = hottest
        known.append(f"{degrees:.0f} °C")
        if margin >= -NEAR_C:
            warnings.append(
                f"It is {degrees:.0f} °C ({zone}), and at {limit:.0f} °C the processor is slowed down or switched off; cool it better."
            )
    return Finding(", ".join(known) or "not known", tuple(dict.fromkeys(warnings)))


def mount_of(path: str, mounts: list[Mount]) -> Mount | None:
    """The mount that holds an absolute path: from the root, always into the nearest mount point on the way, the last one over it."""
    on_the_way = [mount for mount in mounts if _is_below(path, mount.point)]
    numbers = {mount.number for mount in mounts}
    current = next((mount for mount in on_the_way if mount.parent not in numbers or mount.parent == mount.number), None)
    if current is None:
        return max(on_the_way, key=lambda mount: len(mount.point), default=None)
    for _ in mounts:  # no circle in a file that makes no sense
        below = [mount for mount in on_the_way if mount.parent == current.number and mount is not current]
        if not below:
            break
        nearest = min(len(mount.point) for mount in below)
        current = [mount for mount in below if len(mount.point) == nearest][-1]
    return current


def _mounts(text: str) -> list[Mount]:
    found = []
    for line in text.splitlines():
        left, separator, right = line.partition(" - ")
        before, after = left.split(" "), right.split(" ")
        if not separator or len(before) < 6 or not after[0] or not (before[0].isdigit() and before[1].isdigit()):
            continue
        super_options = after[2] if len(after) > 2 else ""
        pairs = (option.partition("=") for option in f"{super_options},{before[5]}".split(","))
        options = {name: value for name, _, value in pairs if name}
        source = _plain(after[1]) if len(after) > 1 else ""
        found.append(Mount(int(before[0][:18]), int(before[1][:18]), _plain(before[4]), after[0], source, options))
    return found


def _is_in_memory(mount: Mount) -> bool:
    return mount.kind in _IN_MEMORY or bool(re.fullmatch(r"/dev/z?ram[0-9]+", mount.source))


def _about_kind(mount: Mount, mounts: list[Mount], folder: str, root: pathlib.Path) -> Iterator[str]:
    if _is_in_memory(mount):
        kind = mount.kind if mount.kind in _IN_MEMORY else mount.source
        yield f"{folder} is in memory ({kind}): the queue would not survive a restart; set EDGE_AGENT_HOME to a folder on a disk."
    elif mount.kind in _OVERLAYS:
        yield from _about_overlay(mount, mounts, folder, root)
    elif mount.kind in _OVER_NETWORK:
        yield (
            f"{folder} is on a network file system ({mount.kind}), where locks may not hold and SQLite may damage a database that two "
            "machines open; set EDGE_AGENT_HOME to a folder on this device."
        )
    elif mount.kind in _WITHOUT_JOURNAL:
        yield (
            f"{folder} is on {_WITHOUT_JOURNAL[mount.kind]}, which has no journal: a power cut may damage the file system, and a file "
            "that is being replaced may be lost; use ext4 where the power may go."
        )
    elif mount.kind in _NTFS:
        yield (
            f"{folder} is on NTFS ({mount.kind}), which Linux may leave unrepaired or refuse to mount after a power cut; use ext4 where "
            "the power may go."
        )


def _about_overlay(mount: Mount, mounts: list[Mount], folder: str, root: pathlib.Path) -> Iterator[str]:
    """What is written to an overlay is where its upper layer is; in a container that path is not visible."""
    upper = _plain(mount.options.get("upperdir", ""))
    if (root / ".dockerenv").exists() or (root / "run/.containerenv").exists():
        yield (
            f"{folder} is in the layer of a container ({mount.kind}): the queue survives a restart of the container, but not its removal "
            "or update; put EDGE_AGENT_HOME on a volume."
        )
        return
    under = mount_of(upper, [one for one in mounts if one.kind not in _OVERLAYS]) if upper.startswith("/") else None
    if under is None or _is_in_memory(under):
        where = f"its upper layer {upper} is in memory ({under.kind})" if under else f"its upper layer is {upper or 'not known'}"
        yield (
            f"{folder} is on an overlay, and {where}: the queue {'would' if under else 'may'} not survive a restart; set EDGE_AGENT_HOME "
            "to a folder on a partition that can be written (docs/kiosk.md)."
        )


def _about_options(mount: Mount) -> Iterator[str]:
    options, at = mount.options, mount.point
    unsafe = next((name for name in ("nobarrier", "volatile") if name in options), "")
    unsafe = unsafe or next(
        (f"{name}={options[name]}" for name in ("barrier", "fsync_mode") if options.get(name) in ("0", "nobarrier")), ""
    )
    if unsafe:
        yield (
            f"{at} is mounted with {unsafe}: fsync no longer waits for the disk, so a power cut may lose questions that were confirmed and "
            "damage the database; remove the option."
        )
    if options.get("data") == "writeback":
        yield (
            f"{at} is mounted with data=writeback: what edge-agent stores is written with fsync and stays, but after a power cut other "
            "files may hold old data; remove the option (data=ordered is the default)."
        )
    commit = options.get("commit", "")
    if commit.isdigit() and len(commit) < 10 and int(commit) > MOST_COMMIT_S:
        yield (
            f"{at} is mounted with commit={commit}: what edge-agent stores is written with fsync and stays, but a power cut loses up to "
            f"{commit} s of everything else, such as the system's log; use {MOST_COMMIT_S} or less."
        )


def _has_alarm(root: pathlib.Path) -> bool:
    return any(_line(hwmon / "name") == "rpi_volt" for hwmon in _listed(root / "sys/class/hwmon"))


def _temperatures(root: pathlib.Path) -> Iterator[tuple[float, float, float, str]]:
    """For each sensor: how far above its limit it is (mostly negative), its temperature and limit in °C, and its name."""
    is_pi = _read(root / "proc/device-tree/model").startswith("Raspberry Pi")
    for zone in _listed(root / "sys/class/thermal", "thermal_zone*"):
        degrees = _number(zone / "temp")
        limits = []
        for kind in _listed(zone, "trip_point_*_type"):
            limit = _number(kind.with_name(kind.name.replace("_type", "_temp")))
            if _line(kind) in ("passive", "hot", "critical") and limit is not None and 0 < limit < 200_000:
                limits.append(limit / 1000)
        if is_pi:
            limits.append(PI_LIMIT_C)
        if degrees is not None and limits and 0 < degrees < 200_000:
            yield degrees / 1000 - min(limits), degrees / 1000, min(limits), _line(zone / "type") or zone.name


def _is_below(path: str, point: str) -> bool:
    return path == point or path.startswith(point.rstrip("/") + "/")


def _plain(text: str) -> str:
    """A name from mountinfo, where a space, tab, newline and backslash are octal."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 8)), text)


def _listed(folder: pathlib.Path, pattern: str = "*") -> list[pathlib.Path]:
    try:
        return sorted(folder.glob(pattern))
    except (OSError, ValueError):
        return []


def _read(path: pathlib.Path) -> str:
    """The text of a file, or "" if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(_MAX_BYTES).decode(errors="surrogateescape")
    except (OSError, ValueError):
        return ""


def _line(path: pathlib.Path) -> str:
    return _read(path).partition("\n")[0].strip("\0 \t")[:200]


def _number(path: pathlib.Path) -> int | None:
    text = _line(path)
    return int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else None
