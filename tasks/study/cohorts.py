"""The cohorts of a study: one preparation per way of forming sites and per split seed."""

from __future__ import annotations

import csv
import io
import secrets
import shutil
from pathlib import Path

import numpy as np

from model.partitions import imbalanced, mixed_clinic
from model.seeds import derive_seed
from tasks.files import sha256_bytes, write_atomic
from tasks.importers.acdc import read_acdc
from tasks.prepare import prepare
from tasks.settings import Params
from tasks.study.scenarios import N_SITES, Partition


def study_cohort(root: Path, source: Path, partition: Partition, split_seed: int, params: Params) -> Path:
    """Prepare the sites, or find them prepared: whole or not at all, whoever else prepares them at the same time.

    Args:
        root: folder of the study.
        source: a data set in ACDC's layout.
        partition: who holds which patients.
        split_seed: of partition and sides.
        params: the network's grid, and the study's fractions.

    Returns:
        Folder of the prepared sites.

    Raises:
        DataError: the data set cannot be used.
    """
    data = params.data.model_copy(update={"validation": params.study.validation, "test": params.study.test})
    settings = params.model_copy(update={"seed": split_seed, "data": data})
    mark = sha256_bytes(f"{source}/{data}".encode())[:8]
    home = root / "cohorts" / f"{partition}-{split_seed}-{mark}"
    if not home.exists():
        how = "group" if partition == "by-group" else _table(root, source, partition, split_seed)
        making = home.with_name(f".{home.name}-{secrets.token_hex(4)}")
        try:
            prepare(source, "acdc", how, making, settings)
            making.rename(home)
        except OSError:  # somebody else was faster
            if not home.exists():
                raise
        finally:
            shutil.rmtree(making, ignore_errors=True)
    return home


def _table(root: Path, source: Path, partition: Partition, split_seed: int) -> str:
    patients = [(patient.folder_id, patient.group) for patient in read_acdc(source)]
    rng = np.random.default_rng(derive_seed(split_seed, "partition", partition))
    formed = imbalanced(patients, N_SITES, rng) if partition == "imbalanced" else mixed_clinic(patients, rng)
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(("patient", "site"))
    rows.writerows(sorted((patient, site) for site, members in formed.items() for patient in members))
    path = root / "cohorts" / f"{partition}-{split_seed}.csv"
    write_atomic(path, text.getvalue().encode())
    return f"csv:{path}:site"
