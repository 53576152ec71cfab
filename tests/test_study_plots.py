"""The study's pictures: drawn from full, sparse and empty tables, and the front they show."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.transforms import Bbox

from model.errors import DataError
from tasks.study_report.label_places import free_place
from tasks.study_report.picture_bytes import bytes_picture, pareto_front
from tasks.study_report.picture_methods import method_picture
from tasks.study_report.picture_scenarios import scenario_picture
from tasks.study_report.picture_style import footnote
from tasks.study_report.picture_weights import weights_picture

PNG = b"\x89PNG"
WEIGHTS = ["method", "scenario", "split_seed", "train_seed", "round", "site", "honest", "weight"]


def methods() -> pd.DataFrame:
    rows = {
        "pooled": (0.79, "global", 0.0),
        "fedavg": (0.78, "global", 6.5e6),
        "rated": (0.78, "global", 6e4),
        "local-lora": (0.73, "own", 0.0),
        "fedsa": (0.74, "own", 2e5),
        "lost": (math.nan, "", math.nan),
    }
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["dice", "judged", "upload_bytes"])
    return table.assign(dice_low=table["dice"] - 0.01, dice_high=table["dice"] + 0.01)


def scenarios() -> pd.DataFrame:
    rows = {
        ("clean", "rated"): (math.nan, math.nan, math.nan),
        ("sign-flip", "rated"): (-0.004, -0.012, 0.001),
        ("sign-flip", "plain"): (-0.6, -0.65, -0.55),
        ("sign-flip", "median"): (-0.1, -0.12, -0.08),
        ("liar", "rated"): (-0.02, math.nan, math.nan),
    }
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["difference", "low", "high"])
    return table.set_axis(pd.MultiIndex.from_tuples(list(rows), names=["scenario", "method"]))


def weights() -> pd.DataFrame:
    rows = [("rated", "clean", s, 1, r, site, True, 0.9) for s in (1, 2) for r in (1, 2) for site in "a$"]
    rows.append(("rated", "clean", 1, 1, 1, "c", False, 0.0))
    return pd.DataFrame(rows, columns=WEIGHTS)


def test_methods_are_drawn_with_families_and_without() -> None:
    assert method_picture(methods(), {"rated": "ours", "fedavg": "full weights"}).startswith(PNG)
    assert method_picture(methods()).startswith(PNG)


def test_reference_lines_alone_are_a_picture() -> None:
    assert method_picture(methods().loc[["pooled"]]).startswith(PNG)


def test_bytes_scenarios_and_weights_are_drawn() -> None:
    assert bytes_picture(methods(), {"rated": "ours"}).startswith(PNG)
    assert scenario_picture(scenarios()).startswith(PNG)
    assert weights_picture(weights()).startswith(PNG)


@pytest.mark.parametrize("picture", [method_picture, bytes_picture])
def test_methods_that_are_left_out_are_named_and_not_drawn(picture: Callable[..., bytes]) -> None:
    rest = methods().drop(index="rated")
    assert picture(methods(), left_out=("rated",)) == picture(rest, left_out=("rated",))
    assert picture(methods(), left_out=("rated",)) not in (picture(rest), picture(methods()))
    assert picture(methods(), left_out=tuple(methods().index)) != picture(pd.DataFrame())


def test_the_footnote_names_all_that_are_left_out_in_lines_that_fit() -> None:
    names = [f"method-{k}" for k in range(30)]
    lines = footnote(names).splitlines()
    assert footnote([]) == ""
    assert "".join(lines).startswith("not drawn, seeds missing: method-0, method-1,")
    assert all(name in footnote(names) for name in names)
    assert max(map(len, lines)) < 100


def test_rivals_are_left_to_the_table_of_scenarios() -> None:
    table = scenarios()
    assert scenario_picture(table) == scenario_picture(table.drop(index=("sign-flip", "median")))


def test_empty_tables_say_so_instead_of_failing() -> None:
    nothing = pd.DataFrame()
    pictures = {method_picture(nothing), bytes_picture(nothing), scenario_picture(nothing)}
    assert all(p.startswith(PNG) for p in pictures)
    assert weights_picture(nothing).startswith(PNG)
    assert bytes_picture(methods().loc[["local-lora"]]).startswith(PNG)


def test_the_same_table_gives_the_same_bytes() -> None:
    assert scenario_picture(scenarios()) == scenario_picture(scenarios())


def test_weights_without_a_column_are_refused() -> None:
    with pytest.raises(DataError, match="no column weight"):
        weights_picture(weights().drop(columns="weight"))


def test_the_front_keeps_what_is_better_or_smaller() -> None:
    points = [(10.0, 0.7), (100.0, 0.8), (100.0, 0.6), (50.0, 0.7), (1000.0, 0.75)]
    assert pareto_front(points) == [(10.0, 0.7), (100.0, 0.8)]
    assert pareto_front([]) == []


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=15))
def test_every_point_is_on_the_front_or_beaten_by_one_that_is(points: list[tuple[int, int]]) -> None:
    front = pareto_front([(float(x), float(y)) for x, y in points])
    assert all(any(fx <= x and fy >= y for fx, fy in front) for x, y in points)
    assert not any(a != b and a[0] <= b[0] and a[1] >= b[1] for a in front for b in front)


def test_a_name_goes_where_nothing_else_is() -> None:
    frame = Bbox([(0, 0), (400, 200)])
    point = Bbox([(195, 95), (205, 105)])
    to_the_right = Bbox([(206, 0), (400, 200)])
    offset, box = free_place(np.array([200.0, 100.0]), 40.0, 10.0, 1.0, [point, to_the_right], frame)
    assert offset[0] < 0
    assert not box.overlaps(point) and not box.overlaps(to_the_right)
