"""From files to what the network sees, built from a spec alone; MONAI does the work."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    MapTransform,
    Orientationd,
    RandAdjustContrastd,
    RandAffined,
    RandFlipd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandomizableTransform,
    RandScaleIntensityd,
    RandShiftIntensityd,
    ScaleIntensityRanged,
    SelectItemsd,
    ToTensord,
)

from liver_monai.data.grid import to_model_grid
from liver_monai.errors import InputError
from liver_monai.io.limits import require_place
from liver_monai.io.volumes import read_mask, read_volume, require_same_grid
from liver_monai.spec import ModelSpec

ORIENTATION = "RAS"


class LoadImageVolumed(MapTransform):
    """Read ``image`` as a volume and ``label`` as a mask, with one clear line for a file that cannot be used.

    Where the item has ``spacing_mm``, it takes the place of what the headers say.

    MONAI's own ``LoadImaged`` hides a reader's error in a page of tracebacks. The name keeps ``LoadImage``, by which
    MONAI Deploy knows the transform that its own loader takes the place of.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace the path under every key by a ``(1, X, Y, Z)`` MetaTensor."""
        keys = set(self.key_iterator(data))
        read = {key: read_volume(data[key]) for key in keys - {"label"}}
        if "label" in keys:
            read["label"] = read_mask(data["label"], grid=read.get("image"))
        if "image" in read and "label" in read:
            require_same_grid(read["label"], read["image"])
        if "spacing_mm" in data:
            read = {key: with_spacing(volume, data["spacing_mm"]) for key, volume in read.items()}
        return {**data, **read}


def with_spacing(volume: MetaTensor, spacing_mm: Sequence[float]) -> MetaTensor:
    """The volume with another spacing along its own axes; first voxel and directions stay.

    Raises:
        InputError: it is so large that no scan reaches so far.
    """
    affine = np.asarray(volume.affine, dtype=np.float64).copy()
    affine[:3, :3] *= np.asarray(spacing_mm) / np.linalg.norm(affine[:3, :3], axis=0)
    require_place(volume.meta["filename_or_obj"], volume.shape[1:], affine)
    affines = {name: torch.from_numpy(affine.copy()) for name in ("affine", "original_affine")}
    return MetaTensor(volume.as_tensor(), meta={**volume.meta, **affines})


class ToModelGridd(MapTransform):
    """``to_model_grid`` for dictionaries; ``label`` is resampled as a mask."""

    def __init__(self, keys: KeysCollection, *, spacing_mm: tuple[float, float, float]) -> None:
        super().__init__(keys)
        self.spacing_mm = spacing_mm

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Resample every key."""
        resampled = {
            key: to_model_grid(data[key], spacing_mm=self.spacing_mm, is_mask=key == "label")
            for key in self.key_iterator(data)
        }
        return {**data, **resampled}


def preprocessing(spec: ModelSpec, *, by_slice: bool = False) -> Compose:
    """From the path of a CT to the windowed volume ``(1, H, W, D)`` on the model grid, air 0 and dense bone 1.

    With ``by_slice`` only as far as ``(1, X, Y, Z)`` in HU as stored: ``SlabInferer`` does the rest, the same, to each
    slice that it looks at, so that no second volume is held.
    """
    read = [LoadImageVolumed("image"), EnsureChannelFirstd("image")]  # MONAI Deploy loads for itself, as (X, Y, Z)
    if by_slice:
        return Compose(read)
    return Compose(
        [
            *read,
            Orientationd("image", axcodes=ORIENTATION, labels=None),
            ToModelGridd("image", spacing_mm=spec.spacing_mm),
            hu_window(spec),
        ]
    )


def model_grid(spec: ModelSpec) -> Compose:
    """From the paths of a CT and its label to both on the model grid, in HU: what the store keeps for training."""
    # flat, because MONAI's caching data sets take a nested Compose for random and would do it anew each time
    return Compose([LoadImageVolumed(("image", "label")), *to_grid(spec).transforms])


def to_grid(spec: ModelSpec) -> Compose:
    """From a CT and its label as they were read to both on the model grid."""
    keys = ("image", "label")
    return Compose(
        [Orientationd(keys, axcodes=ORIENTATION, labels=None), ToModelGridd(keys, spacing_mm=spec.spacing_mm)]
    )


