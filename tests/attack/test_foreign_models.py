"""A model that somebody else made: its code is never run, no pickle of it is read, and no file that is not its own."""

import ast
import builtins
import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch

from app.operator import Operator
from proxsparse import ProxSparseError, load_model
from proxsparse.cli import main
from proxsparse.models import load, own_files
from proxsparse.models.own_files import check_hub_files, check_links, check_names

AUTO = {
    "AutoConfig": "evil.EvilConfig", "AutoModelForCausalLM": "evil.EvilModel", "AutoModel": "evil.EvilModel",
    "AutoTokenizer": ["evil.EvilTokenizer", "evil.EvilTokenizer"], "AutoProcessor": "evil.EvilProcessor",
}  # fmt: skip


@pytest.fixture
def model(tmp_path, tiny_directory):
    """A model directory to do harm to."""
    return Path(shutil.copytree(tiny_directory, tmp_path / "folder" / "model"))


@pytest.fixture(autouse=True)
def nothing_is_unpickled_and_nobody_is_asked(monkeypatch):
    def forbidden(*_, **__):
        raise AssertionError("something is unpickled, or somebody is asked")

    for place, name in ((pickle, "loads"), (pickle, "load"), (torch, "load"), (builtins, "input")):
        monkeypatch.setattr(place, name, forbidden)


