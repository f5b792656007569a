"""DICOM as scanners and archives write it, from an array: for tests, which plant faults in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import gdcm
import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    RLELossless,
    generate_uid,
)
from pydicom.valuerep import DSfloat

INTERCEPT_HU = -1024
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def ds(*numbers: float) -> list[DSfloat]:
    """Decimal strings hold 16 characters; this is what rounds a position."""
    return [DSfloat(float(number), auto_format=True) for number in numbers]


def ct_slices(
    hu: np.ndarray,
    affine: np.ndarray,
    *,
    series_uid: str | None = None,
    series_number: int = 1,
    acquisition: int | None = 1,
    first_instance: int = 1,
) -> list[Dataset]:
    """One data set a slice of ``hu`` ``(X, Y, Z)``, in the order of the array; columns run along X and rows along Y."""
    uid = series_uid or generate_uid()
    return [
        _slice(hu[:, :, z], affine, z, uid, series_number, acquisition, first_instance + z) for z in range(hu.shape[2])
    ]


def _slice(plane, affine, z, series_uid, series_number, acquisition, instance) -> Dataset:
    lps = LPS_TO_RAS @ affine
    between_columns_mm, between_rows_mm = np.linalg.norm(lps[:3, :2], axis=0)
    dataset = _empty(CTImageStorage)
    dataset.SeriesInstanceUID = series_uid
    dataset.SeriesNumber = series_number
    dataset.SeriesDescription = "phantom"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    if acquisition is not None:
        dataset.AcquisitionNumber = acquisition
    dataset.InstanceNumber = instance
    dataset.ImagePositionPatient = ds(*(lps @ [0, 0, z, 1])[:3])
    dataset.ImageOrientationPatient = ds(*lps[:3, 0] / between_columns_mm, *lps[:3, 1] / between_rows_mm)
    dataset.PixelSpacing = ds(between_rows_mm, between_columns_mm)
    dataset.SliceThickness = ds(np.linalg.norm(lps[:3, 2]))[0]
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = INTERCEPT_HU, 1, "HU"
    stored = plane.T.astype(int) - INTERCEPT_HU
    set_pixels(dataset, stored.astype(np.uint16 if stored.min() >= 0 else np.int16))
    return dataset


def localizer(series_uid: str) -> Dataset:
    """The overview that a scan is planned on, in the same series."""
    plane = np.zeros((30, 20), np.int16)
    affine = np.array([[0, 0, 1, 5], [-2, 0, 0, 80], [0, -2, 0, 90], [0, 0, 0, 1.0]])
    dataset = _slice(plane, affine, 0, series_uid, 1, 1, 0)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    return dataset


def enhanced_ct(hu: np.ndarray, affine: np.ndarray) -> Dataset:
    """All slices as frames of one file, the last first."""
    single = ct_slices(hu, affine)[::-1]
    dataset = _empty(EnhancedCTImageStorage)
    dataset.SeriesInstanceUID, dataset.SeriesNumber = single[0].SeriesInstanceUID, 1
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    dataset.NumberOfFrames = len(single)
    set_pixels(dataset, np.stack([each.pixel_array for each in single]))
    dataset.SharedFunctionalGroupsSequence = [
        _group(
            PixelMeasuresSequence={"PixelSpacing": single[0].PixelSpacing},
            PlaneOrientationSequence={"ImageOrientationPatient": single[0].ImageOrientationPatient},
            PixelValueTransformationSequence={"RescaleIntercept": INTERCEPT_HU, "RescaleSlope": 1, "RescaleType": "HU"},
        )
    ]
    dataset.PerFrameFunctionalGroupsSequence = [
        _group(
            FrameContentSequence={"FrameAcquisitionNumber": 1},
            PlanePositionSequence={"ImagePositionPatient": each.ImagePositionPatient},
            CTImageFrameTypeSequence={"FrameType": ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]},
        )
        for each in single
    ]
    return dataset


def set_pixels(dataset: Dataset, pixels: np.ndarray) -> None:
    """Pixels ``([frames,] rows, columns)``, every bit of which is stored."""
    bits = pixels.dtype.itemsize * 8
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.PixelData = np.ascontiguousarray(pixels).tobytes()
    dataset["PixelData"].VR = "OW"


def _group(**sequences: dict) -> Dataset:
    group = Dataset()
    for keyword, values in sequences.items():
        item = Dataset()
        for name, value in values.items():
            setattr(item, name, value)
        setattr(group, keyword, [item])
    return group


def _empty(sop_class: str) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, generate_uid()
    dataset.Modality = "CT"
    dataset.StudyInstanceUID, dataset.FrameOfReferenceUID = generate_uid(), generate_uid()
    dataset.PatientName, dataset.PatientID = "Secret^Name", "secret-id"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = sop_class
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


def write(folder: Path, datasets: Sequence[Dataset], *, seed: int | None = None, prefix: str = "IM") -> Path:
    """Write data sets as files, in an order of names that a seed shuffles."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = np.arange(len(datasets)) if seed is None else np.random.default_rng(seed).permutation(len(datasets))
    for number, dataset in zip(numbers, datasets, strict=True):
        dataset.save_as(folder / f"{prefix}{number:04d}", enforce_file_format=True)
    return folder


def export(folder: Path, hu: np.ndarray, affine: np.ndarray, *, is_upward: bool = True, seed: int = 0) -> Path:
    """A CT series of one study; the array's slices from the feet to the head or the other way round."""
    datasets = ct_slices(hu, affine)
    if not is_upward:
        datasets = datasets[::-1]
        for number, dataset in enumerate(datasets, start=1):
            dataset.InstanceNumber = number
    study, frame = generate_uid(), generate_uid()
    for dataset in datasets:
        dataset.StudyInstanceUID, dataset.FrameOfReferenceUID = study, frame
    return write(folder, datasets, seed=seed)


def compress(folder: Path, syntax: str) -> None:
    """Compress the pixels of every file, by the name of a transfer syntax of gdcm; RLE is pydicom's."""
    from pydicom import dcmread

    for file in sorted(folder.iterdir()):
        if syntax == "RLELossless":
            dataset = dcmread(file)
            dataset.compress(RLELossless)
            dataset.save_as(file)
            continue
        reader = gdcm.ImageReader()
        reader.SetFileName(str(file))
        assert reader.Read()
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer = gdcm.ImageWriter()
        writer.SetFileName(str(file))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
