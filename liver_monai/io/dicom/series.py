"""Which volumes a folder, a zip or a file holds: series found, phases told apart, everything else left out and said."""

from __future__ import annotations

import logging
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from liver_monai.errors import InputError
from liver_monai.io.dicom.archive import DICOM_SUFFIXES, Open, is_dicom, open_archive
from liver_monai.io.dicom.frames import SEGMENTATION, SPLITTING, Frame, read_frames
from liver_monai.io.dicom.geometry import do_overlap, is_same_plane, position_key
from liver_monai.io.files import file_hash, files_hash

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class DicomVolume:
    """One volume of a DICOM series; its headers are known, its voxels are still on disk.

    Attributes:
        path: the folder, zip or multi-frame file it was found in.
        name: of results made from it: that of the path or, where the path holds several volumes, what tells them apart.
        number: in the listing of ``path``, from 1.
        frames: its slices, in no order.
        part, n_parts: of a series that holds several volumes, phases of the contrast for instance.
    """

    path: Path
    name: str
    number: int
    frames: tuple[Frame, ...] = field(repr=False)
    part: int = 1
    n_parts: int = 1

    @property
    def series_uid(self) -> str:
        """SeriesInstanceUID; empty where the headers have none."""
        return self.frames[0].series[0]

    @property
    def description(self) -> str:
        """SeriesDescription."""
        return self.frames[0].series[2]

    @property
    def n_slices(self) -> int:
        """How many slices it has."""
        return len(self.frames)

    @property
    def files(self) -> tuple[str, ...]:
        """Names of its files in ``path``."""
        return tuple(sorted({frame.file for frame in self.frames}))

    @property
    def paths(self) -> list[Path]:
        """Its files on disk; of a zip, that zip."""
        return [self.path / name for name in self.files] if self.path.is_dir() else [self.path]

    def __str__(self) -> str:
        """The path and, where it holds several volumes, the name of this one."""
        return str(self.path if self.name == _stem(self.path) else self.path / self.name)

    def describe(self) -> str:
        """One entry of a listing."""
        part = f", part {self.part} of {self.n_parts}" if self.n_parts > 1 else ""
        description = f" '{self.description}'" if self.description else ""
        return f"{self.number}: series {self.series_uid or 'without UID'}{part}{description}, {self.n_slices} slices"

    def sha256(self) -> str:
        """One hash of all its files, by name; of a zip, that of the zip."""
        if not self.path.is_dir():
            return file_hash(self.path)
        return files_hash(self.path, self.files)


@dataclass(frozen=True, kw_only=True)
class DicomContent:
    """What a path holds: CTs, series of masks, names of segmentations, and what each of the other images is."""

    cts: list[DicomVolume]
    masks: list[DicomVolume]
    segmentations: list[str]
    others: Counter[str]

    def left_out(self) -> str:
        """``"1 localizer, 6 segmentation (SEG)"``."""
        counts = self.others + Counter({"series of 8-bit masks": len(self.masks)})
        return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))


def find_dicom_volumes(path: str | Path) -> list[DicomVolume]:
    """The CT volumes of a folder (nested, several studies), of a zip or of a multi-frame file; [] without DICOM.

    Localizers, objects that are no CT, and single slices are left out, which is logged.

    Raises:
        InputError: no such path, a zip that cannot be unpacked, or a damaged header.
    """
    path = Path(path).expanduser().resolve()
    content = read_content(path)
    if content.cts and content.left_out():
        logger.warning("%s: left out %s", path, content.left_out())
    return content.cts


def only_volume(path: str | Path, *, series: str | None = None) -> DicomVolume:
    """The one CT volume that a path holds, or that ``series`` chooses.

    Raises:
        InputError: as ``find_dicom_volumes``, no volume, or several: they are listed with what to choose them by.
    """
    path = Path(path).expanduser().resolve()
    volumes = find_dicom_volumes(path)
    if not volumes:
        left_out = read_content(path).left_out()
        raise InputError(
            f"{path}: holds no CT volume in DICOM" + (f", only {left_out}" if left_out else "") + "; give the folder "
            "or zip of a CT series"
        )
    chosen = choose_volumes(volumes, series) if series else volumes
    if len(chosen) > 1:
        raise InputError(f"{path}: holds {len(chosen)} volumes; {_choice(chosen)}")
    return chosen[0]


