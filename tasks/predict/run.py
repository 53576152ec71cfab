"""Segment one study: masks, pictures, numbers and doubts, in a folder that is whole or absent."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from model.errors import ConfigError, DataError, DiskError, PhaseError
from model.plausibility import (
    Flag,
    confidence_flags,
    curve_flags,
    disagreement_flags,
    edge_flags,
    ef_flags,
    shape_flags,
)
from model.volume_curve import JUMP_FROM, find_phases
from tasks.code_version import code_version
from tasks.files import json_bytes
from tasks.predict.dicom_seg import write_segs
from tasks.predict.overlay import draw_contours
from tasks.predict.ready import ReadyModel
from tasks.predict.result import (
    FlagResult,
    InputResult,
    ModelResult,
    PhasesFrom,
    Result,
    confidence_result,
    function_of,
    result_csv,
    ventricle_result,
    volume_curves,
)
from tasks.predict.segment import Segmented, find_heart, segment_phases
from tasks.predict.source import Study, read_study
from tasks.release.channel import CHANNEL

MASK_FILE, JSON_FILE, CSV_FILE, SEG_FOLDER = "mask.nii.gz", "results.json", "results.csv", "seg"
STILL = "phase"


@dataclass(frozen=True)
class _Seen:
    """A study with what the model says of it."""

    study: Study
    found: Segmented
    heart_by: str
    ed: int | None
    es: int | None
    phases_from: PhasesFrom

    @property
    def named(self) -> dict[str, int]:
        """ED and ES with their indices, or the one phase of a still stack."""
        return {STILL: 0} if self.ed is None or self.es is None else {"ED": self.ed, "ES": self.es}


def predict(
    source: Path,
    out: Path,
    model: ReadyModel,
    chosen_by: str,
    other: ReadyModel | str,
    ed: int | None = None,
    es: int | None = None,
) -> Result:
    """Segment a study and write ``out``.

    Args:
        source: NIfTI file, or folder with a DICOM short-axis cine.
        out: folder that does not exist yet.
        model: which segments.
        chosen_by: why this model, in words.
        other: a model whose masks are compared; or, in words, why there is none.
        ed: index of ED; None to find it in the volume curve.
        es: index of ES; likewise.

    Returns:
        What stands in ``results.json``.

    Raises:
        ConfigError: ``out`` exists.
        DataError: of the kind of the input's fault.
        DiskError: ``out`` could not be written; nothing of it is left.
    """
    if out.exists():
        mend = "name a folder that does not exist: results are never overwritten"
        raise ConfigError("the output exists already", str(out), mend)
    study = read_study(source)
    try:
        seen, flags, unchecked = _look(study, model, other, ed, es)
    except DataError as fault:
        raise type(fault)(fault.what, fault.where or str(source), fault.mend) from fault
    result = _result(seen, model, chosen_by, flags, unchecked)
    with _whole(out) as folder:
        _write(folder, seen, result)
    return result


def _look(
    study: Study, model: ReadyModel, other: ReadyModel | str, ed: int | None, es: int | None
) -> tuple[_Seen, list[Flag], list[str]]:
    crop, heart_by = find_heart(study, model.predict, model.grid, ed, es)
    found = segment_phases(study.values, model.predict, crop)
    seen = _Seen(study, found, heart_by, *_phases(study, found, ed, es))
    flags = _flags(seen)
    unchecked = _unchecked(seen)
    if isinstance(other, str):
        unchecked.append(f"models_disagree: {other}")
    else:
        named = seen.named
        theirs = segment_phases(study.values[list(named.values())], other.predict, crop).masks
        for (name, t), mask in zip(named.items(), theirs, strict=True):
            flags += disagreement_flags(found.masks[t], mask, name, (model.name, other.name))
    return seen, flags, unchecked


def _phases(
    study: Study, found: Segmented, ed: int | None, es: int | None
) -> tuple[int | None, int | None, PhasesFrom]:
    if len(study.values) == 1:
        return None, None, "one phase"
    if ed is not None and es is not None:
        return ed, es, "given"
    seen_ed, seen_es = find_phases(volume_curves(found.masks, study.spacing_mm)["LV"])
    ed, es = seen_ed if ed is None else ed, seen_es if es is None else es
    if ed == es:
        said = f"phase {ed} is ED and ES in one: the LV is largest, or smallest, where you named the other"
        raise PhaseError(said, "--ed and --es", "name both")
    return ed, es, "volume curve"


def _flags(seen: _Seen) -> list[Flag]:
    flags = []
    for name, t in seen.named.items():
        flags += shape_flags(seen.found.masks[t], name)
        flags += edge_flags(seen.found.network[t], name)
        flags += confidence_flags(seen.found.confidence[t], name)
    curve = volume_curves(seen.found.masks, seen.study.spacing_mm)["LV"]
    flags += curve_flags(curve)
    function = function_of(seen.found.masks, seen.ed, seen.es, seen.study.spacing_mm)
    if function is None:
        flags.append(Flag("one_phase", "a still stack: no EF, and its phase is not known"))
        said = "a still stack: the crop was placed by what a first pass found, not by motion"
        flags.append(Flag("heart_not_located", said))
    else:
        flags += ef_flags({"LV": function.lv.ef_percent, "RV": function.rv.ef_percent})
    return flags


def _unchecked(seen: _Seen) -> list[str]:
    phases = len(seen.study.values)
    if phases < JUMP_FROM:
        return [f"volume_jump: {phases} phases, {JUMP_FROM} or more tell a jump from the cycle's own course"]
    return []


def _result(
    seen: _Seen, model: ReadyModel, chosen_by: str, flags: list[Flag], unchecked: list[str]
) -> Result:
    study, found = seen.study, seen.found
    function = function_of(found.masks, seen.ed, seen.es, study.spacing_mm)
    z, y, x = (round(step, 6) for step in study.spacing_mm)
    return Result(
        input=InputResult(
            kind=study.kind,
            sha256=study.sha256,
            shape=study.shape,
            spacing_mm=(x, y, z),
            phases=len(study.values),
        ),
        model=ModelResult(
            name=model.name,
            chosen_by=chosen_by,
            round=model.round,
            channel=f"{CHANNEL} {model.release}" if model.release else "",
            site=model.site,
            base_sha256=model.base.sha256,
            model_sha256=model.model_sha256,
            personal_sha256=model.personal_sha256,
            code_version=code_version(),
        ),
        ed=seen.ed,
        es=seen.es,
        phases_from=seen.phases_from,
        lv=ventricle_result(None if function is None else function.lv),
        rv=ventricle_result(None if function is None else function.rv),
        lv_mass_g=None if function is None else round(function.mass_g, 2),
        volumes_ml=volume_curves(found.masks, study.spacing_mm),
        confidence=confidence_result(found.confidence),
        heart_found_by=seen.heart_by,
        flags=tuple(FlagResult(**asdict(flag)) for flag in flags),
        not_checked=tuple(unchecked),
    )


def _write(folder: Path, seen: _Seen, result: Result) -> None:
    study, masks = seen.study, seen.found.masks
    (folder / JSON_FILE).write_bytes(json_bytes(result.model_dump(mode="json")))
    (folder / CSV_FILE).write_text(result_csv(result), encoding="utf-8")
    stored = study.to_stored(masks)
    _write_mask(folder / MASK_FILE, study, stored)
    if study.headers:
        names = {t: name for name, t in seen.named.items()}
        made_by = {"version": result.model.code_version, "model": result.model.model_sha256}
        (folder / SEG_FOLDER).mkdir()
        write_segs(folder / SEG_FOLDER, study.headers, stored.transpose(3, 2, 1, 0), names, made_by)
    for name, t in seen.named.items():
        caption = f"{name}, phase {t}" if name != STILL else "one phase"
        picture = draw_contours(study.values[t], masks[t], study.spacing_mm, caption)
        (folder / f"overlay-{name.lower()}.png").write_bytes(picture)


def _write_mask(path: Path, study: Study, stored: NDArray[np.uint8]) -> None:
    header = None if study.header is None else study.header.copy()
    if header is not None:
        header.set_data_dtype(np.uint8)
        header["scl_slope"], header["scl_inter"] = 1, 0
        header["cal_min"] = header["cal_max"] = 0
        header["descrip"], header["aux_file"], header["db_name"] = b"", b"", b""
        header.extensions.clear()
    nib.save(nib.Nifti1Image(stored, study.affine, header), path)


@contextmanager
def _whole(out: Path) -> Iterator[Path]:
    """A folder that becomes ``out`` at the end, and is gone if it does not come to that."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as e:
        raise DiskError(
            f"could not be written: {e.strerror or e}", str(out), "free space or rights there"
        ) from e
    try:
        yield folder
        folder.chmod(0o700)
        folder.rename(out)
    except OSError as e:
        raise DiskError(
            f"could not be written: {e.strerror or e}", str(out), "free space or rights there"
        ) from e
    finally:
        shutil.rmtree(folder, ignore_errors=True)
