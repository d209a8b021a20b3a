"""The one-shot methods, against small computations written from the formulas of their papers."""

import numpy as np
import pytest
import torch
from tiny_models import FAMILIES, LLAMA_LIKE, random_windows, tiny_model
from transformers import Gemma3nTextConfig, Gemma3TextConfig
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from proxsparse import (
    Mask,
    ProxSparseError,
    admm,
    fisher,
    magnitude,
    prunable_layers,
    random_mask,
    ria,
    sparsegpt,
    swaps,
    wanda,
)
from proxsparse.methods import METHODS
from proxsparse.methods.admm import alternate
from proxsparse.methods.blockwise import prune_blocks
from proxsparse.methods.sparsegpt import inverse_factor, prune_columns
from proxsparse.methods.swaps import refine
from proxsparse.models.activations import InputNorms, activation_scales

ONE_SHOT = ("random", "magnitude", "wanda", "ria", "fisher", "sparsegpt", "sparsegpt-update", "admm", "swaps")
UPDATING = ("sparsegpt-update", "admm")  # what they keep
PATTERNS = [(2, 4), (1, 4), (4, 8)]
WINDOWS = random_windows(6, 16)  # with batches of four, the last one is smaller
PLAIN = {"precision": "fp32"}  # the same arithmetic on every machine
PER_LAYER_TYPE = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 4, "head_dim": 8}
GEMMAS = {
    "gemma3": lambda: Gemma3TextConfig(**LLAMA_LIKE, **PER_LAYER_TYPE),
    "gemma3n": lambda: Gemma3nTextConfig(  # its blocks are also given what depends on the tokens
        **LLAMA_LIKE, **PER_LAYER_TYPE, vocab_size_per_layer_input=128, hidden_size_per_layer_input=8,
        num_kv_shared_layers=0, laurel_rank=8, activation_sparsity_pattern=[0.0, 0.0],
    ),
}  # fmt: skip


def any_model(family):
    if family not in GEMMAS:
        return tiny_model(family)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(GEMMAS[family]()).eval()
    for parameter in model.parameters():
        if not parameter.any():  # untrained, a part of Gemma 3n is off
            torch.nn.init.normal_(parameter)
    return model


def highest(scores, n, m):
    """Bool (out, in): the n highest scores of every group of m."""
    order = scores.reshape(-1, m).sort(dim=1, descending=True, stable=True).indices
    return torch.zeros(order.shape, dtype=torch.bool).scatter_(1, order[:, :n], True).view(scores.shape)


@torch.no_grad()
def inputs_of(model, layers, windows=WINDOWS):
    """{layer name: (tokens, in)} in a plain forward pass, for layers that are modules of their own."""
    seen = {}
    handles = [
        model.get_submodule(name).register_forward_pre_hook(
            lambda _, inputs, name=name: seen.update({name: inputs[0].flatten(0, -2)})
        )
        for name in layers
    ]
    model(input_ids=windows)
    for handle in handles:
        handle.remove()
    return seen


def pruned_in_sequence(model, prune):
    """Put prune(matrix, inputs) in the place of every matrix, block after block; {name: the new one}."""
    layers, result = prunable_layers(model), {}
    for block in (0, 1):
        seen = inputs_of(model, layers)
        for name, layer in layers.items():
            if layer.block == block:
                result[name] = prune(layer.matrix.clone(), seen[name])
        for name, layer in layers.items():
            if layer.block == block:
                layer.matrix.copy_(result[name])
    return result


@pytest.mark.parametrize(("n", "m"), PATTERNS)
@pytest.mark.parametrize("method", [wanda, ria])
def test_wanda_and_ria_are_their_formulas_block_after_block(method, n, m):
    def prune(weight, inputs):
        sizes, norms = weight.abs(), inputs.square().sum(0).sqrt()
        if method is ria:
            sizes = sizes / sizes.sum(0) + sizes / sizes.sum(1).unsqueeze(1)
            norms = norms**0.5
        return weight * highest(sizes * norms, n, m)

    expected = pruned_in_sequence(tiny_model("gpt_neox"), prune)
    result = method(tiny_model("gpt_neox"), WINDOWS, n, m, **PLAIN)
    assert result.weights is None and result.masks.keys() == expected.keys()
    for name, mask in result.masks.items():
        assert torch.equal(mask.dense(), expected[name] != 0), name


