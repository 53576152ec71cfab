"""What is installed beside what is pinned, and under which licence: the packages' own metadata, judged by words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Literal

from packaging.utils import canonicalize_name

from model.errors import ConfigError

Kind = Literal["permissive", "weak copyleft", "copyleft", "unknown"]

OURS = "cardiofed"
_TOOLS = {"pip", "wheel"}
"""Come with any environment, and are not pinned."""
_PIN = re.compile(r"([A-Za-z0-9._-]+)==([^\s\\;]+)")
_OF_TORCH = re.compile(r"(nvidia|cuda)-.+|triton")
"""Come with torch where there is a graphics card, in versions of its choice."""
_WORDS: tuple[tuple[Kind, str], ...] = (
    ("weak copyleft", r"LGPL|Lesser|MPL|Mozilla|EPL|Eclipse|CDDL|Artistic|linking exception"),
    ("copyleft", r"GPL|General Public|EUPL|European Union|SSPL|OSL"),
    (
        "permissive",
        r"MIT|BSD|Apache|ISC|PSF|Python Software|ZPL|Zope|zlib|HPND|CMU|Unlicense|CC0|BSL|Boost|CNRI|public domain",
    ),
)
"""The first whose words are in a licence's name says what it asks of who passes the software on."""
_STRICT: tuple[Kind, ...] = ("permissive", "weak copyleft", "copyleft", "unknown")
_NAME_LETTERS = 80
"""Some packages put the licence's whole text where its name belongs; then its first line counts."""


@dataclass(frozen=True)
class Dependency:
    """One pinned or installed package.

    Attributes:
        name: as its own metadata, or the pin, writes it.
        pinned: version in the constraints; empty when it is not there.
        installed: version in this environment; empty when it is not there.
        licence: as its metadata names it; empty where it names none.
        kind: of the licence; "unknown" also where nothing is installed to ask.
    """

    name: str
    pinned: str
    installed: str
    licence: str
    kind: Kind

    @property
    def differs(self) -> bool:
        """Whether another version is installed than the pin names, or one without a pin that is not torch's own."""
        if not self.pinned:
            return _OF_TORCH.fullmatch(canonicalize_name(self.name)) is None
        return bool(self.installed) and self.installed.partition("+")[0] != self.pinned


def read_dependencies(constraints: Path) -> tuple[Dependency, ...]:
    """Every package that is pinned or installed.

    Args:
        constraints: one ``name==version`` a line.

    Returns:
        Sorted by name; this project itself and pip are left out.

    Raises:
        ConfigError: the file cannot be read or pins nothing.
    """
    pins = read_pins(constraints)
    on_path = reversed([*distributions()])  # of two the first is the one that is imported
    found: dict[str, Distribution] = {canonicalize_name(d.name): d for d in on_path}
    names = sorted({*pins, *found} - _TOOLS - {OURS})
    return tuple(_dependency(name, pins.get(name, ""), found.get(name)) for name in names)


def read_pins(path: Path) -> dict[str, str]:
    """Name → version, of a file in the form of requirements.

    Args:
        path: of the file.

    Returns:
        Names in canonical form: lower case, with hyphens.

    Raises:
        ConfigError: the file cannot be read or pins nothing.
    """
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        mend = "run from the project's folder, or name the file with --constraints"
        raise ConfigError(f"no pins: {error.strerror}", str(path), mend) from error
    pins: dict[str, str] = {canonicalize_name(m[1]): m[2] for line in lines if (m := _PIN.match(line))}
    if not pins:
        raise ConfigError("the file pins nothing", str(path), "restore it with git, or run: make constraints")
    return pins


def kind_of(licence: str) -> Kind:
    """What a licence's name asks of who passes the software on.

    Args:
        licence: an SPDX expression or a name in words. Of alternatives (OR, |) the mildest counts; where any AND
            stands, all count.

    Returns:
        The kind; "unknown" for a name without a word that is known here.
    """
    parts = [_kind_of_one(part) for part in re.split(r"\bAND\b|\bOR\b|[|]", licence) if part.strip(" ()")]
    alternatives = not re.search(r"\bAND\b", licence)
    return (min if alternatives else max)(parts, key=_STRICT.index, default="unknown")


def faults(found: Iterable[Dependency]) -> Iterator[str]:
    """What somebody should look at, a line each: drift from the pins, licences that are unknown or ask for more."""
    for one in found:
        if one.differs:
            yield f"{one.name}: {one.installed} is installed, " + (
                f"{one.pinned} is pinned" if one.pinned else "and it is not pinned"
            )
        if one.installed and one.kind != "permissive":
            yield f"{one.name}: {one.kind}" + (
                f", {one.licence}" if one.licence else "; read its licence file"
            )


def _dependency(name: str, pinned: str, found: Distribution | None) -> Dependency:
    if found is None:
        return Dependency(name, pinned, "", "", "unknown")
    licence = _licence(found)
    return Dependency(found.name, pinned, found.version, licence, kind_of(licence))


def _licence(found: Distribution) -> str:
    """Its name by the newest rule of packaging that the package follows: PEP 639, else field, else classifiers."""
    told = found.metadata
    rows = [row.split(" :: ") for row in told.get_all("Classifier") or ()]
    classified = " AND ".join(row[-1] for row in rows if row[0] == "License" and row[-1] != "OSI Approved")
    fields = [*(told.get_all("License-Expression") or ()), *(told.get_all("License") or ())]
    names = [*(field.strip().partition("\n")[0][:_NAME_LETTERS] for field in fields), classified]
    said = [name for name in names if name and name != "UNKNOWN"]
    return next((name for name in said if kind_of(name) != "unknown"), said[0] if said else "")


def _kind_of_one(name: str) -> Kind:
    for kind, words in _WORDS:
        if re.search(words, name, re.IGNORECASE):
            return kind
    return "unknown"
