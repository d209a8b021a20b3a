"""Text that a model writes itself: from its own distribution, once, and by itself a text to learn on."""

import json
from itertools import pairwise

import pytest
import torch
from tiny_models import tiny_model, tiny_tokenizer

from proxsparse import ProxSparseError
from proxsparse.models import own_text
from proxsparse.models.language_model import LanguageModel
from proxsparse.models.own_text import own_text_file, separator_of, write_own_text


@pytest.fixture
def lm():
    return LanguageModel(tiny_model(), tiny_tokenizer(), "tiny", "tiny", 64)


@pytest.fixture
def few(monkeypatch, tmp_path):
    monkeypatch.setenv("PROXSPARSE_CACHE", str(tmp_path))
    monkeypatch.setattr(own_text, "PIECES", 12)
    monkeypatch.setattr(own_text, "TOKENS", 40)
    return tmp_path


def test_the_first_token_is_drawn_from_what_the_model_says_after_a_separator(lm):
    with torch.no_grad():
        logits = lm.model(input_ids=torch.tensor([[separator_of(lm)]])).logits[0, -1]
    probabilities = logits.double().softmax(-1)
    count = 3000
    drawn = [ord(text) for text in write_own_text(lm, count, 1, top_p=1.0, seed=3) if len(text) == 1]
    seen = torch.bincount(torch.tensor(drawn), minlength=len(probabilities)).double()
    written = probabilities[3:] / probabilities[3:].sum()  # the others are special, and are not part of a text
    count = seen[3:].sum()
    spread = (written * (1 - written) / count).sqrt()
    assert ((seen[3:] / count - written).abs() < 4.5 * spread).all()


def test_only_the_most_probable_tokens_are_drawn(lm):
    with torch.no_grad():
        logits = lm.model(input_ids=torch.tensor([[separator_of(lm)]])).logits[0, -1]
    ranked = logits.softmax(-1).sort(descending=True)
    nucleus = ranked.indices[: int((ranked.values.cumsum(0) < 0.3).sum()) + 1].tolist()
    drawn = {ord(text) for text in write_own_text(lm, 500, 1, top_p=0.3) if len(text) == 1}
    assert drawn <= set(nucleus) and len(drawn) > 1


def test_the_same_seed_writes_the_same_and_the_rest_of_the_program_draws_as_before(lm):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first = list(write_own_text(lm, 3, 20, seed=1))
    assert torch.equal(torch.rand(3), expected)
    assert first == list(write_own_text(lm, 3, 20, seed=1)) != list(write_own_text(lm, 3, 20, seed=2))


def test_it_is_written_once_for_the_same_weights(lm, few):
    told = []
    path = own_text_file(lm, "a" * 64, lambda *about: told.append(about))
    pieces = [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]
    assert path.is_relative_to(few) and len(pieces) == own_text.PIECES
    assert told and told[-1][0] <= told[-1][1] == own_text.PIECES * own_text.TOKENS
    told.clear()
    assert own_text_file(lm, "a" * 64, lambda *about: told.append(about)) == path and not told
    assert own_text_file(lm, "b" * 64) != path


def test_who_stops_the_writing_leaves_nothing_behind(lm, few):
    def stop(done, total, what):
        if done > 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        own_text_file(lm, "a" * 64, stop)
    assert not [path for path in few.rglob("*") if path.is_file()]


def test_it_is_a_text_to_learn_on_and_to_judge_on(lm, few):
    text = lm.windows("self", 8, 16)
    assert text.name == "self" and len(text.calibration) > 10 and len(text.heldout) > 1
    judged = lm.heldout("self", 16, learned_on=text.corpus)
    assert torch.equal(judged.windows, text.heldout), "what was learned on is not judged on"


def test_without_a_token_between_documents_there_is_a_sentence(lm):
    lm.tokenizer.eos_token = lm.tokenizer.bos_token = None
    with pytest.raises(ProxSparseError, match="no token between documents"):
        list(write_own_text(lm, 1, 4))


def test_mixed_has_the_own_text_and_the_bundled_one_in_every_stretch_and_judges_on_text_that_people_wrote(lm, few):
    own, bundled, mixed = lm.windows("self", 8, 16), lm.windows("bundled", 8, 16), lm.windows("mixed", 8, 16)
    assert mixed.name == "mixed" and torch.equal(mixed.heldout, bundled.heldout)
    text, pieces = mixed.corpus.calibration, [piece for piece in own.corpus.calibration.split("\n\n") if piece]
    assert all(piece in text for piece in pieces), "all that was written to learn on"
    written = [json.loads(line)["text"] for line in next(few.rglob("*.jsonl")).read_text("utf-8").splitlines()]
    assert not any(piece in text for piece in written[-2:]), "and not what is held out"
    assert len(text) == len(own.corpus.calibration) + len(bundled.corpus.calibration) + 2, "and all of the bundled text"
    places = [0, *sorted(text.index(piece) for piece in pieces), len(text)]
    assert max(later - earlier for earlier, later in pairwise(places)) < len(text) / 3
    assert torch.equal(lm.heldout("mixed", 16).windows, bundled.heldout)


@pytest.mark.parametrize("name", ["self", "mixed"])
def test_by_itself_the_name_says_where_to_read_it(lm, name):
    from proxsparse import load_windows

    with pytest.raises(ProxSparseError, match=r"LanguageModel\.windows"):
        load_windows(name, lm.tokenizer)
