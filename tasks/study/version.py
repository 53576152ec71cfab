"""Which code determines a cell: changing a report, a page or the live protocol leaves finished cells valid."""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from importlib import metadata
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
_LIBRARIES = ("monai", "numpy", "peft", "torch")
_DATA = ("tasks.study.cohorts", "tasks.study.members")
_NOT_COUNTED = ("tasks.settings", "tasks.files", "model.errors")
"""Settings count by their values, which are part of a cell's identity; files and errors change no number."""


def cell_version(module: str) -> str:
    """Short hash of the code that a cell's numbers come from: the method's, and what makes its data.

    Args:
        module: of the method, see :class:`tasks.study.methods.Method`.

    Returns:
        16 hexadecimal digits.
    """
    return _version((module, *_DATA))


def data_version() -> str:
    """Short hash of the modules that prepare sites."""
    return _version(("tasks.study.cohorts",))


def step_version() -> str:
    """Short hash of the modules that train one site or score one model: what cells may share."""
    return _version(("tasks.study.trial",))


def test_version() -> str:
    """Short hash of the code that adapts models and evaluates them on the test, beside what trains a cell."""
    own = hashlib.sha256(_file("tasks.study.test_set").read_bytes()).hexdigest()
    return hashlib.sha256(f"{own}/{_version(('tasks.personal', 'tasks.study.trial'))}".encode()).hexdigest()[
        :16
    ]


def libraries_version() -> str:
    """Short hash of the versions of the libraries that compute."""
    versions = ",".join(f"{name} {metadata.version(name)}" for name in _LIBRARIES)
    return hashlib.sha256(versions.encode()).hexdigest()[:16]


def counted_modules(entries: tuple[str, ...]) -> list[str]:
    """Our modules that ``entries`` import, directly or not, by name."""
    found: set[str] = set()
    waiting = [*entries]
    while waiting:
        name = waiting.pop()
        if name not in found and name not in _NOT_COUNTED:
            found.add(name)
            waiting += _imports(name)
    return sorted(found)


@cache
def _version(entries: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for name in counted_modules(entries):
        digest.update(f"{name}\n".encode() + _file(name).read_bytes())
    return digest.hexdigest()[:16]


def _imports(name: str) -> list[str]:
    """Our modules that a module's ``from … import`` lines name, the only kind we write."""
    tree = ast.parse(_file(name).read_bytes())
    named = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    return [module for module in named if _file(module).exists()]


def _file(name: str) -> Path:
    return _ROOT.joinpath(*name.split(".")).with_suffix(".py")
