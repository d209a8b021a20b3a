"""Models without memory: what the tokens decide is computed, what the weights decide is drawn."""

import pytest
import torch
from tiny_models import CONFIGS, FAMILIES, tiny_model
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from proxsparse import prunable_layers
from proxsparse.layers.known_values import KnownValues


class Computed(TorchDispatchMode):
    """Sends every operation through `KnownValues`."""

    def __init__(self):
        super().__init__()
        self.known = KnownValues()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return self.known.compute(function, args, kwargs or {})


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_without_memory_has_the_same_layers(family):
    """All families of transformers: tests/families."""
    with torch.device("meta"):
        bare = AutoModelForCausalLM.from_config(CONFIGS[family]()).eval()
    found, expected = prunable_layers(bare), prunable_layers(tiny_model(family))
    assert found.describe() == expected.describe() and found.skipped == expected.skipped
    assert all(parameter.is_meta for parameter in bare.parameters())


def test_what_no_weight_entered_has_its_values():
    with Computed():
        ids = torch.tensor([[3, 1, 2]]).to("meta")
        mask = torch.ones(3, 3, device="meta").tril() > 0
        assert ids.is_meta and mask.is_meta
        assert (ids + 1).tolist() == [[4, 2, 3]] and int(ids.max()) == 3
        assert mask.nonzero().shape == (6, 2) and bool(mask.any()) and not mask[0, 2]


def test_views_and_writes_reach_the_same_values():
    with Computed():
        whole = torch.zeros(2, 3, dtype=torch.int64, device="meta")
        row = whole[1]
        assert row.add_(5) is row
        assert whole.tolist() == [[0, 0, 0], [5, 5, 5]]


def test_real_numbers_that_a_weight_entered_stay_unknown_and_choices_of_them_are_drawn():
    weight = torch.empty(8, 4, device="meta")
    with Computed():
        ids = torch.tensor([0, 7]).to("meta")
        scores = weight[ids]
        values, places = scores.topk(2)
        assert scores.is_meta and scores.shape == (2, 4) and values.shape == places.shape == (2, 2)
        assert all(len(set(row)) == 2 and set(row) <= {0, 1, 2, 3} for row in places.tolist())
        assert bool((scores == scores).all()), "a number equals itself"
        assert scores[scores > 0].ndim == 1
    assert weight.is_meta and values.is_meta


def test_known_real_numbers_into_which_a_weight_is_added_are_known_no_more():
    added = torch.empty(1, 4, device="meta")
    with Computed() as computed:
        state, ids = torch.zeros(3, 4, device="meta"), torch.tensor([1]).to("meta")
        assert float(state.sum()) == 0
        assert state.index_add_(0, ids, added) is state
        assert state.untyped_storage()._cdata not in computed.known._twins


def test_integers_whose_values_nobody_kept_are_zeros():
    buffer = torch.empty(2, dtype=torch.int64, device="meta")
    with Computed():
        assert buffer.tolist() == [0, 0]
