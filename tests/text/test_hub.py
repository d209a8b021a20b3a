"""Corpora of the Hub: streamed up to the tokens that are needed, kept, and told about. Local files stand in for the Hub."""

import dataclasses
import json
import sys
import threading

import datasets
import pytest
import torch
from tiny_models import save_tiny_model, tiny_tokenizer

from proxsparse import LearnConfig, LearnJob, ProxSparseError, Run, load_heldout, load_windows
from proxsparse.cli import main
from proxsparse.config import PRESETS
from proxsparse.runs.jobs.base import Job
from proxsparse.runs.jobs.loaded_run import LoadedRun
from proxsparse.runs.worker import work
from proxsparse.text import hub
from proxsparse.text.hub import HUB, Part

DOCUMENTS, SHARDS = 120, 3
load_dataset = datasets.load_dataset  # before it is replaced


def document(split: str, number: int) -> str:
    """Says which it is, in 40 to 70 characters, which are as many tiny tokens."""
    return f"{split} {number:03d} " + chr(97 + number % 26) * (30 + number % 31)


@pytest.fixture
def stream(tmp_path, monkeypatch):
    """A stand-in for C4 and WikiText-2, and a cache of its own. What was asked of `load_dataset` is in the list."""
    files = {}
    for split in ("train", "validation", "test"):
        for shard in range(SHARDS):
            path = tmp_path / f"{split}-{shard}.jsonl"
            rows = [document(split, number) for number in range(shard, DOCUMENTS, SHARDS)]
            path.write_text("".join(json.dumps({"text": row, "url": "a"}) + "\n" for row in rows))
            files.setdefault(split, []).append(str(path))
    asked = []

    def stand_in(path, config, *, split, revision, streaming):
        asked.append((path, config, split, revision))
        assert streaming and len(revision) == 40
        return load_dataset("json", data_files={split: files[split]}, split=split, streaming=True)

    monkeypatch.setattr("datasets.load_dataset", stand_in)
    monkeypatch.setattr(hub, "BUFFER", 40)
    monkeypatch.setitem(HUB, "c4", (Part("c4", "train", 1000), Part("c4", "validation", 640)))
    monkeypatch.setenv("PROXSPARSE_CACHE", str(tmp_path / "cache"))
    return asked


def no_network(*_, **__):
    raise AssertionError("load_dataset was called")


def documents_of(text: str) -> list[str]:
    return text.split("\n\n")


def test_as_many_tokens_are_read_as_the_windows_need(stream):
    """2000 tokens for 100 windows of 20, which are the documents one after the other."""
    text = load_windows("c4", tiny_tokenizer(), 20, 32, samples=100)
    assert text.calibration.shape == (100, 20) and text.heldout.shape == (640 // 32, 32)
    assert text.calibration.dtype == torch.int64
    read = documents_of(text.corpus.calibration)
    ids = tiny_tokenizer()("".join(each + "\n\n" for each in read))["input_ids"]
    assert text.calibration.flatten().tolist() == ids[:2000] and text.calibration_tokens == 2000
    assert len(ids) - len(read[-1]) - 2 < 2000 <= len(ids), "up to the document with which there are enough"
    assert [split for *_, split, _ in stream] == ["train", "validation"]
    assert len(load_windows("c4", tiny_tokenizer(), 20, 32).calibration) == 1000 // 20, (
        "without a number the default amount"
    )


def test_calibration_and_held_out_parts_share_no_document(stream):
    text = load_windows("c4", tiny_tokenizer(), 20)
    learned, judged = documents_of(text.corpus.calibration), documents_of(text.corpus.heldout)
    assert all(each.startswith("train") for each in learned) and all(each.startswith("validation") for each in judged)
    assert len(set(learned)) == len(learned) > 15 and len(set(judged)) == len(judged)


def test_the_seed_says_which_documents(stream, tmp_path, monkeypatch):
    texts = {}
    for turn, seed in enumerate((0, 0, 1)):
        monkeypatch.setenv("PROXSPARSE_CACHE", str(tmp_path / f"cache-{turn}"))
        texts[turn] = load_windows("c4", tiny_tokenizer(), 20, seed=seed)
    first, again, other = texts.values()
    assert len(stream) == 6, "each was read anew"
    assert first.calibration.equal(again.calibration) and first.sha256 == again.sha256
    assert not first.calibration.equal(other.calibration) and first.sha256 != other.sha256
    assert first.heldout.equal(other.heldout), "all seeds are judged on the same text"
    shards = {int(each.split()[1]) % SHARDS for each in documents_of(first.corpus.calibration)}
    assert shards == set(range(SHARDS)), "from several files"


