"""How a forward pass is computed, where a model is not written for it."""

import pytest
import torch
from families.tiny_configs import tiny_config
from tiny_models import random_windows, tiny_model
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from proxsparse import ProxSparseError, perplexity
from proxsparse.models import forward


def test_a_family_that_does_not_run_in_bf16_autocast_says_so():
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(tiny_config("dbrx")).eval()
    with pytest.raises(ProxSparseError, match=r"does not run in bf16 autocast \(.*\): choose precision fp32\.$"):
        perplexity(model, random_windows(2, 16), precision="bf16")
    assert perplexity(model, random_windows(2, 16), precision="fp32").value > 1


def test_other_errors_inside_autocast_are_left_as_they_are():
    with pytest.raises(RuntimeError, match="something else"), forward.autocast(torch.device("cpu"), "bf16"):
        raise RuntimeError("something else")


@pytest.mark.parametrize("family", ["electra", "rembert", "gpt2"])
def test_logits_in_pieces_are_those_of_the_whole(family, monkeypatch):
    """Also where a layer stands between the last hidden state and the head, or the head has another width."""
    torch.manual_seed(0)
    config = tiny_config(family)
    if family == "electra":
        config.embedding_size = 16
    model = AutoModelForCausalLM.from_config(config).eval()
    whole = forward.next_token_losses(model, random_windows(2, 16))
    monkeypatch.setattr(forward, "MOST_LOGITS", 256)
    assert torch.allclose(forward.next_token_losses(model, random_windows(2, 16)), whole, atol=1e-5)


def test_a_model_that_is_its_own_base_is_taken_whole(monkeypatch):
    model = tiny_model()
    monkeypatch.setattr(type(model), "base_model", property(lambda self: self))
    monkeypatch.setattr(forward, "MOST_LOGITS", 256)
    assert forward.next_token_losses(model, random_windows(2, 16)).shape == (2, 15)
