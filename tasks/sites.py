"""Form the sites of a federation from the patients of one data set."""

from __future__ import annotations

import csv
import hashlib
import re
import unicodedata
from pathlib import Path

from model.errors import CohortError, ConfigError, UnreadableError
from tasks.cases import Patient, read_volume

FEWEST_PATIENTS = 3
WAYS = "group, vendor, centre, folder, site:NAME or csv:FILE:COLUMN"


def form_sites(
    patients: list[Patient], how: str, root: Path, small: bool = False
) -> dict[str, list[Patient]]:
    """Give every patient one site.

    Args:
        patients: as an importer returned them.
        how: ``group`` (a site per pathology group), ``vendor``, ``centre``, ``folder`` (the first folder below
            ``root``), ``site:NAME`` (one site for all), or ``csv:FILE:COLUMN`` (the column beside ``patient``,
            which is the folder's name, or the pseudonym of an import).
        root: the folder the patients were read from.
        small: let sites of one or two patients in.

    Returns:
        Sites by safe name ``[a-z0-9-]{1,40}``, sorted, patients in their given order.

    Raises:
        ConfigError: ``how`` is none of these.
        CohortError: one patient twice, a site with fewer than three patients, two sites of one safe name, or
            a table that names unknown patients or misses some.
        UnreadableError: the table cannot be read.
    """
    _refuse_doubles(patients)
    raw = _assign(patients, how, root)
    sites: dict[str, list[Patient]] = {}
    meant: dict[str, str] = {}
    for patient in patients:
        name = raw[patient.folder_id]
        safe = safe_name(name)
        if meant.setdefault(safe, name) != name:
            raise CohortError(
                f"sites '{meant[safe]}' and '{name}' would both be called '{safe}'", how, "rename one of them"
            )
        sites.setdefault(safe, []).append(patient)
    if not small:
        _refuse_small(sites, how)
    return dict(sorted(sites.items()))


def safe_name(name: str) -> str:
    """Turn a site's name into one that can stand in keys and paths.

    Args:
        name: as the folder, the group or the table gives it.

    Returns:
        The name as ``[a-z0-9-]{1,40}``: lower case, accents dropped, everything else a hyphen.

    Raises:
        CohortError: nothing is left of it.
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    safe = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:40].rstrip("-")
    if not safe:
        raise CohortError(
            f"site name '{name}' has no letter a-z and no digit", mend="name the site otherwise"
        )
    return safe


def _assign(patients: list[Patient], how: str, root: Path) -> dict[str, str]:
    """The raw site name of every patient by folder id."""
    way, _, rest = how.partition(":")
    if how in ("group", "vendor", "centre"):
        return {patient.folder_id: getattr(patient, how) for patient in patients}
    if how == "folder":
        return {patient.folder_id: _first_folder(patient, root) for patient in patients}
    if way == "site" and rest:
        return {patient.folder_id: rest for patient in patients}
    if way == "csv" and ":" in rest:
        file, _, column = rest.rpartition(":")
        return _from_table({patient.folder_id for patient in patients}, Path(file), column)
    raise ConfigError(f"'{how}' is no way to form sites", "sites", f"use {WAYS}")


def _first_folder(patient: Patient, root: Path) -> str:
    parts = patient.folder.relative_to(root).parts
    if len(parts) < 2:
        raise CohortError(
            f"patient {patient.folder_id} lies in no site folder",
            str(root),
            "use ROOT/SITE/PATIENT, or another way",
        )
    return parts[0]


def _from_table(known: set[str], path: Path, column: str) -> dict[str, str]:
    site_of: dict[str, str] = {}
    for line in _read_table(path, column):
        patient, site = line["patient"], line[column]
        if not site:
            raise CohortError(f"patient {patient} has no site", f"{path}, column {column}", "fill the cell")
        if site_of.setdefault(patient, site) != site:
            raise CohortError(
                f"patient {patient} stands at two sites, '{site_of[patient]}' and '{site}'",
                str(path),
                "keep one row",
            )
    unknown, missing = sorted(site_of.keys() - known), sorted(known - site_of.keys())
    if unknown:
        raise CohortError(
            f"names unknown patients: {', '.join(unknown)}", str(path), "use the folders' names"
        )
    if missing:
        raise CohortError(f"misses patients: {', '.join(missing)}", str(path), "add a row for each")
    return site_of


def _read_table(path: Path, column: str) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            absent = {"patient", column} - set(table.fieldnames or ())
            lines = [{key: (value or "").strip() for key, value in line.items() if key} for line in table]
    except (OSError, UnicodeDecodeError, csv.Error, AttributeError) as e:
        raise UnreadableError(f"cannot be read: {e}", str(path), "give a comma-separated UTF-8 table") from e
    if absent:
        raise CohortError(
            f"has no column {' and no '.join(sorted(absent))}", str(path), "see --sites csv:FILE:COLUMN"
        )
    return lines


def _refuse_doubles(patients: list[Patient]) -> None:
    by_name: set[str] = set()
    by_voxels: dict[str, str] = {}
    for patient in patients:
        if patient.folder_id.lower() in by_name:
            raise CohortError(f"patient {patient.folder_id} stands twice", str(patient.folder), "remove one")
        by_name.add(patient.folder_id.lower())
        for frame in patient.frames.values():
            twin = by_voxels.setdefault(_voxel_md5(frame.image), patient.folder_id)
            if twin != patient.folder_id:
                raise CohortError(
                    f"patients {twin} and {patient.folder_id} have one and the same image",
                    str(frame.image),
                    "remove one: no patient may stand on two sides",
                )


def _voxel_md5(path: Path) -> str:
    """MD5 of an image's shape and values in native axes: another header, dtype or packing leaves it as it is."""
    values = read_volume(path).values
    digest = hashlib.md5(repr(values.shape).encode(), usedforsecurity=False)
    digest.update(values.tobytes())
    return digest.hexdigest()


def _refuse_small(sites: dict[str, list[Patient]], how: str) -> None:
    small = {site: len(members) for site, members in sites.items() if len(members) < FEWEST_PATIENTS}
    if small:
        listed = ", ".join(f"{site} has {count}" for site, count in sorted(small.items()))
        raise CohortError(
            f"a site needs {FEWEST_PATIENTS} patients to train, validate and test: {listed}",
            how,
            "join small sites, or let them in with --set data.small_sites=true",
        )
