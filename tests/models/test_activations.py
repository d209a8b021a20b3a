"""What enters a layer is seen in whatever way a model writes the product."""

import pytest
import torch
from torch import nn

from proxsparse.layers import PrunableLayer
from proxsparse.models.activations import InputNorms, InputObserver

TOKENS = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))  # (batch, tokens, in)


def layer(parameter, expert=None, transposed=False, stored=None):
    return PrunableLayer(f"w{expert}", 0, "w", parameter, expert, transposed, stored)


def random(*shape):
    return nn.Parameter(torch.randn(*shape, generator=torch.Generator().manual_seed(1)))


PLAIN = layer(random(4, 8))
TURNED = layer(random(8, 4), transposed=True)
APART = layer(random(8, 2, 2), transposed=True, stored=(1, 8, 4))  # heads stored apart, as in XLNet
FORMS = {
    "linear": (PLAIN, lambda weight: nn.functional.linear(TOKENS, weight)),
    "x @ W": (TURNED, lambda weight: TOKENS @ weight),
    "matmul": (TURNED, lambda weight: torch.matmul(TOKENS, weight)),
    "W @ x": (PLAIN, lambda weight: weight @ TOKENS.mT),
    "mm": (PLAIN, lambda weight: torch.mm(TOKENS.flatten(0, 1), weight.t())),
    "addmm": (TURNED, lambda weight: torch.addmm(torch.zeros(4), TOKENS.flatten(0, 1), weight)),
    "einsum": (APART, lambda weight: torch.einsum("bth,hnd->btnd", TOKENS, weight)),
    "einsum, weight first": (PLAIN, lambda weight: torch.einsum("oi, bti -> bto", weight, TOKENS)),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_product_is_seen(form):
    weight, product = FORMS[form]
    norms = InputNorms(weight)
    with torch.no_grad(), InputObserver({weight.name: weight}, {weight.name: norms}):
        product(weight.parameter)
    assert norms.tokens == 10
    assert torch.allclose(norms.norms(), TOKENS.flatten(0, 1).norm(dim=0))


@pytest.mark.parametrize(
    "product",
    [torch.bmm, torch.matmul, lambda inputs, weight: torch.baddbmm(torch.zeros(2, 1, 4), inputs, weight)],
)
def test_experts_that_are_multiplied_at_once_are_told_apart(product):
    parameter = random(2, 8, 4)
    experts = {f"w{index}": layer(parameter, index, True, (2, 8, 4)) for index in (0, 1)}
    seen = {name: InputNorms(expert) for name, expert in experts.items()}
    with torch.no_grad(), InputObserver(experts, seen):
        product(TOKENS, parameter)
    for index, norms in enumerate(seen.values()):
        assert norms.tokens == 5 and torch.allclose(norms.norms(), TOKENS[index].norm(dim=0))


def test_experts_on_the_left_are_told_apart_in_every_batch():
    parameter = random(2, 4, 8)
    experts = {f"w{index}": layer(parameter, index, False, (2, 4, 8)) for index in (0, 1)}
    seen = {name: InputNorms(expert) for name, expert in experts.items()}
    inputs = torch.randn(2, 3, 8, 5, generator=torch.Generator().manual_seed(2))  # (experts, batch, in, tokens)
    with torch.no_grad(), InputObserver(experts, seen):
        parameter[:, None] @ inputs
    for index, norms in enumerate(seen.values()):
        assert norms.tokens == 15
        assert torch.allclose(norms.norms(), inputs[index].transpose(0, 1).flatten(1).norm(dim=1))
