"""Synthetic CTs of the upper abdomen: a patient in millimetres, contrast, tumours, and a scan of them."""

from liver_monai.data.phantom.ct import Phantom, make_phantom, write_phantoms

__all__ = ["Phantom", "make_phantom", "write_phantoms"]
