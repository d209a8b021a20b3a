"""Which channels are reordered, in models of several families: the function stays, the groups keep more."""

import pytest
import torch
from tiny_models import random_windows, tiny_model

from proxsparse import ProxSparseError, prunable_layers, wanda
from proxsparse.models.channel_order import ChannelOrder, change_of_outputs, within_rounding
from proxsparse.reordering.channels import find_order

LLAMA_LIKE = ("llama", "mistral", "qwen2", "gemma")


@pytest.mark.parametrize("family", [*LLAMA_LIKE, "mixtral"])
def test_the_function_stays_the_same(family):
    model, windows = tiny_model(family), random_windows()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_()  # those of Qwen2 begin at 0, and would stay the same wherever they stood
        before = model(windows).logits
    weights = {name: parameter.clone() for name, parameter in model.named_parameters()}
    found = find_order(model, windows)
    assert all(torch.equal(parameter, weights[name]) for name, parameter in model.named_parameters()), "not yet applied"
    assert change_of_outputs(model, found.order) < 1e-5
    with torch.no_grad():
        torch.testing.assert_close(model(windows).logits, before, atol=1e-5, rtol=1e-4)
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, weights[name])}
    assert changed == found.order.keys()
    assert any("o_proj" in name for name in changed) and any("down_proj" in name for name in changed) == (
        family != "mixtral"
    )
    found.order.inverse().apply_(model)
    assert all(torch.equal(parameter, weights[name]) for name, parameter in model.named_parameters())


@pytest.mark.parametrize("family", LLAMA_LIKE)
@pytest.mark.parametrize(("n", "m"), [(2, 4), (4, 8)])
def test_groups_keep_more_and_as_much_as_it_says(family, n, m):
    model, windows = tiny_model(family), random_windows()
    found = find_order(model, windows, n, m)
    layers = {name: layer for name, layer in prunable_layers(model, m).items() if f"{name}.weight" in found.order}
    readers = [name for name in layers if name.endswith(("down_proj", "o_proj"))]
    assert found.layers == len(readers) == 4 and found.kept[0] < found.kept[1]

    def share(masks):
        """What Wanda's masks keep of |w|·‖x‖ of the dense model."""
        kept = whole = 0.0
        for name in readers:
            scores = layers[name].matrix.abs() * norms[name]
            kept += (scores * masks[name].dense()).sum().item()
            whole += scores.sum().item()
        return kept / whole

    for shares, change in zip(found.kept, (lambda: None, lambda: found.order.apply_(model)), strict=True):
        change()
        norms = norms_of(model, layers, readers, windows)
        masks = {name: best_mask(layers[name].matrix.abs() * norms[name], n, m) for name in readers}
        assert share(masks) == pytest.approx(shares, rel=1e-4)


def norms_of(model, layers, names, windows):
    """‖x_j‖ of the inputs of some maps, by hooks."""
    found, modules = {}, dict(model.named_modules())
    hooks = [
        modules[name].register_forward_pre_hook(
            lambda _module, inputs, name=name: found.__setitem__(name, inputs[0].flatten(0, -2).norm(dim=0))
        )
        for name in names
    ]
    with torch.no_grad():
        model(windows)
    for hook in hooks:
        hook.remove()
    return found


def best_mask(scores, n, m):
    from proxsparse import Mask

    return Mask.of_scores(scores, n, m)


def test_wandas_mask_of_the_reordered_model_keeps_more():
    model, windows = tiny_model(), random_windows()
    layers = prunable_layers(model)

    def kept_weight():
        masks = wanda(model, windows).masks
        return sum(
            (layers[name].matrix.abs() * mask.dense()).sum().item()
            for name, mask in masks.items()
            if "down_proj" in name
        )

    before = kept_weight()
    find_order(model, windows).order.apply_(model)
    assert kept_weight() > before


@pytest.mark.parametrize("family", ["gpt2", "opt", "gpt_neox", "phi3"])
def test_a_model_of_another_build_is_refused(family):
    with pytest.raises(ProxSparseError, match="has no channels that may change places: its blocks need gate_proj"):
        find_order(tiny_model(family), random_windows())


def test_heads_of_a_size_that_groups_do_not_divide_keep_their_order():
    model = tiny_model(hidden_size=24, head_dim=6)
    found = find_order(model, random_windows())
    assert found.order and not any("self_attn" in name for name in found.order)
    assert found.layers == 2, "those of down_proj alone"


def test_where_nothing_can_change_places_it_says_so():
    """A mixture has no feed-forward maps of this kind, and its heads have a size that groups do not divide."""
    with pytest.raises(ProxSparseError, match="has no channels that may change places"):
        find_order(tiny_model("mixtral", hidden_size=24, head_dim=6), random_windows())


def test_a_wrong_order_is_noticed_in_every_part():
    """Of one parameter alone, whichever: what the others add to the logits does not hide it."""
    found = find_order(tiny_model(), random_windows()).order
    for name in found:
        change = change_of_outputs(tiny_model(), ChannelOrder({name: found[name]}))
        assert change > 0.3 and not within_rounding(change), name


def test_weights_in_half_precision_keep_their_bits():
    """The outputs are compared in float32, for bf16 rounds too coarsely to tell a small fault."""
    model, windows = tiny_model().to(torch.bfloat16), random_windows()
    weights = {name: parameter.clone() for name, parameter in model.named_parameters()}
    order = find_order(model, windows).order
    assert within_rounding(change_of_outputs(model, order)) and change_of_outputs(model, order.inverse()) < 1e-5
    for name, parameter in model.named_parameters():
        assert parameter.dtype == torch.bfloat16 and torch.equal(parameter, weights[name])
