"""The versions that decide whether two machines compute alike; the hub tells its own."""

from __future__ import annotations

import platform
from importlib.metadata import version

from pydantic import Field

from tasks.answers import find_answer
from tasks.ledger import put_record, versions_key
from tasks.records import Record
from tasks.store import Store


class Versions(Record):
    """What a machine runs."""

    cardiofed: str
    python: str
    torch: str = Field(description="without the kind of build: a CPU's and a GPU's are the same release")
    prefect: str

    def names(self) -> list[str]:
        """The programs, in this order."""
        return ["cardiofed", "python", "torch", "prefect"]


def versions_here() -> Versions:
    """What this machine runs."""
    return Versions(
        cardiofed=version("cardiofed"),
        python=platform.python_version(),
        torch=version("torch").split("+")[0],
        prefect=version("prefect"),
    )


def tell_versions(store: Store) -> None:
    """Write the hub's versions to the ledger, unless they stand there."""
    here = versions_here()
    if find_answer(store, versions_key(), Versions) != here:
        put_record(store, versions_key(), here)
