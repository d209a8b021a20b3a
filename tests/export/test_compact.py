"""Compact checkpoints: what comes back is the dense export bit for bit, and damaged files are refused."""

import json
import pickle

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_models import tiny_model, tiny_tokenizer

from proxsparse import (
    LearnJob,
    Mask,
    MaskSet,
    ProxSparseError,
    Run,
    export_model,
    load_compact,
    load_model,
    load_windows,
    perplexity,
    prunable_layers,
    verify,
)
from proxsparse.cli import main
from proxsparse.export import compact
from proxsparse.export.compact import keep_values, write_compact
from proxsparse.masks.packing import pack
from proxsparse.models.compact import place_values

BITS = {2: torch.int16, 4: torch.int32}
HALF = torch.bfloat16


def bits(tensor):
    return tensor.contiguous().view(BITS[tensor.element_size()])


def masks_of(model, n=2, m=4):
    return MaskSet({name: Mask.project(layer.matrix, n, m) for name, layer in prunable_layers(model, m).items()})


def thinned(mask):
    """The same mask with a group that keeps nothing and one that keeps a single weight fewer."""
    dense = mask.dense().clone()
    dense[0, : mask.m] = False
    dense[1, dense[1].nonzero()[0]] = False
    return Mask(pack(dense), mask.shape, mask.n, mask.m)


