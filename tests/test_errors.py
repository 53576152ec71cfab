"""The error tree: what the drawing at the top of the file says is what the classes do."""

from __future__ import annotations

import pickle
import re

import pytest

from model import errors
from model.errors import CardiofedError

CLASSES = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, CardiofedError)]


def _drawn() -> dict[str, int]:
    """Class → exit code of the drawing; a leaf has the code of the branch it hangs on."""
    codes: dict[str, int] = {}
    code = 0
    for name, number in re.findall(r"^[│├└─ ]*(\w+Error)(?:\s+(\d+))?", str(errors.__doc__), re.MULTILINE):
        code = int(number) if number else code
        codes[name] = code
    return codes


def test_the_drawing_names_every_class_with_its_exit_code() -> None:
    assert {c.__name__: c.exit_code for c in CLASSES} == _drawn()


def test_every_branch_has_an_exit_code_of_its_own() -> None:
    branches = [c for c in CLASSES if c.__base__ is CardiofedError]
    codes = [c.exit_code for c in branches]
    assert sorted(codes) == list(range(2, 2 + len(branches)))


@pytest.mark.parametrize("kind", CLASSES)
def test_an_error_says_what_where_and_how_to_mend_it(kind: type[CardiofedError]) -> None:
    error = kind("rank 48 is above 32", "sites/a/adapter", "lower lora.rank_max")
    assert str(error) == "rank 48 is above 32\n  where: sites/a/adapter\n  mend:  lower lora.rank_max"
    assert (error.what, error.where, error.mend) == error.args


def test_an_error_leaves_out_the_lines_it_has_nothing_for() -> None:
    assert str(CardiofedError("broken")) == "broken"
    assert str(CardiofedError("broken", mend="repair it")) == "broken\n  mend:  repair it"


@pytest.mark.parametrize("kind", CLASSES)
def test_an_error_survives_the_way_to_another_process(kind: type[CardiofedError]) -> None:
    back = pickle.loads(pickle.dumps(kind("what", "where", "mend")))
    assert type(back) is kind
    assert str(back) == str(kind("what", "where", "mend"))
