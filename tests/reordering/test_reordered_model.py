"""From a reordered model on disk to a verified export, on the command line; and what is refused on the way."""

import json
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tiny_models import save_tiny_model

from proxsparse import ProxSparseError, load_model, verify
from proxsparse.cli import main
from proxsparse.export.write import export_model
from proxsparse.files import ORDER_FILE, read_json
from proxsparse.methods import METHODS
from proxsparse.models.channel_order import ChannelOrder, order_of
from proxsparse.models.language_model import fingerprint
from proxsparse.reordering import assignment

SMALL = ("--length", "16", "--calibration", "8")


@pytest.fixture(scope="module")
def reordered(tmp_path_factory, tiny_directory, text_file):
    directory = tmp_path_factory.mktemp("models") / "reordered"
    assert (
        main(["reorder", "--model", str(tiny_directory), "--corpus", str(text_file), *SMALL, "--to", str(directory)])
        == 0
    )
    return directory


@pytest.fixture(scope="module")
def exports(tmp_path_factory, reordered):
    """{format: an export of the reordered model under its magnitude mask}."""
    root = tmp_path_factory.mktemp("exports")
    for format in ("dense", "compact"):
        lm = load_model(str(reordered), "cpu")
        export_model(lm, METHODS["magnitude"](lm.model).masks, root / format, format=format)
    return {format: root / format for format in ("dense", "compact")}


def tampered(export, tmp_path, change):
    """A copy of an export whose order of one parameter is changed."""
    copy = tmp_path / "copy"
    shutil.copytree(export, copy)
    order = ChannelOrder.load(copy / ORDER_FILE)
    change(order)
    order.save(copy / ORDER_FILE)
    return copy


def test_it_loads_as_a_model_that_computes_the_same(reordered, tiny_directory):
    ours, original = load_model(str(reordered), "cpu"), load_model(str(tiny_directory), "cpu")
    tokens = torch.randint(3, 120, (2, 32), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours.model(tokens).logits, original.model(tokens).logits, atol=1e-5, rtol=1e-4)
    order = order_of(reordered)
    assert fingerprint(ours.model) != fingerprint(original.model) == fingerprint(ours.model, order), (
        "it writes the same text"
    )
    order.inverse().apply_(ours.model)
    theirs = original.model.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.model.state_dict().items())
    about = read_json(reordered / "provenance.json")
    assert about["model"] == str(tiny_directory) and about["windows"] == 8 and about["kept"][0] < about["kept"][1]
    assert about["change"] < 1e-5


@pytest.mark.parametrize("format", ["dense", "compact"])
def test_an_export_is_proven_against_the_model_that_was_reordered(exports, tiny_directory, reordered, format):
    found = verify(exports[format])
    assert found.ok and found.original == str(tiny_directory) and 0 < found.reordered < 1e-5
    assert "stand in another order" in found.summary and "rounding" in found.summary
    about = read_json(exports[format] / "provenance.json")
    assert about["model"] == str(tiny_directory) and about["reordered"]["windows"] == 8
    card = (exports[format] / "README.md").read_text()
    assert "stand in another order" in card and str(tiny_directory) not in card
    against_reordered = verify(exports[format], str(reordered))
    assert against_reordered.ok and against_reordered.reordered is None


def test_an_order_that_changes_the_function_is_not_proven(exports, tmp_path):
    def swap(order):
        name = "model.layers.1.self_attn.v_proj.weight"
        order[name][1][[0, 1]] = order[name][1][[1, 0]]

    found = verify(tampered(exports["dense"], tmp_path, swap))
    assert not found.ok and "order of the channels" in found.summary and found.reordered > 1e-3
    bad = [layer["name"] for layer in found.layers if not layer["ok"]]
    assert bad == ["model.layers.1.self_attn.v_proj"], "the weights do not stand where it says, either"


def test_another_order_that_keeps_the_function_is_not_that_of_the_weights(exports, tmp_path):
    def roll(order):
        for name, (dim, channels) in order.items():
            if "layers.0.mlp" in name:
                order[name] = (dim, channels.roll(1))

    found = verify(tampered(exports["dense"], tmp_path, roll))
    assert found.same_function and not found.ok
    assert {layer["name"].rsplit(".", 1)[-1] for layer in found.layers if not layer["ok"]} == {
        "gate_proj",
        "up_proj",
        "down_proj",
    }


