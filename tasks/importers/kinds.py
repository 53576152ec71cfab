"""The kinds of archives that can be imported; a new one is a file beside this and a line here."""

from __future__ import annotations

from model.errors import ConfigError
from tasks.importers.acdc import find_acdc
from tasks.importers.dicom import find_dicom
from tasks.importers.found import Importer
from tasks.importers.mnms import find_mnms
from tasks.importers.nifti import find_nifti
from tasks.importers.sunnybrook import find_sunnybrook

KINDS: dict[str, Importer] = {
    "acdc": find_acdc,
    "mnms": find_mnms,
    "nifti": find_nifti,
    "dicom": find_dicom,
    "sunnybrook": find_sunnybrook,
}


def importer_of(kind: str) -> Importer:
    """The importer of a kind.

    Args:
        kind: as the command line names it.

    Returns:
        What finds and reads such patients.

    Raises:
        ConfigError: there is none.
    """
    if kind not in KINDS:
        raise ConfigError(f"'{kind}' is no known kind of archive", "kind", f"use {', '.join(KINDS)}")
    return KINDS[kind]
