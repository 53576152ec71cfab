"""DICOM in, DICOM SEG out: another reader finds the same voxels in the same places as the mask file has them."""

from __future__ import annotations

from pathlib import Path

import dicom_files
import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
from dicom_files import T, X, Y, Z
from predict_files import GREYS, SITE, reader, write_run
from real_files import REAL, needs_real

from model.labels import LV, MYO, RV
from tasks.dicom.cine import read_cine
from tasks.predict.ready import ready_model
from tasks.predict.run import predict
from tasks.predict.shelf import Shelf

STUDIES = {"sax_cine_3t": REAL / "dicom" / "sax_cine_3t", "sunnybrook": REAL / "sunnybrook" / "SCD0000101"}
LABELS = {"LV": LV, "MYO": MYO, "RV": RV}
SNOMED = {"LV": "87878005", "MYO": "49848007", "RV": "53085002"}


def labels(t: int, z: int) -> np.ndarray:
    """A heart of squares; the cavity is smallest in phase 2, and the last slice is empty."""
    plane = np.zeros((Y, X), np.uint8)
    if z < Z - 1:
        reach = (4, 3, 2, 3)[t]
        plane[3:13, 8:18] = MYO
        plane[8 - reach : 8 + reach, 13 - reach : 13 + reach] = LV
        plane[4:12, 4:8] = RV
    return plane


def grey(t: int, z: int) -> np.ndarray:
    return (np.array(GREYS, np.uint16)[labels(t, z)] + np.arange(Y * X).reshape(Y, X) % 13).astype(np.uint16)


def write_classic(folder: Path) -> Path:
    images = dicom_files.stack()
    for (t, z), data in images.items():
        data.PixelData = grey(t, z).tobytes()
        data.SeriesInstanceUID = f"1.2.3.{z}"  # a series per slice
    return dicom_files.write(folder, list(images.values()))


def write_enhanced(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(dicom_files, "stored", grey)
    data = dicom_files.enhanced()
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = pydicom.uid.EnhancedMRImageStorage
    return dicom_files.write(folder, [data])


def read_back(path: Path, affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Labels ``(x, y, z)`` of a SEG on the voxels of a NIfTI affine: values by SimpleITK, places by pydicom."""
    seg, values = pydicom.dcmread(path), sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    names = {item.SegmentNumber: item.SegmentLabel for item in seg.SegmentSequence}
    shared = seg.SharedFunctionalGroupsSequence[0]
    row, column = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
    step_y, step_x = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    found = np.zeros(shape, np.uint8)
    assert len(values) == seg.NumberOfFrames == 3 * shape[2]
    for frame, group in zip(values, seg.PerFrameFunctionalGroupsSequence, strict=True):
        y, x = np.mgrid[: frame.shape[0], : frame.shape[1]]
        corner = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        lps = corner + x[..., None] * step_x * row + y[..., None] * step_y * column
        ras = lps * (-1, -1, 1)
        voxels = (ras - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
        assert np.allclose(voxels, voxels.round(), atol=1e-3)
        i, j, k = voxels.round().astype(int)[frame > 0].T
        found[i, j, k] = LABELS[names[group.SegmentIdentificationSequence[0].ReferencedSegmentNumber]]
    return found


def assert_same(out: Path) -> None:
    mask = nib.load(out / "mask.nii.gz")
    values = np.asarray(mask.dataobj)
    files = sorted((out / "seg").iterdir())
    assert len(files) == values.shape[3]
    for t, path in enumerate(files):
        assert np.array_equal(read_back(path, mask.affine, values.shape[:3]), values[..., t])


def test_a_seg_has_the_masks_voxels_in_the_masks_places(tmp_path: Path) -> None:
    source = write_classic(tmp_path / "cine")
    result = predict(source, tmp_path / "out", reader(), "", "none")
    assert (result.input.kind, result.ed, result.es) == ("dicom", 0, 2)
    values = np.asarray(nib.load(tmp_path / "out" / "mask.nii.gz").dataobj)
    truth = np.array([[labels(t, z).T for z in range(Z)] for t in range(T)]).transpose(2, 3, 1, 0)
    assert values.shape == (X, Y, Z, T) and np.array_equal(values == LV, truth == LV)
    assert (values[:, :, :-1] > 0).any() and (values != truth).mean() < 0.03
    assert_same(tmp_path / "out")


def test_an_enhanced_file_gets_the_same_segs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_enhanced(tmp_path / "enhanced", monkeypatch)
    predict(source, tmp_path / "out", reader(), "", "none")
    assert_same(tmp_path / "out")
    (path,) = source.iterdir()
    seg, image = pydicom.dcmread(tmp_path / "out" / "seg" / "seg-002.dcm"), pydicom.dcmread(path)
    for group in seg.PerFrameFunctionalGroupsSequence:
        named = group.DerivationImageSequence[0].SourceImageSequence[0]
        assert named.ReferencedSOPInstanceUID == image.SOPInstanceUID
        assert named.ReferencedSOPClassUID == pydicom.uid.EnhancedMRImageStorage
        its = image.PerFrameFunctionalGroupsSequence[named.ReferencedFrameNumber - 1]
        place, own = (one.PlanePositionSequence[0].ImagePositionPatient for one in (its, group))
        assert np.allclose(place, own, atol=1e-3)
        assert its.CardiacSynchronizationSequence[0].NominalCardiacTriggerDelayTime == 80
    (listed,) = seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert listed.ReferencedSOPInstanceUID == image.SOPInstanceUID


def test_a_seg_names_its_study_its_images_and_what_its_segments_are(tmp_path: Path) -> None:
    source = write_classic(tmp_path / "cine")
    result = predict(source, tmp_path / "out", reader(), "", "none")
    cine = read_cine(source)
    segs = [pydicom.dcmread(path) for path in sorted((tmp_path / "out" / "seg").iterdir())]
    assert (
        len({seg.SeriesInstanceUID for seg in segs}) == 1 and len({seg.SOPInstanceUID for seg in segs}) == T
    )
    for t, seg in enumerate(segs):
        images = {header.sop_uid for header in cine.headers[t]}
        named = {
            group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
            for group in seg.PerFrameFunctionalGroupsSequence
        }
        assert named == images
        listed = {
            one.ReferencedSOPInstanceUID: series.SeriesInstanceUID
            for series in seg.ReferencedSeriesSequence
            for one in series.ReferencedInstanceSequence
        }
        assert listed == {header.sop_uid: header.series_uid for header in cine.headers[t]}
        assert len(set(listed.values())) == Z
        assert (seg.StudyInstanceUID, seg.FrameOfReferenceUID, seg.PatientID) == ("1.2", "1.5", "anon")
        assert {
            s.SegmentLabel: s.SegmentedPropertyTypeCodeSequence[0].CodeValue for s in seg.SegmentSequence
        } == SNOMED
        assert {s.SegmentAlgorithmType for s in seg.SegmentSequence} == {"AUTOMATIC"}
        assert result.model.model_sha256[:12] in str(
            seg.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence
        )
    assert segs[0].ContentDescription == "phase 0, ED" and segs[2].ContentDescription == "phase 2, ES"


@needs_real
@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_real_studies_get_segs_on_their_own_voxels(tmp_path: Path, name: str) -> None:
    model = ready_model(Shelf(write_run(tmp_path / "run"), SITE, live=False), "global")
    predict(STUDIES[name], tmp_path / "out", model, "", "none", ed=0, es=7)
    assert_same(tmp_path / "out")
