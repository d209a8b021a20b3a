"""The loss of every token, and its gradient, against what autograd makes of torch's own losses: bit for bit."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from proxsparse.models import token_losses as module
from proxsparse.models.token_losses import token_losses


def by_autograd(logits, targets, teacher, share):
    predicted = logits.float().log_softmax(-1)
    language = F.nll_loss(predicted, targets, reduction="none")
    if share == 0:
        return language
    wanted = teacher.float().log_softmax(-1)
    divergence = F.kl_div(predicted, wanted, reduction="none", log_target=True).sum(-1)
    return share * divergence + (1 - share) * language


@given(
    st.integers(1, 20), st.integers(2, 200), st.sampled_from([torch.float32, torch.bfloat16]), st.sampled_from([0.0, 0.3, 1.0]),
    st.integers(0, 100),
)  # fmt: skip
@settings(max_examples=60, deadline=None, derandomize=True)
def test_losses_and_gradients_are_those_of_the_definition(tokens, vocabulary, dtype, share, seed):
    generator = torch.Generator().manual_seed(seed)
    logits, teacher = (3 * torch.randn(2, tokens, vocabulary, generator=generator)).to(dtype)
    targets = torch.randint(vocabulary, (tokens,), generator=generator)
    weights = torch.rand(tokens, generator=generator)
    found, gradients = [], []
    for loss in (token_losses, by_autograd):
        leaf = logits.clone().requires_grad_()
        losses = loss(leaf, targets, teacher, share)
        (losses * weights).sum().backward()
        found.append(losses.detach())
        gradients.append(leaf.grad)
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(*gradients)
    if share in (0, 1):
        assert torch.equal(*gradients), "no mixture, no other order of additions"


@pytest.mark.parametrize("share", [0.0, 0.4])
def test_some_tokens_at_a_time_are_all_tokens(share, monkeypatch):
    logits, teacher, targets = torch.randn(11, 50), torch.randn(11, 50), torch.randint(50, (11,))

    def found():
        leaf = logits.clone().requires_grad_()
        losses = token_losses(leaf, targets, teacher, share)
        losses.sum().backward()
        return losses.detach(), leaf.grad

    whole = found()
    monkeypatch.setattr(module, "CACHED", 1)
    assert all(torch.equal(a, b) for a, b in zip(whole, found(), strict=True))


def test_no_gradient_is_made_where_none_is_asked_for():
    losses = token_losses(torch.randn(3, 5), torch.tensor([0, 1, 2]))
    assert losses.shape == (3,) and not losses.requires_grad