class _RandNeighborsd(RandomizableTransform, MapTransform):
    """Other slices of a slab in the places of the centre's neighbours, each with ``prob``; ``option`` is its name."""

    option: ClassVar[str]

    def __init__(self, keys: KeysCollection, *, prob: float) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self)
        _require_share(self.option, prob)
        self.share = prob

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Choose slices of slabs ``(slab_size, H, W)``, the same of every key."""
        shown = self._shown(data[self.keys[0]].shape[0])
        return {**data, **{key: data[key][shown] for key in self.key_iterator(data)}}

    @abstractmethod
    def _shown(self, n_slices: int) -> Sequence[int]:
        """Which slice stands in each place."""


class RandDropNeighborsd(_RandNeighborsd):
    """Put the slice nearer to the centre in the place of a neighbour, each neighbour with ``prob``, as where a CT ends.

    A network that has seen that relies less on neighbours, which thick or uneven slices make strange.

    Raises:
        InputError: a share that is none.
    """

    option = "drop_neighbors"

    def _shown(self, n_slices: int) -> Sequence[int]:
        shown = list(range(n_slices))
        for distance in range(1, n_slices // 2 + 1):
            for side in (-1, 1):
                if self.R.random() < self.share:
                    shown[n_slices // 2 + side * distance] = shown[n_slices // 2 + side * (distance - 1)]
        return shown


class RandJitterNeighborsd(_RandNeighborsd):
    """Put the slice before or after it in the place of a neighbour of the centre, each neighbour with ``prob``.

    As if slices were not as far apart as a header says; the first and last of a slab have nothing beyond them and may
    stay what they are.

    Raises:
        InputError: a share that is none.
    """

    option = "jitter_neighbors"

    def _shown(self, n_slices: int) -> Sequence[int]:
        places = np.arange(n_slices)
        is_jittered = (self.R.random_sample(n_slices) < self.share) & (places != n_slices // 2)
        steps = self.R.choice((-1, 1), n_slices)
        return [int(place) for place in np.clip(places + is_jittered * steps, 0, n_slices - 1)]


def augmentation(
    spec: ModelSpec, *, drop_neighbors: float = 0.0, jitter_neighbors: float = 0.0, mirroring: float = 0.0
) -> Compose:
    """Window a slab ``(slab_size, H, W)`` in HU and vary it as scanners and patients vary.

    Args:
        spec: hu_window and roi_size.
        drop_neighbors: how often each neighbour of the centre slice is dropped (``RandDropNeighborsd``).
        jitter_neighbors: how often each of them shows the slice before or after it (``RandJitterNeighborsd``).
        mirroring: how often left and right change places; never, unless asked for: the liver is on the right.

    Raises:
        InputError: a share that is none.
    """
    _require_share("mirroring", mirroring)
    keys = ("image", "label")
    dropping = [RandDropNeighborsd("image", prob=drop_neighbors)] if drop_neighbors else []
    jittering = [RandJitterNeighborsd("image", prob=jitter_neighbors)] if jitter_neighbors else []
    flipping = [RandFlipd(keys, prob=mirroring, spatial_axis=0)] if mirroring else []
    return Compose(
        [
            *dropping,
            *jittering,
            *flipping,
            hu_window(spec),
            RandAffined(
                keys,
                prob=0.7,
                rotate_range=np.pi / 12,
                scale_range=0.15,
                shear_range=0.1,
                translate_range=[size // 16 for size in spec.roi_size],
                mode=("bilinear", "nearest"),
                padding_mode="zeros",
            ),
            RandScaleIntensityd("image", factors=0.1, prob=0.3),
            RandShiftIntensityd("image", offsets=0.05, prob=0.3),
            RandAdjustContrastd("image", gamma=(0.8, 1.25), prob=0.2),
            RandGaussianNoised("image", std=0.03, prob=0.2),
            RandGaussianSmoothd("image", sigma_x=(0.3, 0.8), sigma_y=(0.3, 0.8), sigma_z=(0.3, 0.8), prob=0.1),
            ToTensord(keys, track_meta=False),
            SelectItemsd(keys),
        ]
    )


def _require_share(name: str, share: float) -> None:
    if not 0 <= share <= 1:
        raise InputError(f"{name} is {share}; it must lie between 0 and 1")


def hu_window(spec: ModelSpec) -> ScaleIntensityRanged:
    """HU to 0 at the window's low end and below, 1 at its high end and above."""
    low, high = spec.hu_window
    return ScaleIntensityRanged("image", a_min=low, a_max=high, b_min=0.0, b_max=1.0, clip=True)
