"""Text and windows."""

import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import tiny_text, tiny_tokenizer

from proxsparse import ProxSparseError, load_heldout, load_model, load_windows
from proxsparse.text import BUNDLED, load_corpus, read_documents, split


def test_the_parts_of_a_file_do_not_overlap(text_file):
    corpus = load_corpus(str(text_file))
    whole = text_file.read_text()
    assert corpus.calibration + "\n\n" + corpus.heldout == whole
    assert 0.78 < len(corpus.calibration) / len(whole) < 0.87


@given(
    st.lists(
        st.text(alphabet="ab. \n", max_size=60)
        | st.sampled_from(["", "x" * 500, "words of it " * 30, "One. Two.\n\n" * 20]),
        min_size=1,
        max_size=30,
    )
)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_a_split_loses_nothing_and_is_near_eighty_percent(documents):
    whole = "\n\n".join(documents)
    calibration, heldout = split(documents)
    assert whole in (calibration + heldout, calibration + "\n\n" + heldout)
    if len(whole) >= 2:
        assert calibration and heldout
    if len(whole) >= 10:
        assert 0.7 <= len(calibration) / len(whole) <= 0.9


@pytest.mark.parametrize("boundary", ["\n\n", "\n", ". ", " ", "。"])
def test_few_long_documents_are_cut_at_a_boundary(boundary):
    long = ("x" * 90 + boundary) * 100
    for documents in (["Title", long], [long], [long[:300], long]):
        calibration, heldout = split(documents)
        assert calibration.endswith(boundary) and heldout.startswith("x")
        assert 0.78 < len(calibration) / (len(calibration) + len(heldout)) < 0.82


def test_a_long_last_paragraph_leaves_enough_to_calibrate_on():
    calibration, heldout = split(["Title", "x" * 100_000])
    assert len(calibration) == 80_006 and len(calibration) + len(heldout) == 100_007


def test_jsonl_may_hold_what_else_ends_a_line(tmp_path, monkeypatch):
    path = tmp_path / "documents.jsonl"
    documents = ["plain", "a\u2028b", "c\u2029d", "e\u0085f", "g\x1ch"]
    lines = [json.dumps({"text": document}, ensure_ascii=False) for document in documents]
    path.write_bytes("\r\n".join(lines).encode())
    assert read_documents(path) == documents
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_corpus("~/documents.jsonl").name == "documents.jsonl"


def test_windows_are_packed_and_of_the_stated_length(text_file):
    tokenizer = tiny_tokenizer()
    text = load_windows(str(text_file), tokenizer, length=48, context=64)
    assert text.calibration.shape[1] == 48 and text.heldout.shape[1] == 64
    assert len(text.calibration) == text.calibration_tokens // 48
    ids = tokenizer(load_corpus(str(text_file)).calibration)["input_ids"]
    assert text.calibration.flatten().tolist() == ids[: text.calibration.numel()]
    assert load_windows(str(text_file), tokenizer, length=48).sha256 == text.sha256


def test_a_bos_token_begins_every_window_where_it_is_asked_for(text_file):
    tokenizer = tiny_tokenizer()
    plain = load_windows(str(text_file), tokenizer, length=48, context=64)
    text = load_windows(str(text_file), tokenizer, length=48, context=64, bos=True)
    assert text.bos and not plain.bos and text.sha256 == plain.sha256
    ids = tokenizer(load_corpus(str(text_file)).heldout)["input_ids"]
    assert text.heldout.shape[1] == 64 and (text.heldout[:, 0] == tokenizer.bos_token_id).all()
    assert text.heldout[:, 1:].flatten().tolist() == ids[: len(text.heldout) * 63]

    class AddsIt:  # as Llama's and Gemma's tokenizers do, once a text
        bos_token_id = tokenizer.bos_token_id

        def __call__(self, text, **options):
            return {"input_ids": [self.bos_token_id, *tokenizer(text, **options)["input_ids"]]}

    assert load_windows(str(text_file), AddsIt(), 48, bos=True).calibration.equal(text.calibration)
    tokenizer.bos_token = None
    with pytest.raises(ProxSparseError, match="has no BOS token to begin a window with: set bos to once"):
        load_windows(str(text_file), tokenizer, 48, bos=True)


def test_a_token_that_the_model_does_not_know_is_named(tmp_path):
    path, tokenizer = tmp_path / "text.txt", tiny_tokenizer()
    tokenizer.add_tokens(["<odd>"])
    path.write_text("abc " * 100)
    load_windows(str(path), tokenizer, 16, vocabulary=128)  # it is nowhere in the text
    path.write_text("abc " * 100 + "<odd>")
    with pytest.raises(
        ProxSparseError, match=r"text.txt needs the token '<odd>' \(128\), which lies beyond the 128 rows"
    ):
        load_windows(str(path), tokenizer, 16, vocabulary=128)


@pytest.mark.parametrize("name", ["text.txt", "text.jsonl"])
def test_a_pointer_of_git_lfs_is_called_so(name, tmp_path):
    path = tmp_path / name
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    with pytest.raises(ProxSparseError, match="is a Git LFS pointer and not the file itself: run `git lfs pull`"):
        read_documents(path)