def choose_volumes(volumes: Sequence[DicomVolume], series: str) -> list[DicomVolume]:
    """The volumes of one series, by its UID, a unique beginning of it, or the number of one in the listing.

    Raises:
        InputError: no series or several match.
    """
    if series.isdecimal():
        chosen = [volume for volume in volumes if volume.number == int(series)]
    else:
        chosen = [volume for volume in volumes if volume.series_uid.startswith(series)]
        exact = [volume for volume in chosen if volume.series_uid == series]
        chosen = exact or chosen
    if len({volume.series_uid for volume in chosen}) == 1:
        return chosen
    verb = "fits several series" if chosen else "fits no series"
    raise InputError(f"--series {series}: {verb} of {volumes[0].path}; {_choice(chosen or volumes)}")


def _choice(volumes: Sequence[DicomVolume]) -> str:
    return f"choose one with --series and its number or UID: {'; '.join(volume.describe() for volume in volumes)}"


def read_content(path: Path) -> DicomContent:
    """Everything in DICOM under a path, by its headers.

    Raises:
        InputError: as ``find_dicom_volumes``.
    """
    frames, others = _scan(path)
    sets = [slices for series in _by_series(frames) for slices in _split(series)]
    single = Counter(_describe_single(slices) for slices in sets if len(slices[0]) == 1)
    volumes = [slices for slices in sets if len(slices[0]) > 1]
    return DicomContent(
        cts=_named(path, [slices for slices in volumes if slices[0][0].is_ct]),
        masks=_named(path, [slices for slices in volumes if not slices[0][0].is_ct]),
        segmentations=[name for name, other in others if other == SEGMENTATION],
        others=Counter(other for _, other in others) + single,
    )


def _scan(path: Path) -> tuple[list[Frame], list[tuple[str, str]]]:
    """The images that may be of a CT, and the name of each other file with what it is."""
    frames: list[Frame] = []
    others: list[tuple[str, str]] = []
    with open_archive(path) as (names, open_file):
        for name in names:
            found, left_out = _read_file(path, name, open_file)
            frames += found
            others += [(name, other) for other in left_out]
    return frames, others


def _read_file(path: Path, name: str, open_file: Open) -> tuple[list[Frame], list[str]]:
    with open_file(name) as file:
        if is_dicom(file):
            try:
                return read_frames(file, name)
            except InputError as error:
                raise InputError(f"{path}: {error}") from error
    if name.lower().endswith(DICOM_SUFFIXES):  # a slice that is not read would be missed by nobody at a volume's end
        raise InputError(f"{path}: {name} is named like DICOM, but is none; fetch it anew or remove it")
    return [], []


def _describe_single(slices: _Set) -> str:
    (frame,), _, _ = slices
    place = f" at {frame.position_mm[2]:.6g} mm" if frame.position_mm else ""
    return f"single slice{place} (no volume)"


_Set = tuple[list[Frame], int, int]
"""The frames of one volume, which part of its series it is, and of how many."""


def _by_series(frames: Iterable[Frame]) -> list[list[Frame]]:
    """Frames of one series, ordered by its number; without a UID the folder stands for the series."""
    groups: dict[tuple[str, str, bool], list[Frame]] = defaultdict(list)
    for frame in frames:
        folder = "" if frame.series[0] else str(PurePosixPath(frame.file).parent)
        groups[frame.series[0], folder, frame.is_ct].append(frame)
    return sorted(groups.values(), key=lambda group: (_folder(group), _number(group[0]), group[0].series[0]))


def _split(series: list[Frame]) -> list[_Set]:
    """The volumes of a series: by plane, and where positions repeat, by phase."""
    planes: list[list[Frame]] = []
    for frame in series:
        same = next((group for group in planes if is_same_plane(group[0].plane, frame.plane)), None)
        if same is None:
            planes.append([frame])
        else:
            same.append(frame)
    parts = [phase for group in planes for phase in _split_phases(group)]
    n_volumes = sum(len(part) > 1 for part in parts)
    numbers = iter(range(1, n_volumes + 1))
    return [(part, next(numbers) if len(part) > 1 else 0, n_volumes) for part in parts]


