"""The fingerprint DVC gives a folder, without adding it to DVC."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from dvc_data.hashfile.hash import file_md5
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.tree import Tree

from model.errors import UnreadableError
from tasks.cases import printable


def dataset_md5(files: Iterable[Path], root: Path) -> str:
    """Fingerprint a folder with these files as ``dvc add`` would.

    Args:
        files: files below ``root``, in any order, each counted once.
        root: the folder their names are relative to.

    Returns:
        The md5 that ``dvc add`` would write, such as ``3f9c….dir``.

    Raises:
        UnreadableError: a file cannot be read.

    Source: DVC's own tree of file md5s and relative names.
    """
    tree = Tree()
    try:
        for path in sorted(set(files)):
            tree.add(path.relative_to(root).parts, None, HashInfo("md5", file_md5(str(path))))
        tree.digest()
    except OSError as e:
        raise UnreadableError(
            f"cannot be read: {e.strerror or e}",
            printable(e.filename or root),
            "give the right to read it, or move it out of the data",
        ) from e
    return str(tree.hash_info.value)