def test_jsonl(tmp_path):
    path = tmp_path / "documents.jsonl"
    documents = tiny_text().split("\n\n")
    path.write_text("\n".join(json.dumps({"text": document}) for document in documents))
    corpus = load_corpus(str(path))
    assert corpus.calibration.split("\n\n") + corpus.heldout.split("\n\n") == documents


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", b"short", "too few for one window of 32"),
        ("a.txt", b"\xff\xfe\x00binary", "is not text"),
        ("a.txt", b"zero \0 bytes", "zero bytes"),
        ("a.jsonl", b'{"text": "fine"}\n{"no": 1}', "Line 2"),
        ("a.jsonl", b"not json", "Line 1"),
        ("a.pdf", b"", "There is no corpus"),
    ],
)
def test_bad_texts_are_one_sentence(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ProxSparseError, match=words):
        load_windows(str(path), tiny_tokenizer(), length=32)


def test_bad_requests_are_one_sentence(text_file):
    with pytest.raises(ProxSparseError, match="There is no file"):
        load_windows("missing.txt", tiny_tokenizer())
    with pytest.raises(ProxSparseError, match="There is no corpus 'nothing'"):
        load_windows("nothing", tiny_tokenizer())
    with pytest.raises(ProxSparseError, match="context is 128 and the model reads at most 64"):
        load_windows(str(text_file), tiny_tokenizer(), length=32, context=128, model_context=64)
    with pytest.raises(ProxSparseError, match="from the Hub"):
        load_windows("wikitext2", tiny_tokenizer())


def test_what_was_learned_on_is_never_judged_on(text_file, tmp_path):
    tokenizer = tiny_tokenizer()
    corpus = load_windows(str(text_file), tokenizer, 16, 32).corpus
    paragraphs = text_file.read_text(encoding="utf-8").split("\n\n")
    held_out = corpus.heldout.split("\n\n")

    def judged(path, **more):
        return load_heldout(str(path), tokenizer, 32, learned_on=corpus, **more)

    def as_text(found):
        return tokenizer.decode(found.windows.flatten().tolist()).replace(" ", "")

    same = judged(text_file)
    assert as_text(same) in corpus.heldout.replace(" ", "") and same.left_out == 0

    new = tiny_text(3, seed=9).split("\n\n")
    mixed = tmp_path / "mixed.jsonl"
    mixed.write_text("\n".join(json.dumps({"text": each}) for each in (*paragraphs, *new)), encoding="utf-8")
    found = judged(mixed)
    assert found.left_out == len(paragraphs) - len(held_out)
    assert found.tokens == len("\n\n".join([*held_out, *new]))
    assert not any(paragraph in as_text(found) for paragraph in corpus.calibration.split("\n\n"))

    inside = tmp_path / "inside.txt"
    inside.write_text("\n\n".join(corpus.calibration.split("\n\n")[:4]), encoding="utf-8")
    with pytest.raises(ProxSparseError, match=r"Every paragraph of inside.txt is in the text that is learned on"):
        judged(inside)

    whole = tmp_path / "elsewhere.txt"
    whole.write_text(tiny_text(seed=7), encoding="utf-8")
    other = load_windows(str(whole), tokenizer, 16, 32)
    assert judged(whole).tokens == len(whole.read_text()), "all of it"
    assert judged(whole, also_learned_on={other.sha256}).tokens == other.heldout_tokens, "a run learned on the rest"
    assert load_heldout(str(whole), tokenizer, 32).tokens == other.heldout_tokens, "who knows what was learned on"


def test_nothing_learns_from_the_text_of_another_kind():
    with pytest.raises(ProxSparseError, match=r"corpus is 'bundled-other', a text .* give mixed .*--evaluate-on"):
        load_windows("bundled-other", tiny_tokenizer())
    corpus = load_corpus("bundled-other")
    assert corpus.calibration == "" and corpus.heldout
    text = load_heldout("bundled-other", tiny_tokenizer(), 32, learned_on=load_corpus("bundled"))
    assert (text.tokens, text.left_out) == (len(corpus.heldout), 0)


def test_the_bundled_corpus():
    """Each piece has its own subject: no two parts, and no two pieces, share a longer run of words."""
    parts = ("calibration", "heldout", "other")
    calibration, heldout, other = (sorted((BUNDLED / part).glob("*.txt")) for part in parts)
    assert len(calibration) >= 40 and len(heldout) >= 12 and len(other) >= 14
    everything = (*calibration, *heldout, *other)
    assert len({path.name for path in everything}) == len(everything)
    seen: dict[tuple, str] = {}
    for path in everything:
        words = path.read_text(encoding="utf-8").split()
        assert 500 <= len(words) <= 900, path.name
        for run in zip(*(words[k:] for k in range(10)), strict=False):
            assert seen.setdefault(run, path.name) == path.name, (path.name, seen[run], " ".join(run))
    titles = [path.read_text(encoding="utf-8").splitlines()[0] for path in everything]
    assert all(a != b for a, b in pairwise(sorted(titles)))


@pytest.mark.embedded
def test_the_text_of_another_kind_is_long_enough_to_judge_on():
    lm = load_model("embedded")
    text = lm.heldout("bundled-other", 512)
    assert text.tokens >= 10_000 and len(text.windows) >= 20 and text.name == "bundled-other"
