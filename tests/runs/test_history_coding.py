"""Masks, flips and tiles as bytes and back; which groups changed, for any n:m and any shape."""

import zlib

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from proxsparse import Mask, MaskSet
from proxsparse.runs.history import changes, coding
from proxsparse.runs.history.changes import KnownMasks

M = st.integers(2, coding.MOST_WEIGHTS)


@given(M, st.lists(st.tuples(st.integers(0, 70_000), st.integers(1, 2**16 - 1)), max_size=40), st.integers(0, 2**33))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_flips_come_back(m, gaps_and_changes, far):
    gaps, change = (np.array([pair[k] for pair in gaps_and_changes], np.int64) for k in (0, 1))
    groups, change = (gaps + 1).cumsum() - 1 + far, (change % (1 << m)).astype(coding.code_type(m))
    data = coding.coded_flips(groups, change)
    found = coding.read_flips(zlib.decompress(data) if data else b"", m)
    assert np.array_equal(found[0], groups) and np.array_equal(found[1], change)


@given(M, st.integers(1, 5), st.integers(1, 6), st.integers(0, 99))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_masks_come_back(m, rows, groups, seed):
    bits = np.random.default_rng(seed).random((rows, groups * m)) < 0.5
    assert np.array_equal(coding.unpacked(coding.packed(bits), groups * m), bits)
    codes = coding.codes_of(bits, m)
    assert codes.dtype == coding.code_type(m) and np.array_equal(coding.bits_of(codes, m).reshape(bits.shape), bits)
    assert codes.tolist() == [sum(bool(bit) << k for k, bit in enumerate(group)) for group in bits.reshape(-1, m)]


def test_tiles_and_summaries_come_back():
    values = np.random.default_rng(0).normal(size=(3, 50)).astype(np.float32)
    found = coding.read_tile(zlib.decompress(coding.coded_tile(values)), 50)
    assert np.array_equal(found, values.astype(np.float16))
    counts = np.random.default_rng(0).integers(0, 2**31, (5, 8))
    assert np.array_equal(coding.read_summary(zlib.decompress(coding.coded_summary(counts)), 5), counts)


def test_patterns_are_named_with_the_first_weight_first():
    assert [coding.pattern_name(code, 4) for code in coding.patterns(2, 4)] == [
        "1100", "1010", "0110", "1001", "0101", "0011",
    ]  # fmt: skip
    assert len(coding.patterns(4, 8)) == 70 and coding.patterns(8, 16) == []


def random_masks(shapes, n, m, generator, like=None, share=1.0):
    """Random n:m masks; those of `like`, but for about a share of the groups."""
    masks = MaskSet()
    for index, (rows, columns) in enumerate(shapes):
        mask = Mask.project(torch.rand(rows, columns, generator=generator) + 0.01, n, m)
        if like is not None:
            kept = torch.rand(rows, columns // m, 1, generator=generator) >= share
            old = like[f"layer {index}"].dense().view(rows, -1, m)
            both = torch.where(kept, old, mask.dense().view(rows, -1, m)).view(rows, columns)
            mask = Mask.of_scores(both.float(), n, m)
        masks[f"layer {index}"] = mask
    return masks


@given(st.data(), M, st.integers(0, 99), st.sampled_from([1, 64, changes.BATCH]))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_what_changed_is_found_and_counted(data, m, seed, batch):
    """Whatever lies in one byte, in two or in three; layers of several batches; steps without any change."""
    n = data.draw(st.integers(1, m - 1))
    shapes = [(data.draw(st.integers(1, 6)), m * data.draw(st.integers(1, 7))) for _ in range(3)]
    generator = torch.Generator().manual_seed(seed)
    start, magnitude = (random_masks(shapes, n, m, generator) for _ in range(2))
    before, whole = start, changes.BATCH
    changes.BATCH = batch
    try:
        known = KnownMasks(start, start, magnitude)
        for share in (0.3, 0.0, 1.0):
            now = random_masks(shapes, n, m, generator, before, share)
            found = known.advance(now)
            codes_before, codes_now = all_codes(before), all_codes(now)
            assert found.groups.tolist() == np.flatnonzero(codes_before != codes_now).tolist()
            assert np.array_equal(found.changes, (codes_before ^ codes_now)[found.groups])
            assert np.array_equal(found.counts, KnownMasks(now, start, magnitude).counts)
            before = now
        for index, name in enumerate(start):
            codes = coding.codes_of(now[name].dense().numpy(), m)
            kept = [int((now[name].dense() & other[name].dense()).sum()) for other in (start, magnitude)]
            counted = [int((codes == code).sum()) for code in coding.patterns(n, m)]
            assert found.counts[index].tolist() == kept + counted
    finally:
        changes.BATCH = whole


def all_codes(masks):
    return np.concatenate([coding.codes_of(mask.dense().numpy(), mask.m) for mask in masks.values()])