def test_block_1_is_judged_by_what_the_pruned_block_0_hands_on():
    model = tiny_model()
    layers = prunable_layers(model)
    scales = activation_scales(model, layers, WINDOWS, **PLAIN)  # of the dense model
    masks = wanda(model, WINDOWS, **PLAIN).masks
    unaware = {name: Mask.project(layer.matrix, scale=scales[name]) for name, layer in layers.items()}
    assert {layers[name].block for name, mask in masks.items() if mask.flips(unaware[name])} == {1}


@pytest.mark.parametrize("family", [*FAMILIES, *GEMMAS])
def test_a_block_run_by_itself_sees_what_it_sees_in_the_model(family):
    model = any_model(family)
    layers = prunable_layers(model)
    windows = WINDOWS[:5]  # in batches of 2, 2 and 1: one repeats the shape of another, and one does not
    norms = {}

    def leave(layer, inputs):
        norms[layer.name] = inputs.norms()
        return layer.matrix

    prune_blocks(model, windows, layers, InputNorms, leave, "fp32", batch=2)
    expected = activation_scales(model, layers, windows, "fp32")
    assert norms.keys() == expected.keys()
    for name, scale in expected.items():
        assert (norms[name] > 0).any()
        measured = norms[name].clamp_min(norms[name][norms[name] > 0].min())
        assert torch.allclose(measured / measured.log().mean().exp(), scale, rtol=1e-3), name


def brain_surgeon(weight, hessian, n, m):
    """One column after another, with the inverse of what is left of the Hessian computed anew each time."""
    weight = weight.copy()
    kept = np.ones(weight.shape, dtype=bool)
    for column in range(weight.shape[1]):
        if column % m == 0:
            group = range(column, column + m)
            cost = np.stack([weight[:, j] ** 2 / np.linalg.inv(hessian[j:, j:])[0, 0] for j in group], axis=1)
            for row, dropped in enumerate(cost.argsort(1)[:, : m - n]):
                kept[row, column + dropped] = False
        inverse = np.linalg.inv(hessian[column:, column:])
        for row in np.flatnonzero(~kept[:, column]):
            weight[row, column:] -= weight[row, column] / inverse[0, 0] * inverse[0]
            weight[row, column] = 0
    return kept, weight


@pytest.mark.parametrize(
    ("n", "m", "blocksize"), [(2, 4, 128), (2, 4, 8), (1, 4, 10), (4, 8, 16), (2, 6, 16), (5, 8, 4)]
)
def test_sparsegpt_is_the_optimal_brain_surgeon_column_by_column(n, m, blocksize):
    generator = torch.Generator().manual_seed(n * m)
    weight = torch.randn(5, 24, generator=generator)
    inputs = torch.randn(40, 24, generator=generator) @ torch.randn(24, 24, generator=generator)
    moments = inputs.T @ inputs
    hessian = moments.double().numpy()
    hessian = hessian + 0.01 * hessian.diagonal().mean() * np.eye(24)
    kept, updated = prune_columns(weight, moments, n, m, blocksize=blocksize)
    expected_kept, expected = brain_surgeon(weight.double().numpy(), hessian, n, m)
    assert np.array_equal(kept.numpy(), expected_kept)
    np.testing.assert_allclose(updated.numpy(), expected, atol=1e-9)
    scaled_kept, scaled = prune_columns(weight, moments * 8, n, m)
    assert torch.equal(scaled_kept, kept) and torch.allclose(scaled, updated)


