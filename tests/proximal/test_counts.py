"""What is counted in the operator's pass, each thing with and without the others, against plain counting."""

import pytest
import torch
from counting import GIVEN, check, chosen

from proxsparse import Mask, ProxSparseError
from proxsparse.proximal.operator import prox_and_count_


@pytest.mark.parametrize("given", GIVEN, ids=str)
@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_what_is_given_is_counted_and_what_is_not_is_zero(given, compiled, transposed, dtype, monkeypatch):
    """`start` without `previous` was never counted, and `previous` without `start` was compared with memory beside it."""
    monkeypatch.setattr("proxsparse.proximal.operator.available", lambda *_: compiled)
    monkeypatch.setattr("proxsparse.proximal.operator.CHUNK", 88)  # several pieces, of two rows
    if compiled:
        monkeypatch.setattr("proxsparse.proximal.numba_kernel.CHUNK", 88)
    previous, start, original = chosen(given)
    v = torch.randn(12, 44, generator=torch.Generator().manual_seed(9)).to(dtype)
    v = v.t().contiguous().t() if transposed else v
    for kept in {torch.float32, dtype}:
        result = v.clone()
        stored = None if original is None else original.to(kept)
        check(
            prox_and_count_(result, 0.3, previous=previous, start=start, original=stored),
            result,
            previous,
            start,
            stored,
        )


@pytest.mark.parametrize("given", GIVEN, ids=str)
def test_the_same_for_other_patterns(given):
    generator = torch.Generator().manual_seed(1)
    previous, start = (Mask.project(torch.randn(6, 48, generator=generator), 2, 8) for _ in range(2))
    original = torch.randn(6, 48, generator=generator)
    v = torch.randn(6, 48, generator=generator)
    about = {
        name: value
        for name, value, wanted in zip(
            ("previous", "start", "original"), (previous, start, original), given, strict=True
        )
        if wanted
    }
    counts = prox_and_count_(v, 0.3, 2, 8, **about)
    sums = counts.read()
    assert sums.flips == (counts.mask.flips(previous) if "previous" in about else 0)
    assert sums.flips_from_start == (counts.mask.flips(start) if "start" in about else 0)
    drift = (v - original).square().sum().item() if "original" in about else 0.0
    assert sums.squared_drift == pytest.approx(drift, rel=1e-5)


WIDE, PLAIN = torch.randn(4, 16), torch.randn(4, 8)
TORN = Mask(Mask.project(PLAIN).packed[:2], (4, 8))


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"previous": Mask.project(WIDE)}, r"previous mask has shape \(4, 16\)"),
        ({"start": Mask.project(WIDE[:2, :8])}, r"start mask has shape \(2, 8\)"),
        ({"start": TORN}, r"packed as \(2, 1\)"),
        ({"original": WIDE}, r"original weight has shape \(4, 16\)"),
        ({"original": PLAIN[:2]}, r"original weight has shape \(2, 8\)"),
        ({"scale": torch.ones(16)}, r"scale has shape \(16,\)"),
        ({"scale": torch.ones(2, 8)}, r"scale has shape \(2, 8\)"),
    ],
)
def test_what_does_not_fit_the_weight_is_one_sentence(about, words, compiled, monkeypatch):
    monkeypatch.setattr("proxsparse.proximal.operator.available", lambda *_: compiled)
    with pytest.raises(ProxSparseError, match=words):
        prox_and_count_(PLAIN.clone(), 0.1, **about)


def test_a_weight_that_no_groups_divide_is_one_sentence():
    for v in (torch.zeros(2, 6), torch.zeros(8)):
        with pytest.raises(ProxSparseError, match="columns are groups of 4"):
            prox_and_count_(v, 0.1)
