"""Masks as DICOM SEG: one object per cardiac phase, in one series of the study it was made from.

A SEG object holds one mask per place; a cine has one per phase and place, so each phase is an object of its own. Its
frames lie where the phase's images lie and name them as their source.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
from highdicom.seg import Segmentation, SegmentDescription
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import MRImageStorage, generate_uid
from pydicom.valuerep import DA, TM

from model.errors import UnreadableError
from model.labels import LV, MYO, RV
from tasks.dicom.header import BROKEN, EXPORT_AGAIN, Header, load, quiet

NUMBERS = {1: LV, 2: MYO, 3: RV}
"""Segment number → label of ours."""
NEEDED = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID"),
    *("StudyDate", "StudyTime", "ReferringPhysicianName"),
)
"""Of type 2: they must be there, and may be empty."""
ENHANCED = ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence", "NumberOfFrames")
SERIES_NUMBER = 9001
SAME_PLACE_MM = 1e-3


def write_segs(
    folder: Path,
    headers: Sequence[Sequence[Header]],
    masks: NDArray[np.uint8],
    names: Mapping[int, str],
    made_by: Mapping[str, str],
) -> list[Path]:
    """Write ``seg-000.dcm``, ``seg-001.dcm``, … into an existing folder.

    Args:
        folder: where to.
        headers: ``[t][z]`` of the images, all of one study.
        masks: ``(T, Z, Y, X)`` labels in the images' own rows and columns.
        names: phases that have a name, such as ED.
        made_by: ``version`` of the software and ``model`` that segmented, its hash.

    Returns:
        The files, one per phase.

    Raises:
        UnreadableError: the source images lack what a SEG must take over.
    """
    series = generate_uid()
    written = []
    for t, phase in enumerate(headers):
        path = folder / f"seg-{t:03d}.dcm"
        said = f"phase {t}" + (f", {names[t]}" if t in names else "")
        where = str(phase[0].path)
        try:
            with quiet():
                seg = _seg(phase, masks[t], series, t, said, made_by)
                seg.save_as(path)
        except BROKEN as error:
            raise UnreadableError(f"no DICOM SEG can refer to it: {error}", where, EXPORT_AGAIN) from error
        written.append(path)
    return written


def _seg(
    phase: Sequence[Header],
    mask: NDArray[np.uint8],
    series: str,
    t: int,
    said: str,
    made_by: Mapping[str, str],
) -> Segmentation:
    """One phase; empty frames stay, so that every segment is a whole stack."""
    sources = [_source(header) for header in phase]
    for (
        source
    ) in sources:  # a scanner may write a series per slice, and pseudonyms may part their frame of reference
        source.SeriesInstanceUID = sources[0].SeriesInstanceUID  # _refer names the true one
        source.FrameOfReferenceUID = sources[0].get("FrameOfReferenceUID") or sources[0].StudyInstanceUID
    first = phase[0]
    thickness = _step_mm(phase)
    lps = hd.CoordinateSystemNames.PATIENT
    pixels = hd.PixelMeasuresSequence(
        pixel_spacing=first.spacing_mm, slice_thickness=thickness, spacing_between_slices=thickness
    )
    seg = Segmentation(
        source_images=sources,
        pixel_array=np.stack([mask == label for label in NUMBERS.values()], axis=-1).astype(np.uint8),
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_description(number, made_by) for number in NUMBERS],
        series_instance_uid=series,
        series_number=SERIES_NUMBER,
        sop_instance_uid=generate_uid(),
        instance_number=t + 1,
        manufacturer="cardiofed",
        manufacturer_model_name="cardiofed",
        software_versions=made_by["version"],
        device_serial_number=made_by["model"][:16],
        content_description=said,
        content_label="CARDIAC_SEG",
        series_description="LV, myocardium and RV (cardiofed, research only)",
        omit_empty_frames=False,
        plane_positions=[hd.PlanePositionSequence(lps, header.position_mm) for header in phase],
        plane_orientation=hd.PlaneOrientationSequence(lps, (*first.row, *first.column)),
        pixel_measures=pixels,
    )
    _refer(seg, phase)
    return seg


def _source(header: Header) -> Any:
    """The image as a single-frame data set with the attributes that a SEG takes over, empty where they were removed."""
    data = load(header.path)
    for name in NEEDED:
        if name not in data or not _is_readable(name, data):
            setattr(data, name, "")
    if header.frame is not None:
        for name in ENHANCED:
            data.pop(name, None)
        data.SOPClassUID, data.SOPInstanceUID = MRImageStorage, generate_uid()  # _refer names the file itself
        data.ImagePositionPatient = list(header.position_mm)
        data.ImageOrientationPatient = [*header.row, *header.column]
        data.PixelSpacing = list(header.spacing_mm)
    return data


def _is_readable(name: str, data: Any) -> bool:
    """False for a date or time that is none, such as the zeros that de-identification leaves."""
    kind = DA if name.endswith("Date") else TM if name.endswith("Time") else str
    try:
        kind(data[name].value)
    except (ValueError, TypeError):
        return False
    return True


def _step_mm(phase: Sequence[Header]) -> float:
    places = np.array([header.position_mm for header in phase]) @ phase[0].normal
    return float(round(abs(np.median(np.diff(places))), 6))


def _description(number: int, made_by: Mapping[str, str]) -> SegmentDescription:
    name, code = {
        LV: ("LV", codes.SCT.LeftVentricle),
        MYO: ("MYO", codes.SCT.LeftVentricleMyocardium),
        RV: ("RV", codes.SCT.RightVentricle),
    }[NUMBERS[number]]
    return SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=codes.SCT.AnatomicalStructure,
        segmented_property_type=code,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name="cardiofed residual U-Net",
            version=f"{made_by['version']} {made_by['model'][:12]}",
            family=codes.DCM.ArtificialIntelligence,
        ),
        tracking_uid=generate_uid(entropy_srcs=[name]),
        tracking_id=name,
    )


def _refer(seg: Segmentation, phase: Sequence[Header]) -> None:
    """Name for every frame the image, or the frame of an enhanced one, that it was drawn on."""
    frames = seg.PerFrameFunctionalGroupsSequence
    for k, group in enumerate(frames):
        place = np.array(group.PlanePositionSequence[0].ImagePositionPatient, np.float64)
        header = min(phase, key=lambda one: float(np.linalg.norm(place - one.position_mm)))
        if np.linalg.norm(place - header.position_mm) > SAME_PLACE_MM:
            raise ValueError(f"frame {k} does not lie where its source lies")
        source = group.DerivationImageSequence[0].SourceImageSequence[0]
        if header.frame is None and source.ReferencedSOPInstanceUID != header.sop_uid:
            raise ValueError(f"frame {k} names another source")
        if header.frame is not None:
            _name(source, header)
            source.ReferencedFrameNumber = header.frame + 1
    seg.ReferencedSeriesSequence = [
        _series(uid, [one for one in phase if one.series_uid == uid])
        for uid in sorted({one.series_uid for one in phase})
    ]


def _series(uid: str, headers: Sequence[Header]) -> Dataset:
    item, files = Dataset(), {header.sop_uid: header for header in headers}
    item.SeriesInstanceUID, item.ReferencedInstanceSequence = uid, [Dataset() for _ in files]
    for reference, header in zip(item.ReferencedInstanceSequence, files.values(), strict=True):
        _name(reference, header)
    return item


def _name(reference: Any, header: Header) -> None:
    reference.ReferencedSOPClassUID = load(header.path).SOPClassUID
    reference.ReferencedSOPInstanceUID = header.sop_uid