def edit(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def refused(model):
    with pytest.raises(ProxSparseError) as caught:
        load_model(str(model), "cpu")
    said = str(caught.value)
    assert said.count("\n") == 0 and said.endswith(".")
    return said


def calls_that_load(path):
    """Calls of `from_pretrained` and `from_config`, and of what takes `trust_remote_code`, but for GenerationConfig, which has no code."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = getattr(node.func.value, "id", "")
            if node.func.attr in ("from_pretrained", "from_config") and owner != "GenerationConfig":
                yield node
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("pipeline", "HFLM"):
            yield node
        if isinstance(node, ast.ClassDef) and any(getattr(base, "id", "") == "HFLM" for base in node.bases):
            inside = node.name
            yield from (
                call for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                if isinstance(call, ast.Call) and getattr(call.func, "id", "") == inside
            )  # fmt: skip


def test_every_load_says_that_code_is_not_trusted():
    """Of models, configurations, tokenizers, processors and lm-eval. Left out, transformers asks on the terminal, and `y` runs it."""
    found = [
        (path, call)
        for room in ("proxsparse", "app")
        for path in Path(room).rglob("*.py")
        for call in calls_that_load(path)
    ]
    assert len(found) >= 7
    for path, call in found:
        said = {word.arg: getattr(word.value, "value", None) for word in call.keywords}
        assert said.get("trust_remote_code") is False, f"{path}:{call.lineno}"


def test_nothing_unpickles():
    for room in ("proxsparse", "app"):
        for path in Path(room).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            assert "torch.load" not in text and "import pickle" not in text and "trust_remote_code=True" not in text, (
                path
            )


@pytest.mark.parametrize(
    "file", ["config.json", "tokenizer_config.json", "processor_config.json", "preprocessor_config.json"]
)
@pytest.mark.parametrize("kind", ["llama", "evil"])
def test_code_beside_a_model_never_runs(model, tmp_path, capsys, file, kind):
    canary = tmp_path / "owned"
    for name in ("evil.py", "modeling_llama.py", "custom_generate/generate.py", "tokenization_evil.py"):
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).write_text(f"open({str(canary)!r}, 'w')\n")
    path = model / file
    if not path.exists():
        path.write_text("{}")
    edit(path, auto_map=AUTO)
    if kind == "evil":
        edit(model / "config.json", model_type="evil", architectures=["EvilModel"])
        if file == "tokenizer_config.json":
            edit(path, tokenizer_class="EvilTokenizer")
    code = main(["eval", str(model), "--windows", "1", "--device", "cpu", "--context", "16", "--json"])
    said = capsys.readouterr().err
    assert not canary.exists() and code in (0, 2)
    if kind == "evil":
        assert code == 2 and said.count("error:") == 1 and "Traceback" not in said
        assert "never run" in said or "no causal language model that transformers knows" in said
    if kind == "evil" and file == "config.json":
        assert "brings its own code, which is never run" in said


NAMES = [
    "pytorch_model.bin", "weights.pt", "weights.pkl", "../elsewhere/x.safetensors", "../../x.safetensors", "/etc/x.safetensors",
    "sub/x.safetensors", "./model.safetensors", "..\\x.safetensors", "C:\\x.safetensors", "\\\\server\\x.safetensors",
    "x.safetensors\0.bin", "x.bin\0.safetensors", "", ".", "..", "~/x.safetensors", "file:///etc/x.safetensors",
    "http://evil.example/x.safetensors", "model.safetensors/", "x.safetensors.bin", "x.SAFETENSORS", "x.safetensors ", "x.safetensors\n",
    None, 1, [], ["model.safetensors"], {},
]  # fmt: skip


@pytest.mark.parametrize("value", NAMES, ids=repr)
def test_an_index_names_safetensors_beside_it_only(model, tmp_path, value):
    elsewhere = tmp_path / "folder" / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(model / "model.safetensors", elsewhere / "x.safetensors")
    (model / "sub").mkdir()
    shutil.copy(model / "model.safetensors", model / "sub" / "x.safetensors")
    torch.save({}, model / "pytorch_model.bin")
    (model / "model.safetensors").rename(model / "first.safetensors")
    index = {"metadata": {}, "weight_map": {"a": "first.safetensors", "b": value}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    said = refused(model)
    assert "model.safetensors.index.json" in said and str(tmp_path) not in said.replace(str(model), "")
    edit(model / "config.json", transformers_weights="other.safetensors.index.json")
    (model / "model.safetensors.index.json").rename(model / "other.safetensors.index.json")
    assert "other.safetensors.index.json" in refused(model)


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"weight_map": []}', '{"weight_map": null}', "{}", "\xff", "1" * 5000]
)
def test_a_damaged_index_is_one_sentence(model, content):
    (model / "model.safetensors.index.json").write_text(content, encoding="latin-1")
    assert "index.json" in refused(model)


@pytest.mark.parametrize(
    "value", ["adapter_model.bin", *(name for name in NAMES if name not in (None, [], {}))], ids=repr
)
def test_a_configuration_names_safetensors_beside_it_only(model, value):
    edit(model / "config.json", transformers_weights=value)
    refused(model)


@pytest.mark.parametrize("key", ["fast_tokenizer_files", "configuration_files"])
@pytest.mark.parametrize(
    "value", ["../elsewhere/tokenizer.0.0.1.json", "/etc/config.0.0.1.json", "sub/tokenizer.1.json"]
)
def test_versions_of_a_file_lie_beside_it(model, key, value):
    edit(
        model / ("config.json" if key.startswith("config") else "tokenizer_config.json"),
        **{key: ["tokenizer.json", value]},
    )
    assert value in refused(model)


@pytest.mark.parametrize(
    "key", ["vocab_file", "tokenizer_file", "merges_file", "spm_file", "gguf_file", "chat_template_file"]
)
def test_a_tokenizer_reads_nothing_elsewhere(model, tmp_path, key):
    secret = tmp_path / "secret.txt"
    secret.write_text("{}")
    for value in (str(secret), "../../secret.txt"):
        edit(model / "tokenizer_config.json", **{key: value})
        assert "beside it" in refused(model)
    edit(model / "tokenizer_config.json", **{key: "/no/such/place"})
    if key != "gguf_file":  # where it lay when it was saved, on another machine
        load_model(str(model), "cpu")


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation", "experts_implementation"])
def test_a_kernel_from_the_hub_is_code(model, key):
    for value in ("evil/kernel", "evil/kernel@v1:function", {"": "evil/kernel"}):
        edit(model / "config.json", **{key: value})
        assert "which is code" in refused(model)
    edit(model / "config.json", text_config={key: "evil/kernel"})
    assert "which is code" in refused(model)


LINKED = ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json")


@pytest.mark.parametrize("file", LINKED)
def test_a_link_that_leads_out_is_not_followed(model, tmp_path, file):
    outside = tmp_path / "outside"
    if (model / file).exists():
        (model / file).rename(outside)
    else:
        outside.write_text("{}")
    for target in (outside, "../../outside", "/etc/passwd", "/no/such/place", file):
        (model / file).unlink(missing_ok=True)
        (model / file).symlink_to(target)
        said = refused(model)
        assert f"leads out of it ({file})" in said and str(outside) not in said


def test_nor_is_a_folder_of_links(model, tmp_path):
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "a.jinja").write_text("x")
    (model / "additional_chat_templates").symlink_to(tmp_path / "templates")
    assert "additional_chat_templates" in refused(model)
    (model / "additional_chat_templates").unlink()
    (model / "additional_chat_templates").mkdir()
    (model / "additional_chat_templates" / "a.jinja").symlink_to("/etc/passwd")
    assert "a.jinja" in refused(model)


def test_a_link_within_and_a_snapshot_of_the_hubs_cache_are_read(model, tmp_path):
    (model / "model.safetensors").rename(model / "stored.safetensors")
    (model / "model.safetensors").symlink_to("stored.safetensors")
    load_model(str(model), "cpu")
    repository = tmp_path / "models--org--tiny"
    (repository / "blobs").mkdir(parents=True)
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    for number, file in enumerate(sorted(model.iterdir())):
        shutil.copy(file, repository / "blobs" / str(number))
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    load_model(str(snapshot), "cpu")
    other = tmp_path / "models--org--other" / "blobs"
    other.mkdir(parents=True)
    shutil.copy(model / "model.safetensors", other / "0")
    (snapshot / "model.safetensors").unlink()
    (snapshot / "model.safetensors").symlink_to(other / "0")
    assert "leads out of it" in refused(snapshot)


def test_a_directory_that_only_looks_like_a_snapshot_may_not_link_further(model, tmp_path):
    for parent in ("snapshots", "models--a--b"):
        place = tmp_path / "x" / parent / "model"
        shutil.copytree(model, place)
        (place / "model.safetensors").unlink()
        (tmp_path / "x" / "blobs").mkdir(exist_ok=True)
        shutil.copy(model / "model.safetensors", tmp_path / "x" / "blobs" / "0")
        (place / "model.safetensors").symlink_to(tmp_path / "x" / "blobs" / "0")
        assert "leads out of it" in refused(place)


@pytest.mark.parametrize("ending", [".gguf", ".txt", ".jsonl", ""])
def test_a_link_in_an_allowed_folder_does_not_leave_it(tmp_path, ending):
    allowed, secret = tmp_path / "allowed", tmp_path / f"secret{ending}"
    allowed.mkdir()
    secret.write_text("GGUF")
    (allowed / f"link{ending}").symlink_to(secret)
    (allowed / "folder").symlink_to(tmp_path)
    operator = Operator(tmp_path / "runs", (allowed,))
    for check in (operator.check_model, operator.check_corpus):
        for name in (f"link{ending}", f"folder/secret{ending}", f"../secret{ending}"):
            with pytest.raises(ProxSparseError, match="not in a folder that may be read here"):
                check(str(allowed / name))


def test_an_adapter_is_refused_whether_it_is_a_file_or_a_link(model):
    for name in ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"):
        (model / name).symlink_to("config.json")
        assert "adapter" in refused(model)
        (model / name).unlink()
        (model / name).symlink_to("/etc/passwd")
        refused(model)
        (model / name).unlink()


def test_a_compact_export_is_held_to_the_same(model, tmp_path):
    (model / "compact.json").write_text("{}")
    (model / "compact.safetensors").symlink_to("/etc/passwd")
    assert "leads out of it" in refused(model)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("model.safetensors.index.json", {"metadata": {}, "weight_map": {"a": "pytorch_model.bin"}}),
        ("model.safetensors.index.json", {"metadata": {}, "weight_map": {"a": "../x.safetensors"}}),
        ("config.json", {"transformers_weights": "adapter_model.bin"}), ("config.json", {"attn_implementation": "evil/kernel"}),
        ("tokenizer_config.json", {"fast_tokenizer_files": ["../tokenizer.1.json"]}),
    ],
)  # fmt: skip
def test_a_model_of_the_hub_is_held_to_the_same(tmp_path, monkeypatch, file, content):
    (tmp_path / file).write_text(json.dumps(content))
    found = lambda name, asked, **_: str(tmp_path / asked) if (tmp_path / asked).exists() else None  # noqa: E731
    monkeypatch.setattr("transformers.utils.cached_file", found)
    with pytest.raises(ProxSparseError, match=file):
        check_hub_files("org/model", True)


def test_nor_does_an_index_of_another_name_escape(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text(json.dumps({"transformers_weights": "other.safetensors.index.json"}))
    (tmp_path / "other.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "x.bin"}}))
    found = lambda name, asked, **_: str(tmp_path / asked) if (tmp_path / asked).exists() else None  # noqa: E731
    monkeypatch.setattr("transformers.utils.cached_file", found)
    with pytest.raises(ProxSparseError, match=r"other\.safetensors\.index\.json"):
        check_hub_files("org/model", True)


def test_what_was_looked_at_on_the_hub_is_what_is_loaded(model, tmp_path, monkeypatch):
    """Somebody pushes another commit between the look and the load."""
    import transformers.utils.hub
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for module in (constants, transformers.utils.hub):
        monkeypatch.setattr(module, "HF_HUB_CACHE", str(tmp_path), raising=False)
    repository = tmp_path / "models--org--tiny"
    good, evil = "a" * 40, "b" * 40
    shutil.copytree(model, repository / "snapshots" / good)
    (repository / "snapshots" / evil).mkdir()
    (repository / "snapshots" / evil / "config.json").write_text(json.dumps({"model_type": "no-such-model"}))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(good)
    look = load.check_hub_files

    def then_pushed(*arguments):
        commit = look(*arguments)
        (repository / "refs" / "main").write_text(evil)
        return commit

    monkeypatch.setattr(load, "check_hub_files", then_pushed)
    assert load.load_model("org/tiny", "cpu").name == "org/tiny"
    with pytest.raises(ProxSparseError):
        load.load_model("org/tiny", "cpu")


def test_it_is_looked_at_before_transformers_sees_it(model, monkeypatch):
    """Whatever the loader would do, it is not called."""
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "x.bin"}}))

    def reached(*_, **__):
        raise AssertionError("transformers was called")

    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", reached)
    monkeypatch.setattr("proxsparse.models.load.load_tokenizer", reached)
    refused(model)


def test_ordinary_models_pass(tiny_directory):
    check_links("tiny", Path(tiny_directory))
    check_names("tiny", Path(tiny_directory))
    assert own_files._is_plain("model-00001-of-00002.safetensors") and os.sep == "/"
