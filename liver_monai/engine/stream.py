"""Logits of a CT, of a few slices at a time, and the labels that they become on the CT's own grid."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from liver_monai.data.grid import SliceResampler
from liver_monai.data.slabs import by_slice
from liver_monai.data.slices import ModelSlices, RasSlices
from liver_monai.engine.memory import is_out_of_memory
from liver_monai.errors import InputError
from liver_monai.io.probabilities import map_slice
from liver_monai.model.network import Logits
from liver_monai.spec import BACKGROUND

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class MarkedLogits:
    """Logits of a slice, and where they are not the background's.

    Attributes:
        logits: ``(3, H, W)``.
        rows, columns: ``(H,)`` and ``(W,)`` bool on the CPU: those with a label.
    """

    logits: torch.Tensor
    rows: torch.Tensor
    columns: torch.Tensor

    @classmethod
    def of(cls, logits: torch.Tensor) -> MarkedLogits:
        """Look where they are."""
        is_marked = labels_of(logits) != BACKGROUND
        return cls(logits=logits, rows=is_marked.any(dim=1).cpu(), columns=is_marked.any(dim=0).cpu())


class LogitStream:
    """The logits of a CT's slices on the model grid, computed a batch of slabs at a time.

    Attributes:
        kept: logits ``(3, H, W)`` that are taken from here instead of being computed again.

    Args:
        slices: of the CT.
        network: slabs ``(B, slab_size, H, W)`` -> logits ``(B, output_slices * 3, H, W)``.
        output_slices: of the network. A CT's slices are taken in blocks of so many, each of them in one pass, from the
            first slice on: whatever is looked at, a slice lies in the same place of the same slab.
        batch_size: slabs a forward pass; halved, for what is left of the CT, where they do not fit into memory.
    """

    def __init__(self, slices: ModelSlices, network: Logits, *, batch_size: int, output_slices: int = 1) -> None:
        self.slices = slices
        self._network = network
        self._batch_size = batch_size
        self.output_slices = output_slices
        self.kept: dict[int, torch.Tensor] = {}

    def compute(self, wanted: Iterable[int]) -> Iterator[tuple[int, torch.Tensor]]:
        """Slices of the model grid in ascending order, and the logits of each."""
        blocks: dict[range, set[int]] = {}
        for z in wanted:
            blocks.setdefault(self.block(z), set()).add(z)
        for block, logits in self._passes(list(blocks)):
            yield from ((z, each) for z, each in zip(block, logits, strict=True) if z in blocks[block])

    def block(self, z: int) -> range:
        """The slices that are segmented in one pass with a slice; the last block may reach beyond the CT."""
        first = z - z % self.output_slices
        return range(first, first + self.output_slices)

    def _passes(self, blocks: list[range]) -> Iterator[tuple[range, torch.Tensor]]:
        """Blocks and their logits ``(output_slices, 3, H, W)``."""
        while blocks:
            chosen = blocks[: self._batch_size]
            logits = self._logits_if_they_fit([block[len(block) // 2] for block in chosen])
            if logits is None:
                self._batch_size = len(chosen) // 2
                logger.warning("out of memory with %d slabs a pass, going on with %d", len(chosen), self._batch_size)
                continue
            yield from zip(chosen, by_slice(logits), strict=True)
            del blocks[: len(chosen)]

    def _logits_if_they_fit(self, chosen: Sequence[int]) -> torch.Tensor | None:
        try:
            return self._network(torch.stack([self.slices.slab(z) for z in chosen]))
        except Exception as error:  # what memory is short of depends on who asks for it
            if not is_out_of_memory(error):
                raise
            if len(chosen) == 1:
                raise InputError(
                    "not even one slab a pass fits into memory; end other programs, take another --device, or a "
                    "bundle of a smaller network"
                ) from error
        return None  # here, where the error holds no tensor any more

    def between(self, wanted: range) -> Iterator[tuple[int, dict[int, MarkedLogits]]]:
        """Slices of the CT in ascending order, and those of the model grid that each is made of, with their logits."""
        sources = [self.slices.to_native.sources(z) for z in wanted]
        needed = sorted({source for each in sources for source in each} - self.kept.keys())
        computed = self.compute(needed)
        held = {source: MarkedLogits.of(logits) for source, logits in self.kept.items()}
        for z, own in zip(wanted, sources, strict=True):
            held = {source: marked for source, marked in held.items() if source >= own[0]}
            while any(source not in held for source in own):
                source, logits = next(computed)
                held[source] = MarkedLogits.of(logits)
            yield z, {source: held[source] for source in own}

    def fill(self, mask: RasSlices, wanted: range, *, maps: Mapping[str, RasSlices] | None = None) -> None:
        """Write the labels of slices of the CT into its mask, and what ``maps`` are named after into those."""
        resampler = self.slices.to_native
        for z, sources in self.between(wanted):
            mask[z] = labels_on_ct(z, sources, resampler)
            if maps:
                logits = {source: marked.logits for source, marked in sources.items()}
                probabilities = resampler.slice_at(z, logits).softmax(dim=0)
            for name, slices in (maps or {}).items():
                slices[z] = map_slice(name, probabilities).cpu()


def labels_of(logits: torch.Tensor) -> torch.Tensor:
    """``logits.argmax(dim=0)`` as uint8; comparing planes is 20 times faster on a CPU than reducing three values."""
    best, labels = logits[0], torch.zeros(logits.shape[1:], dtype=torch.uint8, device=logits.device)
    for label in range(1, len(logits)):
        labels.masked_fill_(logits[label] > best, label)
        best = torch.maximum(best, logits[label])
    return labels


def labels_on_ct(z: int, sources: Mapping[int, MarkedLogits], resampler: SliceResampler) -> torch.Tensor:
    """Labels ``(X, Y)`` of slice ``z`` of a CT, interpolated where they can be anything but background only.

    Interpolation is a mean of its sources: where all of these are background, so is the mean.
    """
    labels = torch.full((len(resampler.along_x), len(resampler.along_y)), BACKGROUND, dtype=torch.uint8)
    marked_rows = torch.stack([marked.rows for marked in sources.values()]).any(dim=0)
    if marked_rows.any():
        marked_columns = torch.stack([marked.columns for marked in sources.values()]).any(dim=0)
        rows, from_rows, along_x = _reached(resampler.along_x, marked_rows)
        columns, from_columns, along_y = _reached(resampler.along_y, marked_columns)
        part = resampler.blend(z, {z: marked.logits[:, from_rows, from_columns] for z, marked in sources.items()})
        labels[rows, columns] = labels_of(along_x.to(part.device) @ part @ along_y.T.to(part.device)).cpu()
    return labels


def _reached(matrix: torch.Tensor, is_marked: torch.Tensor) -> tuple[slice, slice, torch.Tensor]:
    """The outputs that marked inputs go into, the inputs that these outputs are made of, and the weights between."""
    outputs = _extent((matrix[:, is_marked] != 0).any(dim=1))
    inputs = _extent((matrix[outputs] != 0).any(dim=0))
    return outputs, inputs, matrix[outputs, inputs]


def _extent(is_in: torch.Tensor) -> slice:
    places = is_in.nonzero()
    return slice(int(places[0]), int(places[-1]) + 1)
