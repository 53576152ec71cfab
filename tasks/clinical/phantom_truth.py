"""Volumes and EF of fresh phantoms as ``cardiofed predict`` measures them, against their analytic truth."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from model.phantom import Patient, draw_patient, render, volumes_ml
from model.phantom_anatomy import GROUPS
from model.scanner import Scanner, acquire
from model.seeds import derive_seed
from model.volumes import Ventricle, heart_function
from tasks.cohort import SITES
from tasks.predict.ready import ReadyModel, offered, ready_model
from tasks.predict.segment import find_heart, segment_phases
from tasks.predict.shelf import Shelf
from tasks.predict.source import read_study
from tasks.workspace import Workspace

TRUE_MASKS = "true masks"
QUANTITIES = {"edv": "EDV, ml", "esv": "ESV, ml", "ef": "EF, points"}


def phantom_truth(
    ws: Workspace, seeds: Iterable[int], say: Callable[[str], None] = lambda _: None
) -> pd.DataFrame:
    """Measure phantoms that no model has seen: of every scanner of the cohort one of every pathology, for each seed.

    Args:
        ws: a run with a closed round; a site's personal model measures the phantoms of its own scanner.
        seeds: each draws phantoms of its own.
        say: told what is being measured.

    Returns:
        A row per seed, phantom and measurement: seed, scanner, group, measured (``true masks``, base, global or
        personal), and predicted and true ``edv``, ``esv`` in ml and ``ef`` in percent; of the left ventricle.
    """
    models = {site.name: _models(ws, site.name) for site in SITES}
    rows: list[dict[str, Any]] = []
    for seed in seeds:
        for site in SITES:
            say(f"seed {seed}, phantoms of {site.name}")
            for group in GROUPS:
                rng = np.random.default_rng(derive_seed(seed, "phantom truth", site.name, group))
                patient = draw_patient(group, site.scanner.slices, rng)
                about = {"seed": seed, "scanner": site.name, "group": group}
                for measured, ventricle in _measure(patient, site.scanner, rng, models[site.name]):
                    rows.append({**about, "measured": measured, **_against(ventricle, patient, site.scanner)})
    return pd.DataFrame(rows)


def truth_table(rows: pd.DataFrame) -> str:
    """The rows as markdown: of true masks the relative error, of models bias and mean error with their spread.

    Args:
        rows: as :func:`phantom_truth` returns them.

    Returns:
        A row per measurement; after ± the standard deviation between the seeds' own numbers.
    """
    lines = [["LV measured with", "phantoms", *QUANTITIES.values()], ["---"] * 5]
    for measured in dict.fromkeys(rows["measured"]):
        own = rows[rows["measured"] == measured]
        say = _relative if measured == TRUE_MASKS else _absolute
        lines.append([measured, str(len(own)), *(say(own, name) for name in QUANTITIES)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _models(ws: Workspace, site: str) -> list[ReadyModel]:
    """Base and global model, and the site's personal one where the run has such a site that adapted."""
    shelf = Shelf(ws, site, live=False)
    return [ready_model(shelf, name) for name in offered(shelf, None)]


def _measure(
    patient: Patient, scanner: Scanner, rng: np.random.Generator, models: Sequence[ReadyModel]
) -> Iterator[tuple[str, Ventricle]]:
    drawn = [render(patient, phase, scanner) for phase in ("ED", "ES")]
    spacing_mm = (scanner.pitch_mm, scanner.spacing_mm, scanner.spacing_mm)
    yield TRUE_MASKS, heart_function(drawn[0][1], drawn[1][1], spacing_mm).lv
    images = np.stack([acquire(signal, scanner, rng) for signal, _ in drawn])
    with tempfile.TemporaryDirectory() as folder:
        study = read_study(_write(Path(folder) / "cine.nii", images, spacing_mm))
    for model in models:
        crop, _ = find_heart(study, model.predict, model.grid, 0, 1)
        ed, es = segment_phases(study.values, model.predict, crop).masks
        yield model.name, heart_function(ed, es, study.spacing_mm).lv


def _write(path: Path, images: NDArray[np.int16], spacing_mm: tuple[float, float, float]) -> Path:
    """``(T, Z, Y, X)`` as a file with axes x, y, z, t."""
    z, y, x = spacing_mm
    nib.save(nib.Nifti1Image(images.transpose(3, 2, 1, 0), np.diag([-x, -y, z, 1.0])), path)
    return path


def _against(found: Ventricle, patient: Patient, scanner: Scanner) -> dict[str, float]:
    true = Ventricle(*volumes_ml(patient, scanner))
    return {
        "edv": found.edv_ml,
        "esv": found.esv_ml,
        "ef": found.ef_percent,
        "true_edv": true.edv_ml,
        "true_esv": true.esv_ml,
        "true_ef": true.ef_percent,
    }


def _relative(own: pd.DataFrame, name: str) -> str:
    percent = 100 * (own[name] / own[f"true_{name}"] - 1).abs()
    return f"{_with_spread(percent, own['seed'], 2)} %, at most {percent.max():.2f} %"


def _absolute(own: pd.DataFrame, name: str) -> str:
    error = own[name] - own[f"true_{name}"]
    lost = int(error.isna().sum())
    said = (
        f"bias {_with_spread(error, own['seed'], 1, '+')}, error {_with_spread(error.abs(), own['seed'], 1)}"
    )
    return f"{said}, {lost} undefined" if lost else said


def _with_spread(values: pd.Series[float], seeds: pd.Series[int], digits: int, sign: str = "") -> str:
    """The mean, and the standard deviation between the seeds' means."""
    means = values.groupby(seeds).mean()
    spread = f" ± {means.std(ddof=1):.{digits}f}" if len(means) > 1 else ""
    return f"{values.mean():{sign}.{digits}f}{spread}".replace("-", "−")
