"""Say whether the synthetic cohort on this machine is, byte for byte, the one that ``data.dvc`` pins."""

from __future__ import annotations

from pathlib import Path

import yaml

from model.errors import DataError
from tasks.dataset_md5 import dataset_md5


def verify_data(data: Path, pin: Path) -> str:
    """Compare DVC's md5 of a folder with its pin.

    Args:
        data: the folder.
        pin: the ``.dvc`` file.

    Returns:
        A sentence that says they are equal.

    Raises:
        DataError: the folder differs, or there is no pin.
    """
    try:
        pinned = str(yaml.safe_load(pin.read_text())["outs"][0]["md5"])
    except (OSError, KeyError, IndexError, TypeError, yaml.YAMLError) as e:
        raise DataError("no md5 is pinned", str(pin), "restore it with git checkout") from e
    files = [path for path in data.rglob("*") if path.is_file()]
    found = dataset_md5(files, data)
    if found != pinned:
        raise DataError(
            f"md5 is {found}, pinned is {pinned} ({len(files)} files)",
            str(data),
            "delete the folder and run `cardiofed data make`",
        )
    return f"{data}: {len(files)} files, md5 {found}, as pinned in {pin}"
