"""The direction of imports, and that the arithmetic takes its randomness from its arguments alone."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "model").rglob("*.py"))

_TORCH_DRAWS = {"rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "poisson"}
_TENSOR_DRAWS = {"uniform_", "normal_", "random_", "bernoulli_", "exponential_", "log_normal_"}
_INIT_DRAWS = {"kaiming_uniform_", "kaiming_normal_", "xavier_uniform_", "xavier_normal_", "trunc_normal_"}
_GLOBAL_TORCH = {"manual_seed", "seed", "initial_seed", "get_rng_state", "set_rng_state", "random"}
_NUMPY_SEEDED = {"default_rng", "Philox"}
_NUMPY_ALLOWED = {"Generator", *_NUMPY_SEEDED}
_OUTSIDE = {"random", "secrets", "uuid", "os", "time", "datetime", "pathlib", "socket", "subprocess"}
_OUTSIDE_CALLS = {"open", "input", "print", "exec", "eval"}


def _faults(source: str) -> Iterator[str]:
    """What in ``source`` draws on the world or on global random state, with its line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from (f"{node.lineno}: import {n}" for n in names if n.split(".")[0] in _OUTSIDE)
        elif isinstance(node, ast.Attribute):
            yield from _faulty_attribute(node)
        elif isinstance(node, ast.Call):
            yield from _faulty_call(node)


def _faulty_attribute(node: ast.Attribute) -> Iterator[str]:
    owner = ast.unparse(node.value)
    if owner in {"np.random", "numpy.random"} and node.attr not in _NUMPY_ALLOWED:
        yield f"{node.lineno}: np.random.{node.attr}"
    if owner == "torch" and node.attr in _GLOBAL_TORCH:
        yield f"{node.lineno}: torch.{node.attr}"


def _faulty_call(node: ast.Call) -> Iterator[str]:
    called = ast.unparse(node.func)
    owner, _, name = called.rpartition(".")
    given = {keyword.arg for keyword in node.keywords}
    draws = (owner == "torch" and name in _TORCH_DRAWS) or name in _TENSOR_DRAWS | _INIT_DRAWS
    if draws and "generator" not in given:
        yield f"{node.lineno}: {called} without generator"
    if name in _NUMPY_SEEDED and not (node.args or given):
        yield f"{node.lineno}: {called} without seed"
    if called in _OUTSIDE_CALLS:
        yield f"{node.lineno}: {called}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_arithmetic_draws_on_its_arguments_alone(path: Path) -> None:
    assert list(_faults(path.read_text())) == []


@pytest.mark.parametrize(
    "source",
    [
        "import random",
        "from os import environ",
        "import datetime as d",
        "np.random.seed(1)",
        "x = np.random.rand(3)",
        "np.random.default_rng()",
        "np.random.Generator(np.random.Philox())",
        "torch.manual_seed(1)",
        "torch.random.fork_rng()",
        "torch.rand(3)",
        "x.normal_()",
        "nn.init.kaiming_uniform_(w, a=2)",
        "open('x')",
    ],
)
def test_a_draw_on_anything_else_would_be_found(source: str) -> None:
    assert list(_faults(source))


@pytest.mark.parametrize(
    "source",
    [
        "torch.rand(3, generator=g)",
        "torch.Generator().manual_seed(1)",
        "rng: np.random.Generator",
        "np.random.default_rng(seed)",
        "np.random.Generator(np.random.Philox(key=seed))",
        "rng.normal(size=3)",
        "nn.init.kaiming_uniform_(w, generator=g)",
    ],
)
def test_a_draw_from_a_given_generator_is_allowed(source: str) -> None:
    assert list(_faults(source)) == []


def _lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter with this project's contracts on the packages in ``folder``."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    command += ["--config", str(folder / "pyproject.toml")]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def test_imports_run_from_flows_to_tasks_to_model_and_never_back() -> None:
    done = _lint(ROOT)
    assert done.returncode == 0, done.stdout
    assert "2 kept, 0 broken" in done.stdout


def _copy(folder: Path, package: str, line: str) -> Path:
    """A tree of the four packages, empty but for one import."""
    for name in ("flows", "infra", "tasks", "model"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(line if name == package else "")
    (folder / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    return folder


@pytest.mark.parametrize(
    ("package", "line"),
    [
        ("model", "import tasks\n"),
        ("tasks", "import flows\n"),
        ("model", "import os\n"),
        ("model", "from prefect import flow\n"),
    ],
)
def test_an_import_against_the_direction_would_be_found(tmp_path: Path, package: str, line: str) -> None:
    done = _lint(_copy(tmp_path, package, line))
    assert done.returncode == 1
    assert "1 broken" in done.stdout


def test_imports_along_the_direction_are_allowed(tmp_path: Path) -> None:
    assert _lint(_copy(tmp_path, "tasks", "import os, model, prefect\n")).returncode == 0
