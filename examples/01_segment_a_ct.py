"""Segment one CT with a trained network: the mask lies on the CT's own grid.

    python examples/01_segment_a_ct.py ct.nii.gz RUN

RUN is a folder that `liver-monai train` left, or the second example.
"""

from __future__ import annotations

import sys

import nibabel as nib
import numpy as np

from liver_monai import segment


def main(ct: str, run: str) -> None:
    """Write ``mask.nii.gz`` here and say how large liver and tumours are."""
    mask = segment(ct, bundle=run)  # (1, X, Y, Z): 0 background, 1 liver, 2 tumour
    labels, affine = mask[0].numpy(), np.asarray(mask.affine)

    image = nib.load(ct)
    assert labels.shape == image.shape
    assert np.allclose(affine, image.affine)

    voxel_ml = abs(np.linalg.det(affine[:3, :3])) / 1000
    print(f"liver {np.count_nonzero(labels) * voxel_ml:.0f} mL")  # a tumour is part of the liver
    print(f"tumours {np.count_nonzero(labels == 2) * voxel_ml:.1f} mL")
    nib.save(nib.Nifti1Image(labels, affine), "mask.nii.gz")


if __name__ == "__main__":
    main(*sys.argv[1:])
