"""DICOM: what is read is what was acquired, and every hostile variant is refused with its own error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_files import COLUMN, NORMAL, ROW, STEP_MM, T, X, Y, Z, enhanced, image, stack, stored, write
from pydicom.uid import JPEGLSLossless, RLELossless
from real_files import REAL, needs_real

from model.errors import DataError, GeometryError, IntensityError, PhaseError, UnreadableError
from tasks.dicom.cine import read_cine
from tasks.dicom.inspect import inspect
from tasks.dicom.risks import risks_of

TRUTH = np.array([[stored(t, z) for z in range(Z)] for t in range(T)], np.float32)
Images = dict[tuple[int, int], Any]


def each(**tags: Any) -> Callable[[Images], None]:
    """Set tags on every image; None deletes."""

    def change(images: Images) -> None:
        for data in images.values():
            for name, value in tags.items():
                if value is None:
                    del data[name]
                else:
                    setattr(data, name, value)

    return change


def one(t: int, z: int, **tags: Any) -> Callable[[Images], None]:
    return lambda images: each(**tags)({(t, z): images[t, z]})


def without(*places: tuple[int, int]) -> Callable[[Images], None]:
    return lambda images: [images.pop(place) for place in places] and None


def both(*changes: Callable[[Images], None]) -> Callable[[Images], None]:
    return lambda images: [change(images) for change in changes] and None


def shifted(images: Images) -> None:
    for (_, z), data in images.items():
        data.ImagePositionPatient = [f"{v:.6f}" for v in NORMAL * STEP_MM * z + ROW * 2.0 * z]


def one_identity(images: Images) -> None:
    images[1, 0].SOPInstanceUID = images[0, 0].SOPInstanceUID


def second_stack(images: Images) -> None:
    images.update({(t + T, z): image(t, z, "1.2.4") for t in range(T) for z in range(Z)})


def acquired_twice(images: Images) -> None:
    """The whole cine a second time: other identities, the same trigger times."""
    for (t, z), data in list(images.items()):
        again = image(t, z)
        again.InstanceNumber = data.InstanceNumber + T * Z
        images[t + T, z] = again


AXIAL, BENT = [1, 0, 0, 0, 1, 0], [1, 0, 0, 1, 0, 0]
FOUR_CHAMBER = [0.6, 0.64, -0.48, 0.298, -0.73, -0.614]
HOSTILE: dict[str, tuple[type[DataError], str, Callable[[Images], None]]] = {
    "no position": (GeometryError, "ImagePositionPatient is missing", each(ImagePositionPatient=None)),
    "no orientation": (
        GeometryError,
        "ImageOrientationPatient is missing",
        each(ImageOrientationPatient=None),
    ),
    "no pixel spacing": (GeometryError, "PixelSpacing is missing", each(PixelSpacing=None)),
    "spacing of zero": (GeometryError, "PixelSpacing is", each(PixelSpacing=[0, 0])),
    "spacing in metres": (GeometryError, "PixelSpacing is", each(PixelSpacing=[0.0015, 0.0015])),
    "position of two numbers": (GeometryError, "not 3 finite", each(ImagePositionPatient=[1, 2])),
    "axes not perpendicular": (GeometryError, "perpendicular", each(ImageOrientationPatient=BENT)),
    "no rows": (GeometryError, "Rows and Columns", each(Rows=None)),
    "axial": (GeometryError, "not short-axis", each(ImageOrientationPatient=AXIAL)),
    "localizer": (GeometryError, "scout", each(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])),
    "late enhancement": (GeometryError, "late enhancement", each(InversionTime=280)),
    "phase images": (GeometryError, "phase or velocity", each(ImageType=["ORIGINAL", "PRIMARY", "P"])),
    "derived": (GeometryError, "derived", each(ImageType=["DERIVED", "PRIMARY", "M"])),
    "another modality": (GeometryError, "modality CT", each(Modality="CT")),
    "one phase": (GeometryError, "not a cine", without(*[(t, z) for t in range(1, T) for z in range(Z)])),
    "a slice missing": (GeometryError, "missing or uneven", without(*[(t, 2) for t in range(T)])),
    "two slices": (
        GeometryError,
        "2 slices",
        without(*[(t, z) for t in range(T) for z in range(2, Z)]),
    ),
    "slices shifted in plane": (GeometryError, "shifted within", shifted),
    "one image of another spacing": (GeometryError, "differ in size", one(1, 1, PixelSpacing=[2, 2])),
    "two stacks": (GeometryError, "2 short-axis stacks", second_stack),
    "an image missing": (PhaseError, "different numbers of phases", without((2, 1))),
    "no order in time": (PhaseError, "missing or not unique", each(TriggerTime=None, InstanceNumber=7)),
    "the cine twice in one series": (PhaseError, "stands 2 times", acquired_twice),
    "one identity on two images": (DataError, "one SOPInstanceUID", one_identity),
    "colour": (IntensityError, "RGB", each(PhotometricInterpretation="RGB", SamplesPerPixel=3)),
    "inverted grey": (IntensityError, "MONOCHROME1", each(PhotometricInterpretation="MONOCHROME1")),
    "pixels cut short": (UnreadableError, "cannot be decoded", one(0, 0, PixelData=b"\0" * 10)),
    "no pixels": (UnreadableError, "cannot be decoded", one(0, 0, PixelData=None)),
    "slope of zero": (GeometryError, "RescaleSlope 0", each(RescaleSlope=0, RescaleIntercept=0)),
    "constant": (IntensityError, "constant", each(PixelData=bytes(2 * Y * X))),
    "frames without positions": (GeometryError, "without a position", one(0, 0, NumberOfFrames=3)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_folder_is_refused_with_what_where_and_mend(name: str, tmp_path: Path) -> None:
    kind, said, change = HOSTILE[name]
    images: Images = stack()
    change(images)
    with pytest.raises(kind, match=said) as refused:
        read_cine(write(tmp_path / "in", list(images.values())))
    assert refused.value.where and refused.value.mend


@pytest.mark.parametrize("content", [b"", b"hello", b"\0" * 128 + b"DICM" + b"\xff" * 40])
def test_a_file_that_is_no_dicom_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(content)
    with pytest.raises(DataError):
        read_cine(tmp_path)


def test_a_folder_without_dicom_or_none_at_all_is_refused(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("no images")
    with pytest.raises(UnreadableError, match="no DICOM"):
        read_cine(tmp_path)
    with pytest.raises(UnreadableError, match="no such folder"):
        read_cine(tmp_path / "none")


def test_voxels_lie_where_position_and_trigger_time_say(tmp_path: Path) -> None:
    cine = read_cine(write(tmp_path, list(stack().values())))
    assert np.array_equal(cine.values, TRUTH)
    assert cine.spacing_mm == pytest.approx((STEP_MM, 1.5, 1.25), abs=1e-4)
    lps = NORMAL * STEP_MM * 2 + [7, -3, 11] + ROW * 1.25 * 3 + COLUMN * 1.5 * 4
    assert (cine.affine @ [3, 4, 2, 1])[:3] == pytest.approx(lps * [-1, -1, 1], abs=1e-4)
    assert np.array_equal(cine.trigger_ms[:, 0], 40.0 * np.arange(T))
    assert cine.vendor == "ACME"


def test_a_series_per_slice_makes_one_stack_and_strangers_are_left_out(tmp_path: Path) -> None:
    images = [image(t, z, f"1.2.3.{z}") for t in range(T) for z in range(Z)]
    other = image(0, 0, "1.2.9")
    other.ImageOrientationPatient = FOUR_CHAMBER
    other.SeriesDescription = "4ch"
    write(tmp_path / "a", images)
    write(tmp_path / "b", [other])
    assert np.array_equal(read_cine(tmp_path).values, TRUTH)
    said = {row.description: row.said for row in inspect(tmp_path)}
    assert said["cine sax"] == "taken" and "not short-axis" in said["4ch"]


@pytest.mark.parametrize("change", [each(TriggerTime=0), each(TriggerTime=None), one(1, 1, TriggerTime=None)])
def test_without_usable_trigger_times_acquisition_order_is_taken(change: Any, tmp_path: Path) -> None:
    images: Images = stack()
    change(images)
    cine = read_cine(write(tmp_path, list(images.values())))
    assert np.array_equal(cine.values, TRUTH)
    assert np.isnan(cine.trigger_ms).all()


def test_a_copied_file_counts_once(tmp_path: Path) -> None:
    images = stack()
    write(tmp_path, [*images.values(), images[0, 0]])
    assert np.array_equal(read_cine(tmp_path).values, TRUTH)


def test_rescale_gives_real_values(tmp_path: Path) -> None:
    images: Images = stack()
    each(RescaleSlope=2, RescaleIntercept=-5)(images)
    assert np.array_equal(read_cine(write(tmp_path, list(images.values()))).values, TRUTH * 2 - 5)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
def test_compressed_pixels_are_those_of_the_plain_file(syntax: Any, tmp_path: Path) -> None:
    images = list(stack().values())
    for data in images:
        data.compress(syntax, generate_instance_uid=False)
    assert np.array_equal(read_cine(write(tmp_path, images)).values, TRUTH)


def test_an_enhanced_file_reads_as_its_classic_twin(tmp_path: Path) -> None:
    plain = read_cine(write(tmp_path / "plain", list(stack().values())))
    cine = read_cine(write(tmp_path / "enhanced", [enhanced()]))
    assert np.array_equal(cine.values, plain.values)
    assert np.allclose(cine.affine, plain.affine)


def test_an_enhanced_file_with_a_frame_undescribed_is_refused(tmp_path: Path) -> None:
    data = enhanced()
    del data.PerFrameFunctionalGroupsSequence[-1]
    with pytest.raises(DataError, match="described"):
        read_cine(write(tmp_path, [data]))


def marked(image: Any) -> None:
    """The same bright letters on every image."""
    pixels = np.frombuffer(image.PixelData, np.uint16).reshape(Y, X).copy()
    pixels[2:8:2, 2:18], pixels[3:8:2, 2:18:2] = 60000, 60000
    image.PixelData = pixels.tobytes()


def each_overlaid(images: Images) -> None:
    for data in images.values():
        data.add_new(0x60000022, "LO", "a description")


RISKS: dict[str, tuple[str, Callable[[Images], None]]] = {
    "header says burned in": ("says that text is burned", each(BurnedInAnnotation="YES")),
    "secondary capture": ("secondary capture", each(ConversionType="WSD")),
    "overlay plane": ("overlay plane", each_overlaid),
    "letters in the pixels": (
        "slice 1, rows 3 to 8",
        lambda images: [marked(i) for i in images.values()] and None,
    ),
}


@pytest.mark.parametrize("name", RISKS)
def test_what_may_still_name_a_patient_is_reported(name: str, tmp_path: Path) -> None:
    said, change = RISKS[name]
    images: Images = stack()
    assert risks_of(read_cine(write(tmp_path / "clean", list(images.values())))) == ()
    change(images)
    (risk,) = risks_of(read_cine(write(tmp_path / "in", list(images.values()))))
    assert said in risk


@needs_real
def test_real_series_per_slice_become_one_cine() -> None:
    cine = read_cine(REAL / "dicom" / "sax_cine_3t")
    assert cine.values.shape == (25, 6, 208, 256)
    assert cine.spacing_mm[0] == pytest.approx(17.7, abs=0.01)
