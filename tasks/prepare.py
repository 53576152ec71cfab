"""The ``cohort`` stage: import a data set, form sites, split patients, cache slices."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model.errors import CohortError, ConfigError, DataError, DiskError
from model.heart import heart_centre
from model.intensity import normalise
from model.partial import encode, outside
from model.seeds import derive_seed
from model.split import SPLITS, split_few, split_patients
from tasks.cases import (
    CARD_FILE,
    CASES_FILE,
    CaseRow,
    Patient,
    SiteCard,
    label_names,
    read_cases,
    read_volume,
    write_cases,
)
from tasks.data_card import card_numbers, middle_intensity
from tasks.dataset_md5 import dataset_md5
from tasks.importers.acdc import read_acdc
from tasks.importers.canonical import read_imported
from tasks.importers.kinds import KINDS
from tasks.importers.write import import_site
from tasks.settings import Data, Params
from tasks.sites import FEWEST_PATIENTS, form_sites
from tasks.slices import Slices, join_slices, save_slices, volume_slices

LAYOUTS = {"acdc": read_acdc, "imported": read_imported}
"""What is read where it lies; other kinds of archives are imported first."""
STAGING = ".preparing-"


@dataclass(frozen=True)
class _Enrolled:
    """A patient under the name and on the side the site gave them."""

    number: int
    split: str
    patient: Patient


def prepare(source: Path, layout: str, sites: str, home: Path, params: Params) -> tuple[SiteCard, ...]:
    """Write ``home/<site>/`` with the case table, the cached slices of each side, and the site's card.

    A site's folder appears whole or not at all, and the same input gives the same bytes.

    Args:
        source: the data set.
        layout: ``acdc``, ``imported``, or another kind of archive (:mod:`tasks.importers.kinds`), whose de-identified
            copy is then made beside ``home``.
        sites: how to form sites, see :func:`tasks.sites.form_sites`.
        home: where prepared sites live; a site of the same name is replaced.
        params: seed, fractions and the network's grid.

    Returns:
        A card per site, by name.

    Raises:
        ConfigError: an unknown layout or way to form sites.
        DataError: the data set cannot be used as it is; every fault is named.
        CohortError: sites too small or overlapping, also with other sites already in ``home``.
        DiskError: a file could not be written.
    """
    if layout not in LAYOUTS:
        layout, source = "imported", _import(source, layout, sites, home)
    patients = LAYOUTS[layout](source)
    _refuse_unlabelled(patients)
    formed = form_sites(patients, sites, source, params.data.small_sites)
    _refuse_overlap(formed, home)
    with _staging(home) as folder:
        cards = tuple(
            _prepare_site(site, formed[site], source, sites, folder / site, params) for site in formed
        )
        with _disk(home):
            for site in formed:
                _replace(folder / site, home / site)
    return cards


def _import(source: Path, kind: str, sites: str, home: Path) -> Path:
    """The de-identified copy of an archive, made anew; the key beside it stays."""
    if kind not in KINDS:
        raise ConfigError(
            f"'{kind}' is no known layout", "layout", f"use {', '.join(sorted({*LAYOUTS, *KINDS}))}"
        )
    out = home.with_name(f"imported-{kind}")
    import_site(KINDS[kind], source, sites.removeprefix("site:") if sites.startswith("site:") else "all", out)
    return out


def _refuse_unlabelled(patients: list[Patient]) -> None:
    bare = [p.folder_id for p in patients if not any(frame.labels for frame in p.frames.values())]
    if bare:
        said = f"{len(bare)} patients have no mask, such as {bare[0]}"
        raise CohortError(
            said, str(patients[0].folder.parent), "annotate them, or leave them out of training"
        )


def _refuse_overlap(formed: dict[str, list[Patient]], home: Path) -> None:
    """No patient may stand at a new site and at one that is left from another preparation."""
    images = {str(patient.ed.image) for members in formed.values() for patient in members}
    others = sorted(path.parent for path in home.glob(f"*/{CARD_FILE}") if path.parent.name not in formed)
    for other in others:
        shared = images & {row.image for row in read_cases(other)}
        if shared:
            raise CohortError(
                f"site {other.name} was prepared earlier from {len(shared)} of the same patients",
                str(other),
                "remove that folder, or prepare into an empty one",
            )


def _prepare_site(
    site: str, patients: list[Patient], source: Path, how: str, folder: Path, params: Params
) -> SiteCard:
    enrolled = _enrol(site, patients, params)
    rows: list[CaseRow] = []
    parts: dict[str, list[Slices]] = {split: [] for split in SPLITS}
    intensities: list[float] = []
    for member in enrolled:
        for row, slices, intensity in _prepare_patient(member, params.data):
            rows.append(row)
            intensities.append(intensity)
            parts[member.split].append(slices)
    sides = {split: join_slices(parts[split], params.data.crop) for split in SPLITS}
    card = _card(site, rows, sides, _fingerprint(patients, source, how), params.data, intensities)
    with _disk(folder):
        folder.mkdir()
        write_cases(folder / CASES_FILE, rows)
        for split, slices in sides.items():
            save_slices(slices, folder, split)
        (folder / CARD_FILE).write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return card


def _enrol(site: str, patients: list[Patient], params: Params) -> list[_Enrolled]:
    """Sides, and numbers that say nothing about folder names; in the order of the numbers."""
    ordered = sorted(patients, key=lambda patient: patient.folder_id)
    numbers = (
        np.random.default_rng(derive_seed(params.seed, "pseudonyms", site)).permutation(len(ordered)) + 1
    )
    rng = np.random.default_rng(derive_seed(params.seed, "split", site))
    groups = [patient.group for patient in ordered]
    if len(ordered) < FEWEST_PATIENTS:
        sides = split_few(len(ordered))
    else:
        sides = split_patients(groups, params.data.validation, params.data.test, rng)
    members = map(_Enrolled, numbers.tolist(), sides, ordered)
    return sorted(members, key=lambda member: member.number)


def _prepare_patient(member: _Enrolled, data: Data) -> Iterator[tuple[CaseRow, Slices, float]]:
    patient = member.patient
    images = {phase: read_volume(frame.image) for phase, frame in patient.frames.items()}
    try:
        y_px, x_px = heart_centre(images["ED"].values, images["ES"].values, images["ED"].spacing_mm)
        normal = {phase: normalise(volume.values) for phase, volume in images.items()}
    except DataError as e:
        raise type(e)(e.what, str(patient.folder), e.mend) from e
    for phase, frame in patient.frames.items():
        row = CaseRow(
            f"p{member.number:03d}",
            phase,
            patient.group,
            member.split,
            str(frame.image),
            str(frame.mask),
            *images[phase].spacing_mm,
            y_px,
            x_px,
            data.crop,
            data.spacing_mm,
            patient.vendor,
            patient.centre,
            label_names(frame.labels),
        )
        crop = row.crop(normal[phase].shape)
        codes = encode(read_volume(frame.mask, mask=True).values, frame.labels)
        border = outside(codes)
        mask = crop.to_network(codes - border, nearest=True) + border
        slices = volume_slices(crop.to_network(normal[phase]), mask, member.number, phase)
        yield row, slices, middle_intensity(images[phase].values)


def _fingerprint(patients: list[Patient], source: Path, how: str) -> str:
    """DVC's md5 of all files of the site; of its own folder where it has one."""
    root = source / patients[0].folder.relative_to(source).parts[0] if how == "folder" else source
    return dataset_md5((file for each in patients for file in each.folder.rglob("*") if file.is_file()), root)


