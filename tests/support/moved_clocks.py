"""The clocks of another process, moved while it runs: hours that pass at once, a wall clock that jumps, and a reboot.

Owns a small library that is loaded into that process (`clocks.c`), and what it reads. Nothing outside of that process is moved.
"""

from __future__ import annotations

import pathlib
import struct
import subprocess
import time
import uuid

from tests.support.paths import ROOT

_BOOT_S = 8.0  # how long a device runs before it starts its services


class MovedClocks:
    """The clocks of the processes that are started with `environment`. They begin as this machine's, in a boot of their own."""

    def __init__(self, folder: pathlib.Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        library, self._shared, self._boot_id = folder / "clocks.so", folder / "clocks", folder / "boot_id"
        source = ROOT / "tests" / "support" / "clocks.c"
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
        self.environment = {"LD_PRELOAD": str(library), "CLOCKS_FILE": str(self._shared), "CLOCKS_BOOT_ID": str(self._boot_id)}
        self._wall_s = self._forward_s = 0.0
        self._true_s = 0.0  # how far the true time is ahead of this machine's
        self._is_synchronised = True
        self._shared.write_bytes(bytes(24))
        self.reboot(0.0)

    def now_s(self) -> float:
        """The true time, as a Unix time: what a synchronised device shows."""
        return time.time() + self._true_s

    def wall_s(self) -> float:
        """What the device's wall clock shows, as a Unix time."""
        return time.time() + self._wall_s

    def pass_by(self, seconds: float) -> None:
        """Let this time pass at once, on every clock; waits of the process that are over by then end."""
        self._true_s += seconds
        self._wall_s += seconds
        self._forward_s += seconds
        self._write()

    def set_wall(self, wrong_by_s: float, is_synchronised: bool) -> None:
        """Set the wall clock to the true time plus `wrong_by_s`; the others go on."""
        self._wall_s, self._is_synchronised = self._true_s + wrong_by_s, is_synchronised
        self._write()

    def reboot(self, off_s: float) -> None:
        """Be off for this time, then boot. To be called while no process runs on these clocks."""
        self._true_s += off_s
        self._wall_s += off_s
        self._forward_s = _BOOT_S - time.clock_gettime(time.CLOCK_BOOTTIME)
        self._boot_id.write_text(f"{uuid.uuid4()}\n")
        self._write()

    def _write(self) -> None:
        with self._shared.open("r+b") as shared:  # in place: the process has mapped the file
            shared.write(struct.pack("3d", self._wall_s, self._forward_s, float(self._is_synchronised)))
