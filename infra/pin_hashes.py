"""Write ``hashes.txt`` from a lock of the pins: ``python -m infra.pin_hashes pylock.toml > hashes.txt``."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import parse_wheel_filename

_PYTHON = (3, 11)
_MACHINES = ("x86_64", "aarch64")
_HEADER = """\
# Every pin of constraints.txt but torch, with the sha256 of each file that Linux on x86-64 or arm64 may install.
# torch has builds of one version for several processors and graphics cards. Regenerate with: make hashes
"""


def hash_lines(lock: Mapping[str, Any]) -> Iterator[str]:
    """A requirement per package, with the hashes of the wheels that fit, else of its source.

    Args:
        lock: a ``pylock.toml`` (PEP 751), parsed.

    Yields:
        Text in the form of ``pip install --require-hashes -r``.
    """
    for package in lock["packages"]:
        wheels = package.get("wheels", ())
        fitting = [wheel for wheel in wheels if fits(wheel["url"].rpartition("/")[2])]
        files = fitting or [package["sdist"]]
        hashes = sorted({file["hashes"]["sha256"] for file in files})
        yield " \\\n    ".join(
            [f"{package['name']}=={package['version']}", *(f"--hash=sha256:{h}" for h in hashes)]
        )


def fits(wheel: str) -> bool:
    """Whether CPython 3.11 on one of our kinds of machine can install a wheel.

    Args:
        wheel: the name of its file, as it stands in a URL.

    Returns:
        True or False.
    """
    *_, tags = parse_wheel_filename(wheel.replace("%2B", "+"))
    return any((tag.interpreter, tag.abi) in _ABIS and _on_linux(tag) for tag in tags)


def _on_linux(tag: Tag) -> bool:
    return tag.platform == "any" or ("linux" in tag.platform and tag.platform.endswith(_MACHINES))


_ABIS = {
    (tag.interpreter, tag.abi)
    for tags in (cpython_tags(_PYTHON, ["cp311"], ["any"]), compatible_tags(_PYTHON, "cp311", ["any"]))
    for tag in tags
}


if __name__ == "__main__":
    print(_HEADER + "\n".join(hash_lines(tomllib.loads(Path(sys.argv[1]).read_text()))))
