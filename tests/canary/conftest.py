"""Every Python process of a federation is watched, and fails on demand: see ``watch.py``."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def patched() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def watch(tmp_path_factory: pytest.TempPathFactory, patched: pytest.MonkeyPatch) -> Iterator[Path]:
    """Every Python process from here on, this one too, is refused the way out and fails on demand."""
    folder = tmp_path_factory.mktemp("watch")
    shutil.copy(Path(__file__).parent / "watch.py", folder / "sitecustomize.py")
    (folder / "armed").touch()
    patched.setenv("PYTHONPATH", str(folder))
    spec = spec_from_file_location("watch_of_this_process", folder / "sitecustomize.py")
    assert spec and spec.loader
    spec.loader.exec_module(module_from_spec(spec))
    yield folder
    (folder / "armed").unlink()
