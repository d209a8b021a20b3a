"""MaskLLM against its formulas: a categorical variable a group, learned through Gumbel-softmax samples."""

import math

import pytest
import torch
from tiny_models import random_windows, tiny_model

from proxsparse import LearnConfig, ProxSparseError, magnitude, prunable_layers
from proxsparse.evaluation.perplexity import window_losses
from proxsparse.masks.groups import patterns_of
from proxsparse.methods import METHODS
from proxsparse.methods.maskllm import PRIOR_WINDOWS, MaskLLMOptions, _Choice, gumbel_noise, maskllm
from proxsparse.models.forward import next_token_losses

WINDOWS = random_windows(12, 16)
SHORT = LearnConfig(steps=2, batch=4, precision="fp32")


def kept_in_groups(mask):
    return mask.dense().reshape(-1, mask.m).sum(1)


@pytest.mark.parametrize(("family", "n", "m"), [("llama", 2, 4), ("gpt2", 1, 4), ("llama", 2, 8)])
def test_gradient_of_the_logits_is_that_of_autograd(family, n, m):
    """The chain rule written by hand, against torch's through softmax((κ·logits + noise)/τ), regularization included."""
    model, scale, temperature, strength = tiny_model(family), 30.0, 2.0, 0.7
    layers = prunable_layers(model, m)
    prior, options = magnitude(model, None, n, m, layers=layers).masks, MaskLLMOptions()
    originals = {name: layer.matrix.clone() for name, layer in layers.items()}
    choices = {
        name: _Choice(layer, prior[name], n, m, options, index) for index, (name, layer) in enumerate(layers.items())
    }

    model.requires_grad_(False)
    for parameter in layers.parameters():
        parameter.requires_grad_(True)
    generator = torch.Generator().manual_seed(5)
    for choice in choices.values():
        choice.sample(scale, temperature, generator)
    loss = next_token_losses(model, WINDOWS).mean()
    loss.backward()
    for choice in choices.values():
        choice.take_gradient(strength)

    model.requires_grad_(False)
    generator, weights, penalty, logits = torch.Generator().manual_seed(5), {}, 0.0, {}
    patterns = patterns_of(n, m).float()
    for name, layer in layers.items():
        logits[name] = choices[name].logits.detach().clone().requires_grad_(True)
        noise = gumbel_noise(logits[name], generator)
        soft = torch.softmax((scale * logits[name] + noise) / temperature, dim=0)
        mask = (soft.t() @ patterns).view(originals[name].shape)
        pruned = originals[name] * mask
        penalty = penalty - strength * pruned.square().sum()  # the norm of what is kept is rewarded
        weights[f"{name}.weight"] = pruned.t() if layer.transposed else pruned
    output = torch.func.functional_call(model, weights, kwargs={"input_ids": WINDOWS, "use_cache": False}).logits
    again = torch.nn.functional.cross_entropy(output[:, :-1].flatten(0, 1), WINDOWS[:, 1:].flatten())
    assert again.item() == pytest.approx(loss.item(), rel=1e-5)
    (again + penalty).backward()
    for name, choice in choices.items():
        size = logits[name].grad.abs().max().item()
        assert size > 0
        assert torch.allclose(choice.logits.grad, logits[name].grad, rtol=1e-3, atol=1e-4 * size), name


def test_the_noise_is_gumbel():
    """Its distribution function is exp(−exp(−x)) (Gumbel 1954), from one end to the other."""
    noise = gumbel_noise(torch.empty(400_000), torch.Generator().manual_seed(0))
    assert bool(noise.isfinite().all())
    for x in (-2.0, -1.0, 0.0, 1.0, 3.0, 8.0):
        expected = math.exp(-math.exp(-x))
        spread = math.sqrt(expected * (1 - expected) / noise.numel())
        assert (noise <= x).double().mean().item() == pytest.approx(expected, abs=4 * spread)


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (2, 8)])
def test_every_group_keeps_n_of_m_and_the_same_seed_gives_the_same_mask(n, m):
    model = tiny_model()
    options = MaskLLMOptions(learning_rate=0.02)
    found, again, other = (
        maskllm(model, WINDOWS, n, m, budget=LearnConfig(steps=2, batch=4, seed=seed), options=options).masks
        for seed in (3, 3, 4)
    )
    assert list(found) == list(prunable_layers(model, m))
    for mask in found.values():
        assert (mask.n, mask.m) == (n, m) and bool((kept_in_groups(mask) == n).all())
    assert set(found.flips(again).values()) == {0}
    assert sum(found.flips(other).values()) > 0