def _card(
    site: str,
    rows: list[CaseRow],
    sides: dict[str, Slices],
    md5: str,
    data: Data,
    intensities: list[float],
) -> SiteCard:
    people = {row.patient: row for row in rows}.values()
    spacing_mm = np.array([row.spacing_mm for row in rows])
    low, high = (tuple(np.round(extreme, 6).tolist()) for extreme in (spacing_mm.min(0), spacing_mm.max(0)))
    return SiteCard(
        site=site,
        patients={split: sum(row.split == split for row in people) for split in SPLITS},
        slices={split: len(sides[split].z) for split in SPLITS},
        groups=dict(sorted(Counter(row.group for row in people).items())),
        spacing_min_mm=low,
        spacing_max_mm=high,
        crop_px=data.crop,
        crop_spacing_mm=data.spacing_mm,
        dataset_md5=md5,
        **card_numbers(rows, intensities),
    )


@contextmanager
def _staging(home: Path) -> Iterator[Path]:
    """A folder beside the sites, gone at the end, and with it a new ``home`` that got no site.

    One that a killed run left is removed first.
    """
    made = not home.exists()
    with _disk(home):
        home.mkdir(parents=True, exist_ok=True)
        for left in home.glob(f"{STAGING}*"):
            shutil.rmtree(left)
        folder = Path(tempfile.mkdtemp(prefix=STAGING, dir=home))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if made:
            with suppress(OSError):  # holds sites
                home.rmdir()


@contextmanager
def _disk(where: Path) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise DiskError(
            f"could not be written: {e.strerror or e}", str(where), "free space or rights there"
        ) from e


def _replace(new: Path, old: Path) -> None:
    if old.exists():
        old.rename(new.with_name(f"{new.name}.replaced"))
    new.rename(old)
