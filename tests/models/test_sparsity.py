"""Which zeros a model has, against brute force over every group."""

import doctest

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import tiny_model

from proxsparse import Mask, prunable_layers
from proxsparse.models import sparsity
from proxsparse.models.sparsity import PATTERNS, most_in_a_group, sparsity_of


@given(st.integers(0, 10_000), st.sampled_from([1, 2, 4, 6, 8, 16]), st.floats(0, 1), st.integers(1, 3))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_the_most_in_a_group_is_what_counting_says(seed, m, density, groups):
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.rand(3, m * groups, generator=generator) * (torch.rand(3, m * groups, generator=generator) < density)
    counted = [sum(value != 0 for value in row[at : at + m]) for row in matrix.tolist() for at in range(0, len(row), m)]
    assert most_in_a_group(matrix, m) == max(counted)
    assert m == 1 or most_in_a_group(matrix[:, 1:], m) is None


@pytest.mark.parametrize(("n", "m"), PATTERNS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_each_pattern_is_found(n, m, dtype):
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(32, 96, generator=generator).to(dtype) for _ in range(3)]
    sparse = [Mask.project(weight, n, m).applied_to(weight) for weight in weights]
    assert str(sparsity_of(sparse)) == f"sparse ({n}:{m} in 3 of 3 layers)"
    sparse[1][5, : n + 1] = 1.0  # one group keeps one too many
    found = sparsity_of(sparse, [(n, m)])
    assert (found.matching, found.layers) == (2, 3)


def test_zeros_without_a_pattern_are_said_with_their_share():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(64, 64, generator=generator)
    assert str(sparsity_of([weight])) == "dense"
    order = weight.abs().flatten().argsort()
    weight.view(-1)[order[: len(order) // 2]] = 0
    assert str(sparsity_of([weight])) == "sparse (50.0% zeros in no pattern)"


def test_a_tighter_layer_among_others_has_the_pattern_of_all():
    weight = torch.randn(16, 32, generator=torch.Generator().manual_seed(0))
    layers = [Mask.project(weight, *pattern).applied_to(weight) for pattern in ((2, 4), (1, 4), (1, 2))]
    assert str(sparsity_of([*layers, torch.zeros(4, 8)])) == "sparse (2:4 in 4 of 4 layers)"
    assert str(sparsity_of([*layers, weight])) == "sparse (2:4 in 3 of 4 layers)"


def test_a_model_as_it_came_is_dense():
    layers = prunable_layers(tiny_model())
    assert not sparsity_of(layer.matrix for layer in layers.values()).is_sparse


def test_docstring_examples():
    found = doctest.testmod(sparsity)
    assert found.attempted > 0 and found.failed == 0