def test_what_was_read_once_needs_no_network(stream, monkeypatch):
    text = load_windows("c4", tiny_tokenizer(), 20, 32, samples=100)
    monkeypatch.setattr("datasets.load_dataset", no_network)
    again = load_windows("c4", tiny_tokenizer(), 20, 32, samples=100)
    assert again.calibration.equal(text.calibration) and again.heldout.equal(text.heldout)
    assert again.sha256 == text.sha256 and again.corpus == text.corpus
    judged = load_heldout("c4", tiny_tokenizer(), 32)
    assert judged.windows.equal(text.heldout), "another mask is judged on the same"
    for changed in ({"samples": 101}, {"samples": 100, "seed": 1}):
        with pytest.raises(ProxSparseError, match="from the Hub"):
            load_windows("c4", tiny_tokenizer(), 20, 32, **changed)
    other = tiny_tokenizer()
    other.add_tokens(["ab"])
    with pytest.raises(ProxSparseError, match="from the Hub"):
        load_windows("c4", other, 20, 32, samples=100)


def test_a_bos_token_begins_every_window(stream):
    text = load_windows("c4", tiny_tokenizer(), 20, samples=100, bos=True)
    assert text.calibration.shape == (100, 20) and (text.calibration[:, 0] == 1).all()
    ids = tiny_tokenizer()(text.corpus.calibration)["input_ids"]
    assert text.calibration[:, 1:].flatten().tolist() == ids[:1900]


def test_a_small_corpus_is_read_whole_in_its_order(stream):
    text = load_windows("wikitext2", tiny_tokenizer(), 20, samples=3)
    expected = [document("train", number) for shard in range(SHARDS) for number in range(shard, DOCUMENTS, SHARDS)]
    assert documents_of(text.corpus.calibration) == expected
    assert (
        text.calibration.flatten().tolist()
        == tiny_tokenizer()(text.corpus.calibration)["input_ids"][: text.calibration.numel()]
    )
    assert documents_of(text.corpus.heldout)[0] == document("test", 0)


def test_samples_are_spread_evenly_over_a_text_that_has_more(stream):
    text = load_windows("c4", tiny_tokenizer(), 20)
    some = text.sampled(10)
    assert some.calibration.equal(text.calibration[::5]) and some.calibration_tokens == 200
    assert some.sha256 == text.sha256
    assert text.sampled(0) is text and text.sampled(1000) is text


def test_progress_counts_the_windows(stream):
    told = []
    load_windows("c4", tiny_tokenizer(), 20, samples=200, progress=lambda *each: told.append(each))
    for split, total in (("train", 200), ("validation", 32)):
        counts = [done for done, of, what in told if what == f"reading c4, {split} split: window" and of == total]
        assert counts[0] == 0 and counts == sorted(counts), "from the beginning"
    counts = [done for done, _, what in told if "train" in what]
    assert len(set(counts)) > 2 and 0 < counts[-1] < 200


def test_what_progress_raises_ends_the_reading_and_leaves_nothing(stream, tmp_path):
    class Stopped(Exception):
        pass

    def stop(done, total, what):
        if done:
            raise Stopped

    with pytest.raises(Stopped):
        load_windows("c4", tiny_tokenizer(), 20, samples=200, progress=stop)
    assert not list((tmp_path / "cache").rglob("*.safetensors"))
    assert len(load_windows("c4", tiny_tokenizer(), 20, samples=200).calibration) == 200, "nor is it locked"


def test_a_stop_is_heard_while_the_connection_hangs(monkeypatch, stream):
    hangs = threading.Event()

    class Hanging:
        def shuffle(self, **_):
            return self

        def iter(self, batch_size):
            hangs.wait(60)
            yield from ()

    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: Hanging())
    calls = []

    def stop(done, total, what):
        calls.append(done)
        if len(calls) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_windows("c4", tiny_tokenizer(), 20, progress=stop)
    assert not hangs.is_set()
    hangs.set()


def test_a_connection_that_breaks_is_one_sentence_and_leaves_nothing(stream, tmp_path, monkeypatch):
    whole = datasets.load_dataset

    class Breaks(Exception):  # HTTP clients have kinds of their own
        pass

    def breaking(*arguments, **keywords):
        def torn(batch):
            if any(" 030 " in text for text in batch["text"]):
                raise Breaks("peer closed connection")
            return batch

        return whole(*arguments, **keywords).map(torn, batched=True, batch_size=8)

    monkeypatch.setattr("datasets.load_dataset", breaking)
    with pytest.raises(
        ProxSparseError, match=r"The corpus 'c4' could not be read from the Hub \(\w+\): check the network"
    ):
        load_windows("c4", tiny_tokenizer(), 20, samples=200)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.suffix != ".lock" and path.is_file()]
    monkeypatch.setattr("datasets.load_dataset", whole)
    assert len(load_windows("c4", tiny_tokenizer(), 20, samples=200).calibration) == 200


@pytest.mark.parametrize("damage", ["cut", "changed", "empty"])
def test_what_is_kept_and_damaged_is_read_again(stream, tmp_path, damage):
    text = load_windows("c4", tiny_tokenizer(), 20)
    (path,) = (tmp_path / "cache").rglob("c4-train-*.safetensors")
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes({"cut": content[:-100], "changed": content, "empty": b""}[damage])
    asked = len(stream)
    assert load_windows("c4", tiny_tokenizer(), 20).calibration.equal(text.calibration)
    assert len(stream) == asked + 1 and stream[-1][2] == "train", "only that part"


