"""Perplexity against its definition."""

import json
import math

import pytest
import torch
from tiny_models import FAMILIES, LLAMA_LIKE, random_windows, save_tiny_model, tiny_model
from transformers import AutoModelForCausalLM, Gemma2Config

from proxsparse import ProxSparseError, load_model, perplexity, prunable_layers
from proxsparse.cli import main
from proxsparse.models.forward import head_is_all, next_token_losses


def test_it_is_the_exponential_of_the_mean_loss():
    model, windows = tiny_model(), random_windows(7, 24)
    found = perplexity(model, windows, batch=3, precision="fp32")
    losses = []
    with torch.no_grad():
        for window in windows:
            probabilities = model(input_ids=window.unsqueeze(0)).logits[0].double().softmax(-1)
            losses.append([-math.log(probabilities[i, window[i + 1]]) for i in range(23)])
    means = torch.tensor(losses, dtype=torch.float64).mean(1)
    assert found.value == pytest.approx(means.mean().exp().item(), rel=1e-5)
    assert found.stderr == pytest.approx(found.value * means.std().item() / math.sqrt(7), rel=1e-4)
    assert (found.tokens, found.windows, found.context) == (7 * 23, 7, 24)


def test_batches_do_not_matter_and_progress_is_told():
    model, windows = tiny_model(), random_windows(5, 16)
    seen = []
    one = perplexity(model, windows, batch=1, precision="fp32")
    two = perplexity(
        model, windows, batch=2, precision="fp32", progress=lambda done, total, _: seen.append((done, total))
    )
    assert one.value == pytest.approx(two.value, rel=1e-5)
    assert seen == [(0, 5), (2, 5), (4, 5)]


def test_bf16_is_close():
    model, windows = tiny_model(), random_windows(5, 16)
    exact, rough = (perplexity(model, windows, precision=precision).value for precision in ("fp32", "bf16"))
    assert exact != rough and exact == pytest.approx(rough, rel=1e-2)


def test_nothing_to_measure_and_broken_models_are_one_sentence():
    model = tiny_model()
    with pytest.raises(ProxSparseError, match="nothing to measure"):
        perplexity(model, random_windows(0, 16))
    with pytest.raises(ProxSparseError, match="precision is"):
        perplexity(model, random_windows(2, 16), precision="fp8")
    model.lm_head.weight.data.fill_(float("nan"))
    with pytest.raises(ProxSparseError, match="not a finite number"):
        perplexity(model, random_windows(2, 16))


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_in_pieces_are_the_same_loss_and_the_same_gradient(family, monkeypatch):
    model, windows, results = tiny_model(family), random_windows(5, 16), []
    assert head_is_all(model)
    for most in (1 << 27, 128 * 7):  # all at once; seven tokens at a time, which do not divide 75
        monkeypatch.setattr("proxsparse.models.forward.MOST_LOGITS", most)
        losses = next_token_losses(model, windows)
        losses.mean().backward()
        results.append([losses.detach(), *(layer.grad.clone() for layer in prunable_layers(model).parameters())])
        model.zero_grad()
    for one, other in zip(*results, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_a_model_that_caps_its_logits_is_asked_for_all_of_them(monkeypatch):
    config = Gemma2Config(**LLAMA_LIKE, head_dim=8, final_logit_softcapping=0.05)
    model, windows = AutoModelForCausalLM.from_config(config).eval(), random_windows(3, 16)
    expected = next_token_losses(model, windows)
    assert not head_is_all(model)
    monkeypatch.setattr("proxsparse.models.forward.MOST_LOGITS", 128)
    assert torch.equal(next_token_losses(model, windows), expected)


@pytest.mark.parametrize("family", ["llama", "gemma"])
def test_gemma_gets_a_bos_token_in_every_window_unless_told_otherwise(family, tmp_path, text_file, capsys):
    directory = save_tiny_model(tmp_path / family, family)
    lm = load_model(str(directory), "cpu")
    begun = {
        bos: bool((lm.windows(str(text_file), 16, 32, bos).heldout[:, 0] == 1).all())
        for bos in ("auto", "every", "once")
    }
    assert begun == {"auto": family == "gemma", "every": True, "once": False}
    with pytest.raises(ProxSparseError, match="bos is 'twice': choose one of auto, every, once"):
        lm.windows(str(text_file), 16, bos="twice")
    arguments = [
        "eval",
        str(directory),
        "--corpus",
        str(text_file),
        "--context",
        "32",
        "--windows",
        "3",
        "--precision",
        "fp32",
    ]
    assert main(arguments) == 0
    assert ("A BOS token begins every window (--bos auto): on the first 3" in capsys.readouterr().out) == (
        family == "gemma"
    )
    assert main([*arguments, "--bos", "every", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["bos"]
    windows = lm.windows(str(text_file), 32, 32, "every").heldout[:3]
    for name, some, first in (("with", windows, 1), ("without", windows[:, 1:], 0)):
        losses = next_token_losses(lm.model, some)[:, first:]
        assert told[name] == pytest.approx(losses.mean().exp().item(), rel=1e-5)
    assert main([*arguments, "--bos", "once", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bos"] is None
