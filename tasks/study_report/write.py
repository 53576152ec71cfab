"""Tables and pictures to files; aggregates only, nothing about a patient or a single site."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from tasks.files import write_atomic
from tasks.study_report.page import study_page
from tasks.study_report.tables import Tables


def write_study(
    folder: Path,
    tables: Tables,
    choices: pd.DataFrame | None = None,
    pictures: Mapping[str, bytes] | None = None,
) -> tuple[Path, ...]:
    """Write tables, pictures and the page that shows them.

    Args:
        folder: gets ``methods.csv``, ``scenarios.csv``, ``seeds.csv``, ``claims.csv``, ``choices.csv``,
            ``cells.csv``, ``README.md`` and the pictures; a table of seeds without rows is no file.
        tables: of ``make_tables``.
        choices: of ``choice_table``; without rows there is no file and no section.
        pictures: PNG bytes by title.

    Returns:
        The files written.
    """
    named = {f"{_slug(title)}.png": data for title, data in (pictures or {}).items()}
    shown = dict(zip(pictures or {}, named, strict=True))
    chosen = pd.DataFrame() if choices is None else choices
    files = {
        "methods.csv": _csv(tables.methods.reset_index()),
        "scenarios.csv": _csv(tables.scenarios.reset_index()),
        **({} if tables.seeds.empty else {"seeds.csv": _csv(tables.seeds.reset_index())}),
        "claims.csv": _csv(tables.claims),
        **({} if chosen.empty else {"choices.csv": _csv(chosen.reset_index())}),
        "cells.csv": _csv(tables.cells),
        "README.md": study_page(tables, chosen, shown).encode(),
        **named,
    }
    for name, data in files.items():
        write_atomic(folder / name, data)
    return tuple(folder / name for name in files)


def _csv(frame: pd.DataFrame) -> bytes:
    floats = frame.select_dtypes("float").columns
    rounded = frame.assign(**{c: frame[c].round(6) for c in floats})
    return rounded.to_csv(index=False, lineterminator="\n").encode()


def _slug(title: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in title.lower()).split())
