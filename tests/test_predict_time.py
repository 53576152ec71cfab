"""How long a whole cine takes, by the clock: 30 phases of a usual matrix under the network of params.yaml."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from federation_files import PARAMS_FILE
from phantom_files import heart_mask
from predict_files import SITE, write_run

from tasks.settings import load_params

SHAPE_XYZ, SPACING_MM, PHASES = (256, 216, 12), (1.4, 1.4, 8.0), 30
BOUND_S = 60.0
CORES = set(list(os.sched_getaffinity(0))[:2])


def write_study(path: Path) -> Path:
    """A heart that beats once; bright blood, grey muscle, noise."""
    rng = np.random.default_rng(0)
    cavities_mm = 21 + 6 * np.cos(2 * np.pi * np.arange(PHASES) / PHASES)
    masks = np.stack([heart_mask(SHAPE_XYZ, SPACING_MM, mm) for mm in cavities_mm], axis=-1)
    values = np.array([60, 300, 140, 300])[masks] + rng.integers(0, 40, masks.shape)
    image = nib.Nifti1Image(values.astype(np.int16), np.diag([*SPACING_MM, 1.0]))
    image.header.set_zooms((*SPACING_MM, 33.0))
    nib.save(image, path)
    return path


@pytest.mark.slow
def test_a_cine_of_30_phases_takes_less_than_a_minute_on_two_cores(tmp_path: Path) -> None:
    """The whole command, imports and pictures too; both models segment, global and personal. The masks of an untrained
    network are the most ragged that there are, so no check of theirs is spared."""
    write_run(tmp_path / "runs" / "demo", params=load_params(PARAMS_FILE, ()))
    study, out = write_study(tmp_path / "cine.nii.gz"), tmp_path / "out"
    program = [sys.executable, "-c", "from flows.cli import main; main()", "predict", str(study)]
    where = ["--out", str(out), "--runs", str(tmp_path / "runs"), "--site", SITE, "--ed", "0", "--es", "15"]
    began, before = time.monotonic(), os.times()
    subprocess.run(
        [*program, *where],
        check=True,
        cwd=PARAMS_FILE.parent,
        preexec_fn=lambda: os.sched_setaffinity(0, CORES),
    )
    took_s, after = time.monotonic() - began, os.times()
    used_s = sum(after[2:4]) - sum(before[2:4])
    print(f"{took_s:.1f} s by the clock, {used_s:.1f} s of {len(CORES)} cores")
    written = json.loads((out / "results.json").read_text())
    assert written["input"]["shape"] == [*SHAPE_XYZ, PHASES]
    assert written["input"]["spacing_mm"] == list(SPACING_MM)
    assert not any("models_disagree" in said for said in written["not_checked"])
    assert took_s < BOUND_S