def test_inputs_that_were_never_active_are_dropped_first_and_disturb_nothing():
    generator = torch.Generator().manual_seed(3)
    weight, inputs = torch.randn(6, 16, generator=generator), torch.randn(30, 16, generator=generator)
    inputs[:, [1, 8, 9, 10]] = 0
    kept, updated = prune_columns(weight, inputs.T @ inputs)
    assert not kept[:, 1].any() and kept[:, 11].all()
    left = weight[:, 8:11].abs().argmax(1) + 8  # of three dead inputs the largest weight stays, and stays as it is
    rows = torch.arange(6)
    assert kept[rows, left].all() and torch.equal(updated[rows, left].float(), weight[rows, left])
    active = [0, 2, 3, *range(4, 8), 11, *range(12, 16)]
    hessian = (inputs.T @ inputs).double().numpy()[np.ix_(active, active)]
    hessian += 0.01 * hessian.diagonal().mean() * np.eye(len(active))
    inverse = torch.from_numpy(np.linalg.inv(hessian))
    factor = inverse_factor((inputs.T @ inputs).double())[active][:, active]
    assert torch.allclose(factor.T @ factor, inverse) and torch.equal(factor, factor.triu())


def test_damping_grows_until_a_singular_hessian_can_be_factored():
    moments = torch.full((8, 8), 1e4)
    moments[0, 0] -= 1  # no XᵀX, but what rounding can leave of one: an eigenvalue is negative
    with pytest.raises(torch.linalg.LinAlgError):
        torch.linalg.cholesky(moments.double() + 1e-9 * 1e4 * torch.eye(8))
    factor = inverse_factor(moments.double(), damping=0)
    assert factor.isfinite().all()
    weight = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    kept, updated = prune_columns(weight, moments, damping=0)
    assert (kept.view(3, 2, 4).sum(2) == 2).all() and updated.isfinite().all()


@pytest.mark.parametrize("update", [True, False])
def test_sparsegpt_hands_on_what_it_returns(update):
    def prune(weight, inputs):
        kept, updated = prune_columns(weight, inputs.T @ inputs)
        return updated.float() if update else weight * kept

    expected = pruned_in_sequence(tiny_model(), prune)
    result = sparsegpt(tiny_model(), WINDOWS, update=update, **PLAIN)
    assert (result.weights is not None) == update
    for name, mask in result.masks.items():
        assert torch.equal(mask.dense(), expected[name] != 0), name
        if update:
            assert result.weights[name].dtype == torch.float32
            assert torch.allclose(result.weights[name], expected[name], atol=1e-5), name


@pytest.mark.parametrize(("n", "m"), PATTERNS)
def test_swaps_refine_wandas_mask_block_after_block(n, m):
    def prune(weight, inputs):
        start = highest(weight.abs() * inputs.square().sum(0).sqrt(), n, m)
        return weight * refine(weight, inputs.T @ inputs, start, n, m)

    expected = pruned_in_sequence(tiny_model(), prune)
    result = swaps(tiny_model(), WINDOWS, n, m, **PLAIN)
    assert result.weights is None and result.masks.keys() == expected.keys()
    for name, mask in result.masks.items():
        assert torch.equal(mask.dense(), expected[name] != 0), name


def test_admm_hands_on_what_it_returns():
    expected = pruned_in_sequence(tiny_model(), lambda weight, inputs: alternate(weight, inputs.T @ inputs)[1])
    result = admm(tiny_model(), WINDOWS, **PLAIN)
    for name, mask in result.masks.items():
        assert torch.equal(mask.dense(), expected[name] != 0), name
        assert torch.allclose(result.weights[name], expected[name], atol=1e-5), name


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("method", UPDATING)
def test_the_update_brings_the_output_of_every_layer_nearer(method, family):
    model = tiny_model(family)
    layers = prunable_layers(model)
    result = METHODS[method](model, WINDOWS, **PLAIN)
    seen = inputs_of(model, layers)
    for name, layer in layers.items():
        if layer.block == 0:
            errors = [
                (seen[name] @ (layer.matrix - pruned).T).norm()
                for pruned in (result.weights[name], result.masks[name].applied_to(layer.matrix))
            ]
            assert errors[0] < 0.95 * errors[1], name


