"""DICOM in: what a folder, a zip or a file holds, one volume of it, and masks as hospitals and data sets keep them."""

from liver_monai.io.dicom.series import DicomVolume, choose_volumes, find_dicom_volumes, only_volume

__all__ = ["DicomVolume", "choose_volumes", "find_dicom_volumes", "only_volume"]
