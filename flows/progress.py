"""The progress bar of a run on a terminal; silent anywhere else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

_bars: list[tuple[Progress, TaskID]] = []


@contextmanager
def progress_bar(title: str, total: int) -> Iterator[None]:
    """Show ``total`` phases going by; :func:`advance` counts one."""
    label = TextColumn("{task.description}", markup=False)  # a refusal may quote a stranger
    columns = (label, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        _bars.append((bar, bar.add_task(title, total=total)))
        try:
            yield
        finally:
            _bars.pop()


def advance(label: str) -> None:
    """One phase is done; ``label`` says which."""
    for bar, task in _bars:
        bar.update(task, advance=1, description=label[:40].ljust(40))
