"""An application for MONAI Deploy: a DICOM series in, a DICOM segmentation of the liver and its tumours out.

    pip install -r requirements.txt
    python app.py -i FOLDER_OF_DICOM -o FOLDER_FOR_RESULTS -m RUN     # RUN: what liver-monai train left

Deploy's operators read the series and write the segmentation; what is between is the bundle's ``inference.json``, and
the mask is that of ``liver-monai predict``. Run with monai-deploy-app-sdk 4.0.0. Research use only.
"""

from __future__ import annotations

from pathlib import Path

from holoscan.conditions import CountCondition
from monai.deploy.core import AppContext, Application, Image, IOType
from monai.deploy.operators import (
    DICOMDataLoaderOperator,
    DICOMSegmentationWriterOperator,
    DICOMSeriesSelectorOperator,
    DICOMSeriesToVolumeOperator,
    IOMapping,
    MonaiBundleInferenceOperator,
)
from monai.deploy.operators.dicom_seg_writer_operator import SegmentDescription
from pydicom.sr.codedict import codes

from liver_monai import __version__

AXIAL_CT = """
{"selections": [{
    "name": "CT",
    "conditions": {"Modality": "CT", "ImageType": ["PRIMARY", "ORIGINAL"], "ImageOrientationPatient": "Axial"}
}]}
"""
SERIES = "study_selected_series_list"


class LiverApplication(Application):
    """Loader, selector and volume; the bundle; the writer, which takes patient and study from the series."""

    def compose(self) -> None:
        """Build the operators and connect them."""
        context = Application.init_app_context(self.argv)
        loader = DICOMDataLoaderOperator(
            self, CountCondition(self, 1), input_folder=Path(context.input_path), name="loader"
        )
        selector = DICOMSeriesSelectorOperator(self, rules=AXIAL_CT, name="selector")
        volume = DICOMSeriesToVolumeOperator(self, name="volume")
        network = self._network(context)
        writer = DICOMSegmentationWriterOperator(
            self,
            segment_descriptions=[_segment("liver", codes.SCT.Liver), _segment("tumor", codes.SCT.Neoplasm)],
            output_folder=Path(context.output_path),
            custom_tags={"SeriesDescription": "AI liver segmentation, research use only"},
            name="writer",
        )
        self.add_flow(loader, selector, {("dicom_study_list", "dicom_study_list")})
        self.add_flow(selector, volume, {(SERIES, SERIES)})
        self.add_flow(volume, network, {("image", "image")})
        self.add_flow(selector, writer, {(SERIES, SERIES)})
        self.add_flow(network, writer, {("pred", "seg_image")})

    def _network(self, context: AppContext) -> MonaiBundleInferenceOperator:
        """The bundle's folder, with configs and weights."""
        context.models = None  # else the SDK takes the folder for a model, and that for one without a predictor
        return MonaiBundleInferenceOperator(
            self,
            app_context=context,
            bundle_path=context.model_path,
            input_mapping=[IOMapping("image", Image, IOType.IN_MEMORY)],
            output_mapping=[IOMapping("pred", Image, IOType.IN_MEMORY)],
            name="network",
        )


def _segment(label: str, structure: object) -> SegmentDescription:
    is_liver = label == "liver"
    return SegmentDescription(
        segment_label=label,
        segmented_property_category=codes.SCT.Organ if is_liver else codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=structure,
        algorithm_name="liver-monai",
        algorithm_version=__version__,
    )


if __name__ == "__main__":
    LiverApplication().run()