def test_it_begins_at_its_prior():
    """A learning rate of nothing, and a prior that stands out from the random logits."""
    model = tiny_model()
    prior = magnitude(model, None).masks
    found = maskllm(model, WINDOWS, prior=prior, budget=SHORT, options=MaskLLMOptions(1e-12, prior_strength=100.0))
    assert set(found.masks.flips(prior).values()) == {0} and found.weights is None


def test_it_learns():
    """On text it has not seen, the model is better under the learned mask than under its prior, SparseGPT's."""
    model = tiny_model()
    text, heldout = random_windows(960, 16, seed=1), random_windows(64, 16, seed=2)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for batch in text.split(16):
        optimizer.zero_grad()
        next_token_losses(model, batch).mean().backward()
        optimizer.step()
    layers = prunable_layers(model)

    def loss_under(pruned):
        with pruned.placed_in(layers):
            return window_losses(model, heldout, batch=64).mean().item()

    budget = LearnConfig(steps=60, batch=8, precision="fp32")
    prior = METHODS["sparsegpt"](model, text[:PRIOR_WINDOWS], layers=layers)
    unlearned = maskllm(model, text, layers=layers, budget=SHORT, options=MaskLLMOptions(1e-12, prior_strength=100.0))
    learned = maskllm(model, text, layers=layers, budget=budget, options=MaskLLMOptions(learning_rate=5e-3))
    assert loss_under(unlearned) == pytest.approx(loss_under(prior)), "SparseGPT's is the default prior"
    assert loss_under(learned) < loss_under(prior) - 0.03


def test_the_model_is_left_as_it_came_also_when_progress_raises():
    class Enough(Exception):
        pass

    def progress(done, total, what):
        if "MaskLLM" in what and done == 1:
            assert total == 3 and any(not torch.equal(old, new) for old, new in zip(before, state(), strict=True))
            raise Enough

    model = tiny_model()
    model.lm_head.weight.requires_grad_(False)

    def state():
        return [parameter.data for parameter in model.parameters()]

    before = [tensor.clone() for tensor in state()]
    places = [tensor.data_ptr() for tensor in state()]
    required = [parameter.requires_grad for parameter in model.parameters()]
    attention = model.config._attn_implementation
    for watch in (None, progress):
        if watch is None:
            maskllm(model, WINDOWS, budget=SHORT)
        else:
            with pytest.raises(Enough):
                maskllm(model, WINDOWS, budget=LearnConfig(steps=3, batch=4), progress=watch)
        assert all(torch.equal(old, new) for old, new in zip(before, state(), strict=True))
        assert places == [tensor.data_ptr() for tensor in state()]
        assert required == [parameter.requires_grad for parameter in model.parameters()]
        assert all(parameter.grad is None for parameter in model.parameters())
        assert model.config._attn_implementation == attention


def test_what_it_refuses_is_one_sentence():
    model = tiny_model()
    for arguments, words in (
        (
            (WINDOWS, 8, 16),
            "8:16 has 12,870 patterns a group and maskllm has a number for each: choose a smaller group",
        ),
        ((WINDOWS[:2], 2, 4), "has 2 windows and one step takes 4"),
    ):
        with pytest.raises(ProxSparseError, match=words) as caught:
            maskllm(model, *arguments, budget=SHORT)
        assert "\n" not in str(caught.value)
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(ProxSparseError, match="At step 1 MaskLLM's loss is nan"):
        maskllm(model, WINDOWS, budget=SHORT, prior=magnitude(model, None).masks)