def test_of_several_one_reads_and_the_others_wait(stream):
    begun, waited, told, found = threading.Event(), threading.Event(), [], {}

    def reading(name, progress):
        found[name] = load_windows("c4", tiny_tokenizer(), 20, samples=200, progress=progress)

    def slowly(done, total, what):
        begun.set()
        if done and "train" in what:
            waited.wait(30)

    def waiting(done, total, what):
        told.append(what)
        waited.set()

    first = threading.Thread(target=reading, args=("first", slowly))
    first.start()
    assert begun.wait(30)
    reading("second", waiting)
    first.join(30)
    assert told[0] == "another process reads c4-train: waiting for part"
    assert [split for *_, split, _ in stream] == ["train", "validation"], "each once"
    assert found["first"].calibration.equal(found["second"].calibration)


def test_a_cache_that_cannot_be_written_is_one_sentence(stream, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("PROXSPARSE_CACHE", str(tmp_path / "file"))
    with pytest.raises(ProxSparseError, match=r"cannot be kept in .*: name another place in \$PROXSPARSE_CACHE"):
        load_windows("c4", tiny_tokenizer(), 20)


def test_without_the_package_one_sentence(stream, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ProxSparseError, match="'c4' needs the package `datasets`: pip install datasets"):
        load_windows("c4", tiny_tokenizer(), 20)


@pytest.fixture
def job(tmp_path):
    return LearnJob(
        model=str(save_tiny_model(tmp_path / "tiny")), corpus="c4", samples=60, length=20, context=32, windows=4, live_windows=1,
        device="cpu", history=0, learn=LearnConfig(steps=2, batch=2, metric_windows=4),
    )  # fmt: skip


def test_a_run_learns_on_its_samples_and_goes_on_without_a_network(stream, tmp_path, job, monkeypatch):
    run = Run.create(job, tmp_path / "run")
    assert work(run.path) == 0 and run.state()["status"] == "done"
    text = load_windows("c4", tiny_tokenizer(), 20, 32, samples=60)
    assert run.corpus() == text.describe() and run.corpus()["calibration_tokens"] == 60 * 20
    monkeypatch.setattr("datasets.load_dataset", no_network)
    fork = run.fork(tmp_path / "fork", step=None, steps=3)
    assert work(fork.path) == 0 and fork.state()["status"] == "done" and fork.corpus() == run.corpus()
    with pytest.raises(ProxSparseError, match="samples"):
        run.fork(tmp_path / "other", step=None, samples=50)
    assert "fewer windows than samples" not in list(run.table("events")["event"])


def test_a_run_says_where_a_text_has_fewer_windows_than_its_samples(tmp_path, job, text_file):
    run = Run.create(dataclasses.replace(job, corpus=str(text_file), samples=1000), tmp_path / "run")
    assert work(run.path) == 0
    events = run.table("events")
    (event,) = events[events["event"] == "fewer windows than samples"].to_dict("records")
    assert event["samples"] == 1000 and 100 < event["windows"] < 1000


def test_a_run_is_stopped_while_its_text_is_read(stream, tmp_path, job, monkeypatch):
    run = Run.create(dataclasses.replace(job, samples=200), tmp_path / "run")
    doing = []

    def told(self, done, total, what):
        doing.append(f"{what} {done}/{total}")
        if done:
            run.send("stop")
        usual(self, done, total, what)

    usual = Job.progress
    monkeypatch.setattr(Job, "progress", told)
    assert work(run.path) == 0 and run.state()["status"] == "stopped"
    assert doing[0] == "reading c4, train split: window 0/200" and run.corpus() is None


def test_a_method_reads_as_many_windows_as_it_is_to_calibrate_on(stream, tmp_path, job):
    """Without a number there would be 50."""
    arguments = ["--model", job.model, "--corpus", "c4", "--length", "20", "--calibration", "90", "--device", "cpu"]
    assert main(["prune", *arguments, "--to", str(tmp_path / "pruned")]) == 0
    assert json.loads((tmp_path / "pruned" / "provenance.json").read_text())["windows"] == 90


def test_the_presets_of_the_paper_take_400_windows():
    names = [name for name in PRESETS if name.startswith("Paper: ") and name != "Paper: embedded"]
    assert len(names) == 9 and {PRESETS[name].samples for name in names} == {400}
    assert all(PRESETS[name].length == 4096 for name in names if "OpenLlama" not in name)


def test_a_question_about_a_run_whose_text_has_to_be_read_again_says_so(stream, tmp_path, job):
    run, told = Run.create(job, tmp_path / "run"), []
    LoadedRun(run, progress=lambda *each: told.append(each))
    assert told[0] == (0, 60, "reading c4, train split: window")
