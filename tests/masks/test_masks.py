"""Masks: projection, packing, comparison, files."""

import math
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from proxsparse import Mask, MaskSet, ProxSparseError
from proxsparse.masks.groups import patterns_of
from proxsparse.masks.packing import bits_set, masked, pack, unpack


@given(st.integers(0, 1000), st.sampled_from([(1, 2), (1, 4), (2, 4), (2, 8), (4, 8), (2, 6)]), st.booleans())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_projection_is_a_stable_sort(seed, pattern, tied):
    n, m = pattern
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(5, 3 * m, generator=generator)
    w = w.round() if tied else w
    scale = torch.rand(3 * m, generator=generator) + 0.1
    mask = Mask.project(w, n, m, scale)
    order = (w * scale).abs().view(-1, m).sort(dim=1, descending=True, stable=True).indices
    expected = torch.zeros(len(order), m, dtype=torch.bool).scatter_(1, order[:, :n], True).view(w.shape)
    assert torch.equal(mask.dense(), expected)
    assert mask.is_valid() and mask.density == n / m


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (3, 4), (2, 8)])
def test_patterns_are_all_ways_to_keep_n_of_m(n, m):
    patterns = patterns_of(n, m)
    assert patterns.shape == (math.comb(m, n), m) and patterns.dtype == torch.bool
    assert [tuple(row.nonzero().flatten().tolist()) for row in patterns] == list(combinations(range(m), n))


@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 100))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_packing_comes_back_and_counts(columns, rows, seed):
    mask = torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed)) < 0.5
    packed = pack(mask)
    assert packed.shape == (rows, -(-columns // 8))
    assert torch.equal(unpack(packed, columns), mask)
    assert bits_set(packed) == mask.sum().item()


@given(
    st.integers(1, 40),
    st.integers(1, 5),
    st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64]),
    st.booleans(),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_what_is_not_kept_is_zero_whatever_it_was(columns, rows, dtype, transposed):
    generator = torch.Generator().manual_seed(columns)
    mask = torch.rand(rows, columns, generator=generator) < 0.5
    values = torch.randn((columns, rows) if transposed else (rows, columns), generator=generator).to(dtype)
    values = values.t() if transposed else values
    for place, odd in zip(range(values.shape[1]), (math.inf, -math.inf, math.nan, -0.0), strict=False):
        values[:, place] = odd
    before, expected = values.clone(), values.masked_fill(~mask, 0)
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[values.element_size()]
    found = masked(values, pack(mask))
    assert torch.equal(found.view(bits), expected.view(bits)) and found.dtype == dtype
    assert torch.equal(values.view(bits), before.view(bits)), "what was given is only read"
    assert masked(values, pack(mask), out=values).data_ptr() == values.data_ptr()
    assert torch.equal(values.view(bits), expected.view(bits))


def test_flips_count_the_weights_that_changed_state():
    a = Mask.project(torch.tensor([[4.0, 3.0, 2.0, 1.0], [4.0, 3.0, 2.0, 1.0]]))
    b = Mask.project(torch.tensor([[4.0, 3.0, 2.0, 1.0], [1.0, 3.0, 2.0, 4.0]]))
    assert a.flips(a) == 0
    assert a.flips(b) == 2  # one group: the first weight dropped, the last one kept
    with pytest.raises(ProxSparseError, match="shapes"):
        a.flips(Mask.project(torch.ones(2, 8)))


def some_masks():
    generator = torch.Generator().manual_seed(1)
    return MaskSet(
        {
            "a.b": Mask.project(torch.randn(3, 12, generator=generator)),
            "c": Mask.project(torch.randn(8, 16, generator=generator)),
        }
    )


def test_a_set_knows_its_pattern():
    weight = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))
    masks = MaskSet({"a": Mask.project(weight, 1, 4), "b": Mask.project(weight, 1, 4)})
    assert (masks.n, masks.m, masks.pattern) == (1, 4, "1:4")
    masks["c"] = Mask.project(weight, 2, 8)
    for ask in ("n", "m", "pattern"):
        with pytest.raises(
            ProxSparseError, match=r"several patterns \(1:4 in b, 2:8 in c\): give masks of one pattern\."
        ):
            getattr(masks, ask)
        with pytest.raises(
            ProxSparseError, match=r"^There are no masks, and so no pattern: learn or load them first\.$"
        ):
            getattr(MaskSet(), ask)
    with pytest.raises(ProxSparseError, match="There are no masks"):
        MaskSet().apply_(torch.nn.Linear(4, 4))


def test_files_come_back(tmp_path):
    masks = some_masks()
    masks.save(tmp_path / "masks.safetensors")
    loaded = MaskSet.load(tmp_path / "masks.safetensors")
    assert loaded.keys() == masks.keys() and set(loaded.flips(masks).values()) == {0}
    assert loaded["a.b"].shape == (3, 12) and loaded["a.b"].n == 2


def test_bad_files_are_one_sentence(tmp_path):
    path = tmp_path / "masks.safetensors"
    with pytest.raises(ProxSparseError, match="cannot be read"):
        MaskSet.load(path)
    path.write_bytes(b"not a safetensors file")
    with pytest.raises(ProxSparseError, match="cannot be read"):
        MaskSet.load(path)
    save_file({"x": torch.zeros(2)}, path)
    with pytest.raises(ProxSparseError, match="no packed masks"):
        MaskSet.load(path)
    broken = some_masks()
    broken["c"] = Mask(torch.full_like(broken["c"].packed, 255), broken["c"].shape)  # keeps all four
    broken.save(path)
    with pytest.raises(ProxSparseError, match="damaged"):
        MaskSet.load(path)


def test_a_file_of_a_newer_version_is_refused_and_one_without_is_read(tmp_path):
    from safetensors import safe_open
    from safetensors.torch import save_file

    path = tmp_path / "masks.safetensors"
    masks = MaskSet({"layer": Mask.project(torch.randn(4, 8, generator=torch.Generator().manual_seed(0)))})
    masks.save(path)
    with safe_open(path, "pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert metadata["version"] == "1"
    save_file(tensors, path, metadata | {"version": "2"})
    with pytest.raises(ProxSparseError, match="has the format version 2 and this proxsparse reads versions up to 1"):
        MaskSet.load(path)
    del metadata["version"]
    save_file(tensors, path, metadata)
    assert MaskSet.load(path).flips(masks) == {"layer": 0}
