"""Prints what a device needs of a locked file, with the hashes: `for_device.py FILE ARCH PYTHON`, such as `device.txt aarch64 3.13`.

pip judges markers such as `python_full_version < "3.12"` by the Python that it runs in, even when it downloads for another;
so they are judged here. llama-cpp-python is left out: the index has only its source.
"""

import pathlib
import re
import sys

from packaging.requirements import Requirement


def for_device(locked: str, arch: str, python: str) -> str:
    """The requirements that hold on Linux with this architecture and this version of Python, without their markers."""
    device = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "platform_machine": arch,
        "platform_system": "Linux",
        "sys_platform": "linux",
        "os_name": "posix",
    }
    lines = []
    for block in re.split(r"\n(?=\w)", locked):
        first, *rest = [line.rstrip(" \\") for line in block.splitlines() if not line.lstrip().startswith("#")] or [""]
        requirement = Requirement(first) if first else None
        if requirement and requirement.name != "llama-cpp-python" and (requirement.marker is None or requirement.marker.evaluate(device)):
            lines.append(" ".join([f"{requirement.name}{requirement.specifier}", *map(str.strip, rest)]))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(for_device(pathlib.Path(sys.argv[1]).read_text(), *sys.argv[2:4]), end="")
