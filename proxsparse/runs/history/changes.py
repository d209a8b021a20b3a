"""Which groups changed since the last recorded step: found on the device that holds the masks, counted beside it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from proxsparse.masks.mask_set import MaskSet
from proxsparse.masks.packing import bits_set
from proxsparse.runs.history.coding import BITS_SET, code_type, codes_of, patterns, unpacked

BATCH = 1 << 26  # bytes of packed masks compared at a time: what is laid out for it is small beside the model
WORD = 8  # bytes compared at a time


class Changed(NamedTuple):
    """Groups that changed, ascending, counted through all layers; code before XOR code after; counts of the whole layers
    as they are now (see `proxsparse.runs.history.coding`, summary)."""

    groups: np.ndarray
    changes: np.ndarray
    counts: np.ndarray


class KnownMasks:
    """The masks of the last recorded step: one bit a weight, on the device of the masks.

    Parameters
    ----------
    masks
        Where it begins.
    start, magnitude
        The masks that agreement is counted with.
    """

    def __init__(self, masks: MaskSet, start: MaskSet, magnitude: MaskSet):
        self.n, self.m, self._names = masks.n, masks.m, list(masks)
        # Bytes that a group may touch: rows begin with a byte, and groups of 2, 4 or 8 then never lie across two.
        self._window = 1 if 8 % self.m == 0 else (self.m + 6) // 8 + 1
        self.references = (start, magnitude)
        self._batches = _in_batches(masks)
        self._known = [_flat(masks, names) for names in self._batches]
        shapes = np.array([mask.shape for mask in masks.values()])
        self._row_bytes = -(-shapes[:, 1] // 8)
        self._groups_a_row = shapes[:, 1] // self.m
        self.first_groups = np.concatenate([[0], (shapes[:, 0] * self._groups_a_row).cumsum()])
        self._bytes = shapes[:, 0] * self._row_bytes
        codes = patterns(self.n, self.m)
        self._column = np.full(1 << self.m, len(codes))  # of a code in the counts; the last is for others and left out
        self._column[codes] = np.arange(len(codes))
        self._patterns = len(codes)
        self.counts = np.stack([self._count(name, masks) for name in masks])

    def advance(self, masks: MaskSet) -> Changed:
        """Find what changed, and know `masks` from now on."""
        found = [self._advance(index, masks) for index in range(len(self._batches))]
        groups, changes = (np.concatenate(each) for each in zip(*found, strict=True))
        return Changed(groups, changes, self.counts.copy())

    def _advance(self, batch: int, masks: MaskSet) -> tuple[np.ndarray, np.ndarray]:
        now, known = _flat(masks, self._batches[batch]), self._known[batch]
        self._known[batch] = now
        words = (now != known).nonzero().flatten()
        differences = (now[words] ^ known[words]).cpu().numpy().view(np.uint8)
        if not len(differences):
            return np.zeros(0, np.int64), np.zeros(0, code_type(self.m))
        differs = np.flatnonzero(differences)
        places, differences = words.cpu().numpy()[differs // WORD] * WORD + differs % WORD, differences[differs]
        layers = self._layers_of(batch)
        ends = self._bytes[layers].cumsum()
        inside = np.searchsorted(ends, places, side="right")
        layer, at = layers[inside], places - (ends - self._bytes[layers])[inside]
        row, byte = np.divmod(at, self._row_bytes[layer])
        entry, bit = np.nonzero(np.unpackbits(differences[:, None], axis=1, bitorder="little"))
        column = 8 * byte[entry] + bit
        groups = self.first_groups[layer[entry]] + row[entry] * self._groups_a_row[layer[entry]] + column // self.m
        first = np.flatnonzero(np.diff(groups, prepend=-1))  # a group's changed weights follow one another
        changes = np.bitwise_or.reduceat(1 << column % self.m, first)
        groups, entry, column = groups[first], entry[first], column[first] // self.m * self.m
        layer, begins = layer[entry], (at - byte)[entry] + column // 8
        codes = self._codes_at(layer, begins, column % 8, masks)
        self._recount(layer, codes[0] ^ changes, codes)
        return groups, changes.astype(code_type(self.m))

    def _codes_at(self, layer: np.ndarray, begins: np.ndarray, shift: np.ndarray, masks: MaskSet) -> np.ndarray:
        """The codes of some groups now and in the references, (3, groups); begins: the byte of the layer in which each
        begins."""
        last = self._bytes[layer] - 1  # what would lie beyond it belongs to no group
        window = np.minimum(begins + np.arange(self._window)[:, None], last)
        window = torch.from_numpy(window).to(next(iter(masks.values())).packed.device)
        found, bounds = [], np.flatnonzero(np.diff(layer, prepend=-1, append=-1))
        for begin, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            name, inside = self._names[layer[begin]], window[:, begin:end]
            found.append(torch.stack([each[name].packed.take(inside) for each in (masks, *self.references)]))
        parts = torch.cat(found, 2).cpu().numpy().astype(np.int64)
        whole = sum(parts[:, k] << 8 * k for k in range(self._window))
        return whole >> shift & ((1 << self.m) - 1)

    def _recount(self, layer: np.ndarray, before: np.ndarray, codes: np.ndarray) -> None:
        after, size = codes[0], len(self.counts)
        for index, reference in enumerate(codes[1:]):
            more = BITS_SET[after & reference].astype(np.int64) - BITS_SET[before & reference]
            self.counts[:, index] += np.bincount(layer, more, size).astype(np.int64)
        wide = self._patterns + 1
        more, fewer = (
            np.bincount(layer * wide + self._column[code], minlength=size * wide) for code in (after, before)
        )
        self.counts[:, 2:] += (more - fewer).reshape(size, wide)[:, :-1]

    def _count(self, name: str, masks: MaskSet) -> np.ndarray:
        """The summary of one layer, counted as a whole."""
        mask = masks[name]
        kept = [int(bits_set(mask.packed & reference[name].packed)) for reference in self.references]
        if not self._patterns:
            return np.array(kept)
        packed = mask.packed.cpu().numpy()
        if 8 % self.m or mask.shape[1] % 8:
            codes = np.bincount(codes_of(unpacked(packed, mask.shape[1]), self.m), minlength=1 << self.m)
        else:  # bytes are counted faster than groups
            bytes_ = np.bincount(packed.reshape(-1), minlength=256)
            values, codes = np.arange(256), np.zeros(1 << self.m, np.int64)
            for shift in range(0, 8, self.m):
                np.add.at(codes, values >> shift & ((1 << self.m) - 1), bytes_)
        return np.array([*kept, *codes[patterns(self.n, self.m)]])

    def _layers_of(self, batch: int) -> np.ndarray:
        first = sum(len(names) for names in self._batches[:batch])
        return np.arange(first, first + len(self._batches[batch]))


def _in_batches(masks: MaskSet) -> list[list[str]]:
    batches: list[list[str]] = [[]]
    room = BATCH
    for name, mask in masks.items():
        if batches[-1] and mask.packed.numel() > room:
            batches.append([])
            room = BATCH
        batches[-1].append(name)
        room -= mask.packed.numel()
    return batches


def _flat(masks: MaskSet, names: list[str]) -> Tensor:
    """The packed masks one after the other, and zeros to a whole word; int64."""
    packed = [masks[name].packed.reshape(-1) for name in names]
    size = sum(each.numel() for each in packed)
    return torch.cat([*packed, packed[0].new_zeros(-size % WORD)]).view(torch.int64)