@pytest.mark.parametrize(("n", "m"), PATTERNS)
def test_fisher_sums_the_squared_gradients_of_windows(n, m):
    model = tiny_model("gpt2")
    layers = prunable_layers(model)
    squares = {name: 0 for name in layers}
    for window in WINDOWS:
        logits = model(input_ids=window.unsqueeze(0)).logits[0, :-1]
        loss = torch.nn.functional.cross_entropy(logits, window[1:])
        gradients = torch.autograd.grad(loss, [layer.parameter for layer in layers.values()])
        for (name, layer), gradient in zip(layers.items(), gradients, strict=True):
            squares[name] = squares[name] + layer.matrix_of(gradient).double().square()
    result = fisher(model, WINDOWS, n, m, **PLAIN)
    for name, layer in layers.items():
        assert torch.equal(result.masks[name].dense(), highest(layer.matrix.double().square() * squares[name], n, m))


def test_fisher_gives_gradients_back_as_they_were():
    model = tiny_model()
    norm = model.model.norm.weight.requires_grad_(False)
    learned = model.model.layers[0].mlp.up_proj.weight
    learned.grad = gradient = torch.ones_like(learned)
    fisher(model, WINDOWS, **PLAIN)
    assert learned.grad is gradient and (gradient == 1).all() and not norm.requires_grad
    assert all(p.requires_grad and (p is learned or p.grad is None) for p in model.parameters() if p is not norm)


def test_equal_scores_are_ranked_by_the_weight_and_then_by_position():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 2, (40, 8), generator=generator).float()
    ties = torch.randint(0, 3, (40, 8), generator=generator).float()
    expected = highest(10 * scores + ties, 2, 4)
    assert torch.equal(Mask.of_scores(scores, ties=ties).dense(), expected)
    assert torch.equal(Mask.of_scores(scores).dense(), highest(scores, 2, 4))
    with pytest.raises(ProxSparseError, match="not a number"):
        Mask.of_scores(scores / 0)


def test_random_masks_follow_their_seed_and_prefer_no_pattern():
    model = tiny_model()
    masks = random_mask(model).masks
    assert set(masks.flips(random_mask(model, WINDOWS, seed=0).masks).values()) == {0}
    assert 0 not in masks.flips(random_mask(model, seed=1).masks).values()
    patterns = torch.cat([mask.dense().view(-1, 4) for mask in masks.values()]) * torch.tensor([1, 2, 4, 8])
    counts = patterns.sum(1).bincount(minlength=16)
    assert (counts > 0).sum() == 6
    assert (counts[counts > 0] / len(patterns) - 1 / 6).abs().max() < 0.02  # 3.6 standard deviations


def state_of(model):
    """What a method could leave changed."""
    hooks = [len(module._forward_pre_hooks) + len(module._forward_hooks) for module in model.modules()]
    learning = [(parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    weights = [parameter.detach().clone().view(torch.uint8) for parameter in model.parameters()]
    experts = model.get_experts_implementation() if model._can_set_experts_implementation() else None
    return hooks, learning, experts, model.config._attn_implementation, weights


def unchanged(model, before):
    now = state_of(model)
    return now[:-1] == before[:-1] and all(map(torch.equal, now[-1], before[-1]))


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "gemma", "mixtral"])
@pytest.mark.parametrize("method", ONE_SHOT)
def test_every_method_keeps_n_of_m_and_leaves_the_model_as_it_came(method, family):
    model = tiny_model(family)
    before, seen = state_of(model), []
    result = METHODS[method](model, WINDOWS, progress=lambda done, total, what: seen.append((done, total)))
    assert unchanged(model, before)
    layers = prunable_layers(model)
    assert list(result.masks) == list(layers)
    for name, mask in result.masks.items():
        assert (mask.dense().reshape(-1, 4).sum(1) == 2).all() and mask.shape == tuple(layers[name].matrix.shape)
    assert (result.weights is not None) == (method in UPDATING)
    for name, weight in (result.weights or {}).items():
        assert torch.equal(weight != 0, result.masks[name].dense()) and weight.dtype == layers[name].matrix.dtype
    done, totals = zip(*seen, strict=True)
    assert list(done) == sorted(done) and done[0] == 0 and done[-1] <= totals[0] and len(set(totals)) == 1