def _split_phases(frames: list[Frame]) -> list[list[Frame]]:
    """Tell apart what lies at the same positions, by the first stamp that does it; else all stay together.

    There must be as many phases as there are images at the most crowded position: scanners that count a step of the
    table as an acquisition would otherwise have their volume cut into pieces.
    """
    most = max(Counter(position_key(frame) for frame in frames).values())
    if most == 1:
        acquisitions = _by_stamp(frames, 0)
        return acquisitions if do_overlap(acquisitions) else [frames]
    for index in range(len(SPLITTING)):
        phases = _by_stamp(frames, index)
        is_stray = any(len(phase) == 1 for phase in phases) and len(phases) < len(frames)  # one slice is no phase
        if len(phases) == most and not is_stray and all(_is_each_position_once(phase) for phase in phases):
            return phases
    return _by_order(frames, most) or [frames]


def _by_stamp(frames: Iterable[Frame], index: int) -> list[list[Frame]]:
    phases: dict[str, list[Frame]] = defaultdict(list)
    for frame in frames:
        phases[frame.stamps[index]].append(frame)
    return sorted(phases.values(), key=lambda phase: min(frame.instance for frame in phase))


def _by_order(frames: list[Frame], most: int) -> list[list[Frame]]:
    """Phases that follow each other in InstanceNumber, each with all positions; none where that is not so."""
    size, rest = divmod(len(frames), most)
    if rest or len({frame.instance for frame in frames}) < len(frames):
        return []
    ordered = sorted(frames, key=lambda frame: frame.instance)
    phases = [ordered[start : start + size] for start in range(0, len(ordered), size)]
    return phases if all(_is_each_position_once(phase) for phase in phases) and size > 1 else []


def _is_each_position_once(phase: Sequence[Frame]) -> bool:
    return len({position_key(frame) for frame in phase}) == len(phase)


def _named(path: Path, sets: Sequence[_Set]) -> list[DicomVolume]:
    volumes = [
        DicomVolume(path=path, name="", number=number, frames=tuple(frames), part=part, n_parts=n_parts)
        for number, (frames, part, n_parts) in enumerate(sets, start=1)
    ]
    names = _names(volumes, _stem(path))
    return [replace(volume, name=names[volume.number]) for volume in volumes]


def _names(volumes: Sequence[DicomVolume], name: str, *, depth: int = 0, is_branch: bool = False) -> dict[int, str]:
    """A name for each number: of the folders that tell volumes apart and, where they do not, of the series.

    Args:
        name: of the folder that holds them all.
        depth: how many folders down from the path the volumes have in common.
        is_branch: whether folders beside this one hold volumes, too, so that its name is needed below it.
    """
    if len(volumes) < 2:
        return {volume.number: name for volume in volumes}
    groups: dict[str, list[DicomVolume]] = defaultdict(list)
    for volume in volumes:
        groups["/".join(_parts(volume)[depth : depth + 1])].append(volume)
    if len(groups) == 1 and "" not in groups:
        return _names(volumes, name, depth=depth + 1, is_branch=is_branch)
    if len(groups) == 1 or any(not part or UID_LIKE.fullmatch(part) for part in groups):
        return {volume.number: f"{name}_{label}" for volume, label in zip(volumes, _labels(volumes), strict=True)}
    return {
        number: each
        for part, group in groups.items()
        for number, each in _names(
            group, f"{name}_{part}" if is_branch else part, depth=depth + 1, is_branch=True
        ).items()
    }


UID_LIKE = re.compile(r"[\d.]{20,}")


def _labels(volumes: Sequence[DicomVolume]) -> list[str]:
    """Series numbers, with the part where there are several; else the numbers of the listing."""
    labels = [volume.frames[0].series[1] + (f"-{volume.part}" if volume.n_parts > 1 else "") for volume in volumes]
    is_usable = len(set(labels)) == len(labels) and all(re.fullmatch(r"\d+(-\d+)?", label) for label in labels)
    return labels if is_usable else [str(volume.number) for volume in volumes]


def _parts(volume: DicomVolume) -> tuple[str, ...]:
    return PurePosixPath(_folder(volume.frames)).parts


def _folder(frames: Sequence[Frame]) -> str:
    return str(PurePosixPath(min(frame.file for frame in frames)).parent)


def _number(frame: Frame) -> int:
    return int(frame.series[1]) if frame.series[1].isdecimal() else -1


def _stem(path: Path) -> str:
    """``"CT.zip"`` -> ``"CT"``; the dots of a folder's name are part of it."""
    is_suffix = not path.is_dir() and path.suffix.lower() in (".zip", *DICOM_SUFFIXES)
    return path.name[: -len(path.suffix)] if is_suffix else path.name
