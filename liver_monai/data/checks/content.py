"""Which CTs hold the same image, whatever their headers, orientation, padding or file type say.

Every slice along every axis gets a number that depends on how often each Hounsfield unit occurs in it, and on nothing
else: flips and swapped axes only reorder the numbers. Values outside of ``CONTENT_WINDOW_HU`` count as nothing, so
padding, metal and the usual clipping windows change no number either. Scans that share slices are found even when one
of them lacks the others. Where every voxel changed a little (noise, smoothing, another rounding), the mean HU of the
slices along each axis still tells that it is the same patient.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np

CONTENT_WINDOW_HU = (-150, 200)
"""Inside of all windows that liver CTs are commonly clipped to, such as -200 to 250 and -160 to 240."""

LEAST_VOXELS = 64
"""Inside of the window, in a slice that counts: two with equal counts of so many noisy values are one slice."""

PROFILE_SAMPLES = 32
"""About one a centimetre; scans of the same body on other grids then have profiles that can be compared."""
SIMILAR_HU = 2.0
"""Root mean square between two profiles of one scan with other noise or rounding; those of two patients, or of two
phases of one, differ by more."""

SHARED_SLICES = 0.5
"""So much of the shorter scan must lie in the other: a few equal slices may be blank, half of them are not."""


@dataclass(frozen=True, kw_only=True)
class Content:
    """An image as numbers that neither flips nor swapped axes change, but for their order.

    Args:
        slices: for each stored axis the numbers of its slices, those with too little in them left out.
        profiles: ``(3, PROFILE_SAMPLES)``, mean HU of the slices along each stored axis, clipped to the window.
    """

    slices: tuple[np.ndarray, np.ndarray, np.ndarray]
    profiles: np.ndarray

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits, equal for equal images."""
        axes = sorted(np.sort(numbers).tobytes() for numbers in self.slices)
        return hashlib.blake2b(b"|".join(axes), digest_size=8).hexdigest()


def measure_content(voxels: np.ndarray) -> Content:
    """The content of an ``(X, Y, Z)`` volume in Hounsfield units, a plane at a time."""
    numbers = [np.zeros(size, dtype=np.uint64) for size in voxels.shape]
    counts, sums = ([np.zeros(size, dtype=np.int64) for size in voxels.shape] for _ in range(2))
    low, high = CONTENT_WINDOW_HU
    tokens = _tokens(high - low + 1)
    for x, plane in enumerate(voxels):
        whole = np.rint(plane) if plane.dtype.kind == "f" else plane
        values = np.clip(whole, low, high).astype(np.int16) - low
        for totals, per_voxel in (
            (numbers, tokens[values]),
            (counts, (values > 0) & (values < high - low)),
            (sums, values),
        ):
            _add_plane(totals, x, per_voxel)
    sizes = [voxels.size // size for size in voxels.shape]
    means = [total / size + low for total, size in zip(sums, sizes, strict=True)]
    first, second, third = (each[count >= LEAST_VOXELS] for each, count in zip(numbers, counts, strict=True))
    return Content(slices=(first, second, third), profiles=np.stack([_resample(profile) for profile in means]))


@dataclass(frozen=True, kw_only=True)
class Match:
    """Two images, by their places in a list, that show the same.

    Args:
        kind: ``same`` voxels, one a ``part`` of the other's, or ``similar``: another noise, rounding or grid.
        n_shared: slices along one axis that they share; 0 for ``similar``.
        difference_hu: root mean square between their profiles.
    """

    first: int
    second: int
    kind: str
    n_shared: int
    difference_hu: float


def find_matches(contents: Sequence[Content]) -> Iterator[Match]:
    """All pairs that show the same image, in the order of the list."""
    profiles = np.stack([content.profiles for content in contents]) if contents else np.zeros((0, 3, PROFILE_SAMPLES))
    axes = [[frozenset(numbers.tolist()) for numbers in content.slices] for content in contents]
    everything = [frozenset().union(*each) for each in axes]
    digests = [content.digest for content in contents]
    for second in range(1, len(contents)):
        differences_hu = _profile_differences(profiles[:second], profiles[second])
        for first in range(second):
            n_shared = 0 if everything[first].isdisjoint(everything[second]) else _shared(axes[first], axes[second])
            difference_hu = float(differences_hu[first])
            kind = "same" if digests[first] == digests[second] and everything[first] else ""
            kind = kind or ("part" if n_shared else "similar" if difference_hu <= SIMILAR_HU else "")
            if kind:
                yield Match(first=first, second=second, kind=kind, n_shared=n_shared, difference_hu=difference_hu)


def _shared(first: Sequence[frozenset[int]], second: Sequence[frozenset[int]]) -> int:
    """Slices in common along the pair of axes where the shorter scan has the largest share of them, 0 if too few."""
    pairs = [(len(a & b), min(len(a), len(b))) for a in first for b in second if a and b]
    share, n_shared = max((n / size, n) for n, size in pairs)
    return n_shared if share >= SHARED_SLICES else 0


def _profile_differences(profiles: np.ndarray, profile: np.ndarray) -> np.ndarray:
    """RMS between each of ``(N, 3, S)`` and ``(3, S)`` at the best order and direction of the axes; the worst axis."""
    apart = [
        [np.sqrt(np.square(profiles[:, i] - profile[j, ::step]).mean(axis=1)) for step in (1, -1)]
        for i in range(3)
        for j in range(3)
    ]
    best = np.min(np.reshape(apart, (3, 3, 2, len(profiles))), axis=2)
    orders = [np.max([best[i, j] for i, j in enumerate(order)], axis=0) for order in permutations(range(3))]
    return np.asarray(np.min(orders, axis=0))


def _add_plane(totals: Sequence[np.ndarray], x: int, per_voxel: np.ndarray) -> None:
    """Add a plane ``(Y, Z)`` at ``x`` to the totals of the slices along x, y and z."""
    rows = per_voxel.sum(axis=1, dtype=totals[1].dtype)
    totals[0][x] = rows.sum(dtype=totals[0].dtype)
    totals[1][:] += rows
    totals[2][:] += per_voxel.sum(axis=0, dtype=totals[2].dtype)


def _tokens(n_values: int) -> np.ndarray:
    """A random number for each value inside of the window, none for its ends; sums of them may wrap."""
    tokens = np.random.default_rng(20_170_401).integers(0, 2**64 - 1, n_values, dtype=np.uint64, endpoint=True)
    tokens[[0, -1]] = 0
    return tokens


def _resample(profile: np.ndarray) -> np.ndarray:
    """Means of ``PROFILE_SAMPLES`` equal parts of a line, which a reversal of the line only reverses."""
    edges = np.linspace(0, len(profile), PROFILE_SAMPLES + 1)
    total = np.interp(edges, np.arange(len(profile) + 1), np.concatenate([[0.0], np.cumsum(profile)]))
    return np.asarray(np.diff(total) / np.diff(edges))
