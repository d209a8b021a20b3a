"""What-if questions agree with masking by hand and plain sums."""

import math

import pytest
import torch
from tiny_models import random_windows, tiny_model

from proxsparse import Mask, MaskSet, ProxSparseError, magnitude, what_if
from proxsparse.evaluation.what_if import Change, estimated_layer_costs, layer_costs, with_group
from proxsparse.layers import prunable_layers

WINDOWS = random_windows(5, 24, seed=3)


@pytest.fixture(params=["llama", "gpt2", "mixtral"])
def setting(request):
    model = tiny_model(request.param)
    layers = prunable_layers(model)
    return model, layers, magnitude(model, layers=layers).masks


def losses_by_hand(model, weights):
    """Per window, of a model whose layers are overwritten with `weights` (out, in) and put back."""
    layers = prunable_layers(model)
    before = {name: layer.matrix.clone() for name, layer in layers.items()}
    for name, weight in weights.items():
        layers[name].matrix.copy_(weight)
    losses = []
    with torch.no_grad():
        for window in WINDOWS:
            logits = model(input_ids=window[None]).logits[0, :-1].double()
            losses.append(torch.nn.functional.cross_entropy(logits, window[1:]).item())
    for name, weight in before.items():
        layers[name].matrix.copy_(weight)
    return losses


def masked_by_hand(layers, masks):
    return {name: layer.matrix * masks[name].dense() for name, layer in layers.items()}


def paired_by_hand(before, after):
    differences = [b - a for a, b in zip(before, after, strict=True)]
    mean = sum(differences) / len(differences)
    variance = sum((each - mean) ** 2 for each in differences) / (len(differences) - 1)
    return mean, math.sqrt(variance / len(differences))


def assert_is(change, before, after):
    mean, stderr = paired_by_hand(before, after)
    assert change.difference == pytest.approx(mean, rel=1e-3, abs=1e-7)
    assert change.stderr == pytest.approx(stderr, rel=1e-3, abs=1e-7)
    assert change.before == pytest.approx(sum(before) / len(before), rel=1e-5)
    assert change.after == pytest.approx(sum(after) / len(after), rel=1e-5)
    assert change.windows == len(WINDOWS)


def test_a_group_changed_by_hand(setting):
    model, layers, masks = setting
    name = list(layers)[2]
    dropped = [place for place in range(4) if not masks[name].dense()[3, 4 + place]]
    found = what_if(model, masks, {name: with_group(masks[name], 3, 1, dropped)}, WINDOWS)
    weights = masked_by_hand(layers, masks)
    before = losses_by_hand(model, weights)
    weights[name][3, 4:8] = 0
    for place in dropped:
        weights[name][3, 4 + place] = layers[name].matrix[3, 4 + place]
    after = losses_by_hand(model, weights)
    assert before != after
    assert_is(found, before, after)


def test_a_layer_made_dense_and_what_all_layers_cost(setting):
    model, layers, masks = setting
    untouched = {name: layer.matrix.clone() for name, layer in layers.items()}
    before = losses_by_hand(model, masked_by_hand(layers, masks))
    names = list(layers)[:3]
    for name, found in layer_costs(model, masks, WINDOWS, names, layers=layers):
        after = losses_by_hand(model, masked_by_hand(layers, masks) | {name: layers[name].matrix.clone()})
        assert_is(found, before, after)
        assert_is(what_if(model, masks, {name: None}, WINDOWS), before, after)
    assert all(torch.equal(untouched[name], layer.matrix) for name, layer in layers.items())


def test_the_estimate_is_the_gradient_times_what_the_mask_drops(setting):
    model, layers, masks = setting
    found = estimated_layer_costs(model, masks, WINDOWS)
    assert found.keys() == masks.keys()
    assert not any(parameter.grad is not None for parameter in model.parameters())
    # By central differences along the line from the masked to the dense weight of one layer.
    name, step = list(layers)[1], 1e-2
    weights = masked_by_hand(layers, masks)
    dropped = layers[name].matrix - weights[name]
    ahead, behind = (losses_by_hand(model, weights | {name: weights[name] + sign * step * dropped}) for sign in (1, -1))
    slopes = [(a - b) / (2 * step) for a, b in zip(ahead, behind, strict=True)]
    mean, stderr = paired_by_hand([0.0] * len(slopes), slopes)
    assert found[name].difference == pytest.approx(mean, rel=0.02, abs=2e-5)
    assert found[name].stderr == pytest.approx(stderr, rel=0.02, abs=2e-5)


def test_a_layer_that_is_dense_already_costs_nothing(setting):
    model, layers, masks = setting
    name = next(iter(layers))
    partly = {other: mask for other, mask in masks.items() if other != name}
    assert what_if(model, partly, {name: None}, WINDOWS).difference == 0
    assert name not in estimated_layer_costs(model, partly, WINDOWS)


@pytest.mark.parametrize("columns", [8, 12, 20])  # rows that end inside a byte, too
def test_with_group_changes_one_group(columns):
    torch.manual_seed(0)
    mask = Mask.project(torch.randn(5, columns))
    changed = with_group(mask, 4, columns // 4 - 1, [1, 2, 3])
    wanted = mask.dense()
    wanted[4, -4:] = torch.tensor([False, True, True, True])
    assert torch.equal(changed.dense(), wanted)
    assert not changed.is_valid() and mask.is_valid()


@pytest.mark.parametrize(
    ("row", "group", "kept", "words"), [(5, 0, [0], "row is 5"), (0, 2, [0], "group is 2"), (0, 0, [4], "kept is 4")]
)
def test_places_that_are_not_there(row, group, kept, words):
    with pytest.raises(ProxSparseError, match=words):
        with_group(Mask.project(torch.randn(5, 8)), row, group, kept)


def test_one_window_has_no_standard_error_and_no_mask_no_pattern():
    assert math.isnan(Change.of(torch.zeros(1).double(), torch.ones(1).double()).stderr)
    with pytest.raises(ProxSparseError, match="no mask"):
        what_if(tiny_model(), MaskSet(), {"x": None}, WINDOWS)
