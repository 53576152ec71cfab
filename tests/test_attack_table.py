"""The attack table of docs/security.md and the tests in tests/attacks are one list: none without the other."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE, TESTS = ROOT / "docs" / "security.md", ROOT / "tests" / "attacks"
_NAMED = re.compile(r"`(?:(\w+)::test_|…_)(\w+)`")


def table() -> list[list[str]]:
    """The cells of every row."""
    section = PAGE.read_text().partition("## Attacks\n")[2].partition("\n## ")[0]
    rows = [line.strip("|").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row] for row in rows[1:]]


def named(cell: str) -> list[str]:
    """``packages::test_x``, ``…_y`` → the tests; the second stands in the file of the first."""
    found, file = [], ""
    for first, name in _NAMED.findall(cell):
        file = first or file
        found.append(f"{file}::test_{name}")
    return found


def written() -> dict[str, ast.FunctionDef]:
    """Every test of an attack, as the table would name it."""
    return {
        f"{path.stem.removeprefix('test_attack_')}::{node.name}": node
        for path in sorted(TESTS.glob("test_attack_*.py"))
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def test_every_row_names_a_test_that_exists_and_every_test_has_a_row() -> None:
    rows = [named(row[-1]) for row in table()]
    assert len(rows) >= 20 and all(rows)
    told = [test for row in rows for test in row]
    assert sorted(told) == sorted(set(told)) == sorted(written())


@pytest.mark.parametrize("name", written())
def test_every_attack_is_tried_with_a_defence_switched_off_and_then_on(name: str) -> None:
    """The fixture ``off`` switches it off, and ``undo``, or a block of its own that ends, switches it on again."""
    node = written()[name]
    body = ast.unparse(node)
    assert "off" in [argument.arg for argument in node.args.args]
    assert "off.setattr" in body and ("off.undo()" in body or "with pytest.MonkeyPatch.context() as" in body)


def test_every_row_names_its_defence() -> None:
    assert all(len(row) == 3 and all(row) for row in table())
