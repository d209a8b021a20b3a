"""Next-token probabilities and completions agree with plain forward passes."""

import math

import pytest
import torch

from proxsparse import ProxSparseError, load_model, next_tokens
from proxsparse.evaluation.completions import complete, complete_aloud
from proxsparse.evaluation.next_token import check_prompt, divergence, next_token_probabilities

PROMPT = "ABCDE"


@pytest.fixture(scope="module")
def lm(tiny_directory):
    return load_model(str(tiny_directory), "cpu")


def logits_of(lm, ids):
    with torch.no_grad():
        return lm.model(torch.tensor([ids])).logits[0, -1]


def test_probabilities_are_those_of_a_plain_forward(lm):
    wanted = logits_of(lm, [ord(letter) for letter in PROMPT]).softmax(0)
    found = next_token_probabilities(lm, PROMPT)
    torch.testing.assert_close(found, wanted)
    table = next_tokens(lm, PROMPT, count=4, reference=torch.full_like(wanted, 0.25))
    order = wanted.argsort(descending=True)[:4]
    assert table["token"].tolist() == order.tolist()
    assert table["probability"].tolist() == pytest.approx(wanted[order].tolist())
    assert table["text"].tolist() == [lm.tokenizer.decode([token]) for token in order.tolist()]
    assert table["reference"].tolist() == [0.25] * 4


def test_pieces_together_are_the_greedy_completion(lm):
    ids = [ord(letter) for letter in PROMPT]
    for _ in range(12):
        ids.append(int(logits_of(lm, ids).argmax()))
        if ids[-1] == lm.tokenizer.eos_token_id:
            break
    wanted, pieces = lm.tokenizer.decode(ids[len(PROMPT) :], skip_special_tokens=True), []
    assert complete_aloud(lm, PROMPT, 12, pieces.append) == wanted
    assert "".join(pieces) == wanted and len(pieces) > 1
    assert complete(lm, [PROMPT], 12) == [wanted]


def test_what_is_raised_while_pieces_come_ends_the_completion(lm):
    class Enough(Exception):
        pass

    def tell(piece):
        raise Enough

    with pytest.raises(Enough):
        complete_aloud(lm, PROMPT, 12, tell)


@pytest.mark.parametrize(("prompt", "words"), [("", "empty"), (" \n", "empty"), ("A" * 62, "62 tokens, and 60")])
def test_prompts_that_cannot_be(lm, prompt, words):
    with pytest.raises(ProxSparseError, match=words):
        check_prompt(lm, prompt, 4)  # the tiny model reads 64 tokens


def test_divergence_is_its_definition():
    p, q = torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0.25, 0.5, 0.25])
    assert divergence(p, q) == pytest.approx(0.5 * math.log(2))
    assert divergence(p, p) == 0
    assert divergence(p, torch.tensor([0.0, 1.0, 0.0])) == math.inf