def saved(directory, family, dtype, **changes):
    tiny_model(family, **changes).to(dtype).save_pretrained(directory)
    tiny_tokenizer().save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A tiny Llama in bf16, with its embeddings tied to the head."""
    return saved(tmp_path_factory.mktemp("compact") / "llama", "llama", HALF, tie_word_embeddings=True)


@pytest.fixture
def exported(original, tmp_path):
    lm = load_model(str(original), "cpu")
    export_model(lm, masks_of(lm.model), tmp_path / "compact", format="compact")
    return tmp_path / "compact"


def test_the_card_names_what_made_the_mask_where_that_is_known(original, tmp_path):
    lm = load_model(str(original), "cpu")
    for directory, provenance in (("unknown", None), ("known", {"method": "Wanda"})):
        export_model(lm, masks_of(lm.model), tmp_path / directory, provenance)
        card = (tmp_path / directory / "README.md").read_text()
        assert "ProxSparse (Liu" not in card and "no weight was updated" in card
        assert ("The mask was made with Wanda." in card) == (directory == "known")


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (4, 8), (3, 5)])
@pytest.mark.parametrize("groups", [8, 5])  # with five, a row of mask bits does not fill its last byte
def test_values_and_mask_bits_are_the_matrix(n, m, groups):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(6, groups * m, generator=generator).to(HALF)
    weight[2, 3] = -0.0
    for mask in (Mask.project(weight, n, m), thinned(Mask.project(weight, n, m))):
        values = keep_values(weight, mask)
        assert values.shape == (6, groups * n) and values.dtype == HALF
        expected = weight.masked_fill(~mask.dense(), 0)
        assert torch.equal(bits(place_values(values, mask)), bits(expected))
    assert keep_values(weight, mask)[0, :n].count_nonzero() == 0, "the empty group is padded with zeros"
    values[0, 0] = 1.0
    with pytest.raises(ValueError, match="does not keep"):
        place_values(values, mask)


@pytest.mark.parametrize(
    ("family", "n", "m", "dtype"),
    [("llama", 2, 4, HALF), ("gpt2", 1, 4, torch.float32), ("gpt2", 2, 4, torch.float16), ("mixtral", 4, 8, HALF)],
)
def test_the_model_is_the_dense_export_s_bit_for_bit(family, n, m, dtype, tmp_path, monkeypatch):
    lm = load_model(str(saved(tmp_path / "original", family, dtype)), "cpu")
    before = {name: tensor.clone() for name, tensor in lm.model.state_dict().items()}
    masks = masks_of(lm.model, n, m)
    name = next(iter(masks))
    masks[name] = thinned(masks[name])
    export_model(lm, masks, tmp_path / "dense")
    report = export_model(lm, masks, tmp_path / "compact", format="compact")
    assert all(torch.equal(tensor, before[name]) for name, tensor in lm.model.state_dict().items())

    def forbidden(*arguments, **keywords):
        raise AssertionError("something is unpickled")

    monkeypatch.setattr(pickle, "loads", forbidden)
    monkeypatch.setattr(torch, "load", forbidden)
    dense, found = load_model(str(tmp_path / "dense"), "cpu").model, load_compact(tmp_path / "compact", "cpu").model
    expected, state = dense.state_dict(), found.state_dict()
    assert expected.keys() == state.keys() and not found.training
    for key, tensor in expected.items():
        assert tensor.dtype == state[key].dtype == dtype and torch.equal(bits(tensor), bits(state[key])), key
    ids = torch.arange(40, 60)[None]
    assert torch.equal(dense(ids).logits, found(ids).logits), "buffers that no checkpoint holds are right as well"
    assert found.generation_config.to_dict() == dense.generation_config.to_dict()
    assert (tmp_path / "compact" / "config.json").read_text() == (tmp_path / "dense" / "config.json").read_text()
    assert {file.suffix for file in (tmp_path / "compact").iterdir()} == {".json", ".safetensors", ".md"}
    assert report["verification"]["ok"] and verify(tmp_path / "compact").ok
    assert report["size"]["masked_ratio"] == pytest.approx(n / m + 1 / torch.finfo(dtype).bits)


def test_two_of_four_in_bf16_take_nine_sixteenths(original, exported, tmp_path):
    lm = load_model(str(original), "cpu")
    dense = export_model(lm, masks_of(lm.model), tmp_path / "dense")
    again = export_model(lm, masks_of(lm.model), tmp_path / "again", format="compact")
    size = again["size"]
    assert size["masked_ratio"] == 0.5625 and size["dtype"] == "bfloat16" and "56.2%" in size["summary"]
    elsewhere = size["dense_bytes"] - size["masked_dense_bytes"]
    assert size["stored_bytes"] == elsewhere + size["masked_dense_bytes"] * 9 // 16
    stored = [
        tensor
        for file in ("compact.safetensors", "masks.safetensors")
        for tensor in load_file(tmp_path / "again" / file).values()
    ]
    assert sum(tensor.nbytes for tensor in stored) == size["stored_bytes"], "the tied head is stored once"
    assert dense["size"]["ratio"] == 1 and dense["size"]["dense_bytes"] == size["dense_bytes"]
    found = load_compact(exported, "cpu").model
    assert found.lm_head.weight is found.model.embed_tokens.weight
    assert "load_compact" in (exported / "README.md").read_text()
    assert {file["about"] for file in again["files"]} >= {
        "which tensor lies in which file",
        "the masks, one bit a weight",
    }


def test_several_files_a_few_experts_and_a_head_of_its_own(tmp_path, monkeypatch):
    model = tiny_model("mixtral", tie_word_embeddings=True)
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight * 2)
    every = masks_of(model)
    some = MaskSet({name: mask for name, mask in every.items() if name.endswith((".0", "q_proj"))})
    monkeypatch.setattr(compact, "SHARD_BYTES", 50_000)
    tmp_path.joinpath("some").mkdir()
    write_compact(model, some, tmp_path / "some")
    tiny_tokenizer().save_pretrained(tmp_path / "some")
    names = sorted(file.name for file in tmp_path.joinpath("some").glob("compact-*"))
    assert len(names) > 2 and names[0].endswith(f"1-of-{len(names):05}.safetensors")
    found = load_compact(tmp_path / "some", "cpu").model
    assert not torch.equal(found.lm_head.weight, found.model.embed_tokens.weight)
    some.apply_(model)
    assert all(torch.equal(tensor, found.state_dict()[key]) for key, tensor in model.state_dict().items())
    (tmp_path / "some" / names[1]).unlink()
    with pytest.raises(ProxSparseError, match=f"{names[1]} is missing"):
        load_compact(tmp_path / "some")


def test_an_expert_without_a_mask_is_proven_unchanged(tmp_path):
    lm = load_model(str(saved(tmp_path / "original", "mixtral", HALF)), "cpu")
    some = MaskSet({name: mask for name, mask in masks_of(lm.model).items() if name.endswith(".0")})
    export_model(lm, some, tmp_path / "some", format="compact")
    path = tmp_path / "some" / "compact.safetensors"
    about, tensors = metadata_of(path), {name: tensor.clone() for name, tensor in load_file(path).items()}
    (name, *_) = (key for key in tensors if key.endswith(".2.whole"))
    tensors[name][0, 0] += 1
    save_file(tensors, path, about)
    assert verify(tmp_path / "some").changed_elsewhere == [name.removesuffix(".whole")]


def test_another_dtype_on_request(exported):
    found = load_compact(exported, "cpu", dtype=torch.float32).model
    assert {parameter.dtype for parameter in found.parameters()} == {torch.float32}
    assert found.config.dtype == torch.float32


def cut(path, end):
    path.write_bytes(path.read_bytes()[:end])


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def other_masks(path):
    masks = MaskSet.load(path)
    name = next(iter(masks))
    masks[name] = Mask.project(torch.randn(masks[name].shape, generator=torch.Generator().manual_seed(1)))
    masks.save(path)


def without_a_tensor(path):
    tensors = load_file(path)
    del tensors["model.layers.0.mlp.up_proj.kept"]
    save_file(tensors, path, metadata_of(path))


def metadata_of(path):
    with safe_open(path, "pt") as file:
        return file.metadata()


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("compact.safetensors", lambda path: cut(path, -10), "is damaged"),
        ("compact.safetensors", lambda path: cut(path, 5), "is damaged"),
        ("compact.safetensors", without_a_tensor, "model.layers.0.mlp.up_proj.kept"),
        ("compact.safetensors", lambda path: save_file(load_file(path), path), "stored under other masks"),
        ("compact.json", lambda path: cut(path, 40), "is damaged"),
        ("compact.json", lambda path: path.write_text("[]"), "is damaged"),
        ("compact.json", lambda path: edit(path, version=9), "version 9"),
        ("compact.json", lambda path: edit(path, files={"a": "../compact.safetensors"}), "names the file"),
        ("masks.safetensors", other_masks, "masks.safetensors is not the one"),
        ("masks.safetensors", lambda path: path.unlink(), "masks.safetensors"),
        ("config.json", lambda path: edit(path, vocab_size=64), "with shape (128, 32) and config.json asks for (64, 32)"),
        ("config.json", lambda path: edit(path, num_hidden_layers=1), "belong to another model"),
        ("config.json", lambda path: edit(path, attention_bias=True), "there is no tensor"),
        ("config.json", lambda path: edit(path, intermediate_size=128), "the layer"),
        ("config.json", lambda path: edit(path, model_type="x", auto_map={"AutoConfig": "x.X"}), "is never run"),
    ],
)  # fmt: skip
def test_files_that_are_damaged_or_belong_elsewhere_are_refused(file, change, words, exported):
    change(exported / file)
    for load in (load_compact, lambda directory: load_model(str(directory), "cpu")):
        with pytest.raises(ProxSparseError) as error:
            load(exported)
        assert words in str(error.value) and "\n" not in str(error.value)


def test_a_directory_that_is_not_compact_is_named(tmp_path):
    with pytest.raises(ProxSparseError, match="holds no compact"):
        load_compact(tmp_path)
    with pytest.raises(ProxSparseError, match="format is 'zip': give dense or compact"):
        export_model(None, None, tmp_path / "x", format="zip")


def test_a_changed_value_is_found(exported, capsys):
    path = exported / "compact.safetensors"
    about, tensors = metadata_of(path), {name: tensor.clone() for name, tensor in load_file(path).items()}

    def verified(name):
        changed = dict(tensors)
        if name:
            changed[name] = changed[name].clone()
            changed[name].view(-1)[3] += 1
        save_file(changed, path, about)
        return main(["verify", str(exported)]), capsys.readouterr().out

    code, said = verified(None)
    assert code == 0 and "are 2:4, and every kept weight equals" in said
    code, said = verified("model.layers.1.mlp.up_proj.kept")
    assert code == 1 and "first model.layers.1.mlp.up_proj: 0 groups" in said and "1 kept weights differ" in said
    code, said = verified("model.norm.weight")
    assert code == 1 and "model.norm.weight lies outside" in said


def test_eval_in_fp32_computes_with_the_weights_in_fp32(original, text_file, capsys):
    found = {}
    for precision in ("fp32", "bf16"):
        command = ["eval", str(original), "--corpus", str(text_file), "--context", "32", "--windows", "4", "--json"]
        assert main([*command, "--device", "cpu", "--precision", precision]) == 0
        found[precision] = json.loads(capsys.readouterr().out)["value"]
    lm = load_model(str(original), "cpu", torch.float32)
    windows = load_windows(str(text_file), lm.tokenizer, 32).heldout[:4]
    assert found["fp32"] == pytest.approx(perplexity(lm.model, windows, precision="fp32").value, rel=1e-6)
    assert found["fp32"] != found["bf16"]


def test_the_command_writes_it_from_a_run(original, text_file, tmp_path, capsys):
    lm = load_model(str(original), "cpu")
    run = Run.create(LearnJob(model=str(original), corpus=str(text_file), length=16, context=32), tmp_path / "run")
    (run.path / "masks").mkdir(exist_ok=True)
    masks_of(lm.model).save(run.path / "masks" / "step-000003.safetensors")
    target = tmp_path / "sparse"
    assert main(["export", str(run.path), "--to", str(target), "--format", "compact"]) == 0
    said = capsys.readouterr().out
    assert "compact.safetensors" in said and "56.2%" in said and "Proven: all" in said
    assert json.loads((target / "provenance.json").read_text())["step"] == 3
    assert main(["eval", str(target), "--corpus", str(text_file), "--context", "32", "--windows", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["value"] > 1