def test_an_export_without_its_order_is_not_proven(exports, tmp_path):
    copy = tampered(exports["dense"], tmp_path, lambda order: None)
    (copy / ORDER_FILE).unlink()
    assert not verify(copy).ok


def test_a_reordered_model_that_forgot_where_it_came_from_is_not_exported(reordered, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(reordered, copy)
    (copy / "provenance.json").unlink()
    lm = load_model(str(copy), "cpu")
    with pytest.raises(ProxSparseError, match="does not say which model was reordered"):
        export_model(lm, METHODS["magnitude"](lm.model).masks, tmp_path / "export")
    assert not (tmp_path / "export").exists()


def test_from_a_reordered_model_to_a_verified_export(reordered, tiny_directory, text_file, tmp_path, capsys):
    run, export = tmp_path / "run", tmp_path / "export"
    learn = [
        "learn",
        "--model",
        str(reordered),
        "--corpus",
        str(text_file),
        "--steps",
        "2",
        "--length",
        "16",
        "--context",
        "32",
    ]
    assert main([*learn, "--evaluate-on", "--out", str(run)]) == 0
    assert main(["export", str(run), "--to", str(export)]) == 0
    capsys.readouterr()
    assert main(["verify", str(export), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] and told["original"] == str(tiny_directory) and told["reordered"] < 1e-5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("--to", "{reordered}"), "is not empty"),
        (("--calibration", "0"), "calibration is 0"),
        (("--n", "4"), "keep fewer weights than a group has"),
        (("--length", "many"), "length is 'many'"),
        (("--model", "{reordered}"), "was reordered already: give the model that it was made from"),
        (("--model", "{gpt2}"), "has no channels that may change places"),
        (("--model", "./nowhere"), "There is no directory './nowhere'"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence_and_exit_code_2(
    reordered, tiny_directory, text_file, tmp_path, capsys, change, words
):
    places = {"reordered": str(reordered), "gpt2": ""}
    if "{gpt2}" in change:
        places["gpt2"] = str(save_tiny_model(tmp_path / "gpt2", "gpt2"))
    given = {"--model": str(tiny_directory), "--corpus": str(text_file), "--to": str(tmp_path / "new")}
    given |= dict(zip(SMALL[::2], SMALL[1::2], strict=True)) | {change[0]: change[1].format(**places)}
    assert main(["reorder", *(part for pair in given.items() for part in pair)]) == 2
    error = capsys.readouterr().err.splitlines()
    assert words in error[-1] and [line for line in error if line.startswith(("error:", "Traceback"))] == error[-1:]
    assert not (tmp_path / "new").exists()


def test_without_scipy_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "scipy.optimize", None)
    with pytest.raises(ProxSparseError, match=r"pip install 'proxsparse\[reorder\]'"):
        assignment.best_order(torch.rand(2, 8))


def test_a_damaged_order_is_one_sentence(exports, tmp_path):
    path = tmp_path / ORDER_FILE
    good = exports["dense"] / ORDER_FILE
    with safe_open(good, "pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    name = next(iter(tensors))
    for content, about in (
        (tensors | {name: tensors[name] * 0}, metadata),
        (tensors | {name: tensors[name][:-1] + 1}, metadata),
        (tensors | {name: tensors[name].view(2, -1)}, metadata),
        ({}, metadata),
        (tensors, {}),
        (tensors, metadata | {"dimensions": "[1"}),
        (tensors, metadata | {"dimensions": json.dumps({name: -1})}),
        (tensors, metadata | {"dimensions": json.dumps({name: None})}),
        (tensors, metadata | {"version": "99"}),
    ):
        save_file(content or {"other": torch.zeros(1)}, path, metadata=about)
        with pytest.raises(ProxSparseError) as told:
            ChannelOrder.load(path)
        assert str(path) in str(told.value) or "newer" in str(told.value)
    for bytes in (b"", good.read_bytes()[:40]):
        path.write_bytes(bytes)
        with pytest.raises(ProxSparseError, match="cannot be read as an order of channels"):
            ChannelOrder.load(path)


def test_an_order_of_another_model_is_refused(exports):
    order = order_of(exports["dense"])
    order["model.layers.9.mlp.up_proj.weight"] = (0, torch.arange(4))
    from tiny_models import tiny_model

    with pytest.raises(ProxSparseError, match=r"has no 'model.layers.9.mlp.up_proj.weight' of 4 channels"):
        order.apply_(tiny_model())