@pytest.mark.parametrize("method", ONE_SHOT)
def test_weights_in_bf16_stay_in_bf16(method):
    model = tiny_model().bfloat16()
    before = state_of(model)
    result = METHODS[method](model, WINDOWS)
    assert unchanged(model, before)
    assert all((mask.dense().view(-1, 4).sum(1) == 2).all() for mask in result.masks.values())
    assert {weight.dtype for weight in (result.weights or {}).values()} <= {torch.bfloat16}


@pytest.mark.parametrize("method", ONE_SHOT)
def test_a_method_that_is_stopped_leaves_the_model_as_it_came(method):
    model = tiny_model("mixtral")
    before, calls = state_of(model), []
    METHODS[method](model, WINDOWS, progress=lambda *_: calls.append(_))
    for stop in {1, len(calls) // 2, len(calls) * 3 // 4, len(calls)}:
        left = stop

        def progress(*_):
            nonlocal left
            left -= 1
            if left == 0:
                raise InterruptedError

        with pytest.raises(InterruptedError):
            METHODS[method](model, WINDOWS, progress=progress)
        assert unchanged(model, before), stop


def test_the_weights_are_whole_again_when_passing_the_text_on_fails():
    model = tiny_model()
    before = state_of(model)

    def progress(done, total, what):
        if what.startswith("passing") and not unchanged(model, before):
            raise InterruptedError

    with pytest.raises(InterruptedError):
        wanda(model, WINDOWS, progress=progress)
    assert unchanged(model, before)


def test_only_the_layers_that_are_named_are_pruned():
    model = tiny_model()
    layers = prunable_layers(model)
    for name in list(layers):
        if not name.startswith("model.layers.1.mlp"):
            del layers[name]
    result = wanda(model, WINDOWS, layers=layers, **PLAIN)
    scales = activation_scales(model, layers, WINDOWS, "fp32")  # nothing before it is pruned
    assert list(result.masks) == list(layers)
    for name, layer in layers.items():
        assert result.masks[name].flips(Mask.project(layer.matrix, scale=scales[name])) == 0


@pytest.mark.parametrize("method", ["wanda", "ria", "fisher", "sparsegpt", "sparsegpt-update", "admm", "swaps"])
def test_an_expert_without_tokens_gets_its_magnitude_mask(method):
    model = tiny_model("mixtral")
    for block in model.model.layers:
        torch.nn.init.zeros_(block.mlp.gate.weight)  # every token goes to the same two of four
    result, by_magnitude = METHODS[method](model, WINDOWS, **PLAIN), magnitude(model).masks
    layers = prunable_layers(model)
    scales = activation_scales(model, layers, WINDOWS, "fp32")
    idle = {name for name, scale in scales.items() if (scale == 1).all()}
    assert len(idle) == 2 * 2 * 2  # blocks, projections, experts
    assert idle == {name for name, mask in result.masks.items() if mask.flips(by_magnitude[name]) == 0}
    for name in idle if result.weights else ():
        assert torch.equal(result.weights[name], by_magnitude[name].applied_to(layers[name].matrix))


@pytest.mark.parametrize("method", ["wanda", "ria", "fisher", "sparsegpt", "admm", "swaps"])
def test_what_cannot_be_measured_is_one_sentence(method):
    model = tiny_model()
    with pytest.raises(ProxSparseError, match="no calibration text"):
        METHODS[method](model, None)
    model.model.layers[0].mlp.up_proj.weight.data[3, 3] = torch.nan
    with pytest.raises(ProxSparseError, match="broken"):
        METHODS[method](model, WINDOWS)
