"""What arrives at the Hub, against a stand-in that speaks its endpoints; and what is said when it cannot."""

import json
import os
import subprocess
import sys

import huggingface_hub
import pytest
from hub_stand_in import TOKEN, hub_stand_in
from huggingface_hub import ModelCard, constants
from made_runs import made_run

from proxsparse import Mask, MaskSet, ProxSparseError, export_model, load_model, prunable_layers
from proxsparse.cli.main import main
from proxsparse.export.push import push
from proxsparse.files import read_json

REPO = "someone/tiny-2of4"


@pytest.fixture
def hub(monkeypatch):
    """The Hub that this process talks to. Uploads go through LFS, as without hf_xet."""
    with hub_stand_in() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        huggingface_hub.close_session()  # it remembers whether it may reach a network
        yield hub
    huggingface_hub.close_session()


@pytest.fixture(scope="module")
def export(tiny_directory, tmp_path_factory):
    """(directory, report) of a dense export of a model in a local directory."""
    return exported(tiny_directory, tmp_path_factory.mktemp("exports") / "sparse")


def exported(model, to, format="dense"):
    lm = load_model(str(model), "cpu")
    masks = MaskSet({name: Mask.project(layer.matrix) for name, layer in prunable_layers(lm.model).items()})
    provenance = {
        "method": "Wanda",
        "corpus": str(to.parent / "text.txt"),
        "job": {"model": str(model), "evaluate_on": None},
    }
    return to, export_model(lm, masks, to, provenance, format=format)


def on_disk(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_every_file_arrives_in_one_commit_byte_for_byte(hub, export, tmp_path_factory):
    directory, report = export
    pushed = push(directory, REPO, report["verification"])
    expected, arrived = on_disk(directory), dict(hub.repos[REPO]["branches"]["main"])
    assert arrived.pop(".gitattributes") == b""
    mine, theirs = json.loads(expected.pop("provenance.json")), json.loads(arrived.pop("provenance.json"))
    assert arrived == expected and "model.safetensors" in arrived and "masks.safetensors" in arrived
    assert theirs == mine | {
        "model": "tiny-llama", "corpus": "text.txt", "job": {"model": "tiny-llama", "evaluate_on": None}
    }, "names in the place of paths, and nothing else"  # fmt: skip
    here = str(tmp_path_factory.getbasetemp()).encode()
    assert not any(here in content for content in hub.repos[REPO]["branches"]["main"].values())
    assert hub.repos[REPO]["private"] and pushed["private"] and pushed["url"].startswith(hub.url)
    assert sorted(pushed["files"]) == sorted(on_disk(directory))
    (commit,) = hub.commits
    assert commit["summary"] == "tiny-llama under 2:4 masks by Wanda, dense checkpoint"
    assert "Verified by proxsparse" in commit["description"] and "14 layers are 2:4" in commit["description"]
    assert ModelCard(arrived["README.md"].decode()).data.library_name == "transformers"


def test_the_next_push_replaces_the_export_and_leaves_nothing_of_it(hub, export, tiny_directory, tmp_path):
    push(*(export[0], REPO, export[1]["verification"]))
    compact, report = exported(tiny_directory, tmp_path / "compact", "compact")
    push(compact, REPO, report["verification"])
    assert hub.repos[REPO]["branches"]["main"].keys() == {*on_disk(compact), ".gitattributes"}
    pushed = push(export[0], REPO, export[1]["verification"], revision="dense")
    branches = hub.repos[REPO]["branches"]
    assert "model.safetensors" in branches["dense"] and "model.safetensors" not in branches["main"]
    assert "compact.json" not in branches["dense"] and pushed["revision"] == "dense"


def test_public_only_when_asked(hub, export, capsys):
    push(export[0], REPO, export[1]["verification"], public=True)
    assert not hub.repos[REPO]["private"]
    assert main(["push", str(export[0]), REPO]) == 2
    assert f"{REPO} is public, and so would be" in capsys.readouterr().err and len(hub.commits) == 1


def test_push_proves_the_files_first(hub, tiny_directory, tmp_path, capsys):
    from safetensors.torch import load_file, save_file

    directory, _ = exported(tiny_directory, tmp_path / "sparse")
    tensors = load_file(directory / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"] + 1
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})
    assert main(["push", str(directory), REPO]) == 2
    assert "is not pushed. Not proven" in capsys.readouterr().err and not hub.requests


REFUSED = {
    "name taken": (lambda hub: hub.repos.update({REPO: another()}), "is taken: it holds files that are no export"),
    "no right": (lambda hub: hub.refuse.update({"/api/repos/create": (403, "no scope"), f"/{REPO}": (404, "")}),
                 "Your token may not write to someone (no scope)"),
    "token refused": (lambda hub: hub.refuse.update({"/api/repos/create": (401, "expired"), f"/{REPO}": (404, "")}),
                      "The Hub does not accept your token (expired)"),
    "upload refused": (lambda hub: hub.refuse.update({"/objects/batch": (403, "storage limit reached")}), "(storage limit reached)"),
    "commit refused": (lambda hub: hub.refuse.update({"/commit/main": (413, "too large")}), "answered with 413 (too large)"),
    "no network": (lambda hub: setattr(constants, "ENDPOINT", "http://127.0.0.1:9"), "127.0.0.1:9 cannot be reached"),
}  # fmt: skip


def another():
    return {"private": True, "branches": {"main": {".gitattributes": b"", "thesis.pdf": b""}}}


@pytest.mark.parametrize("what", REFUSED)
def test_what_the_hub_refuses_is_one_sentence_and_changes_nothing(what, hub, export, capsys):
    arrange, words = REFUSED[what]
    arrange(hub)
    assert main(["push", str(export[0]), REPO]) == 2
    error = capsys.readouterr().err
    assert error.count("error: ") == 1 and words in error.splitlines()[-1], error
    assert not hub.commits
    hub.refuse.clear()
    if what == "upload refused":  # the repository was made, and is empty: the next push fills it
        assert main(["push", str(export[0]), REPO, "--json"]) == 0 and len(hub.commits) == 1


def test_bad_input_is_refused_before_anything_is_loaded(export, monkeypatch, tmp_path, capsys):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    monkeypatch.setattr(constants, "HF_STORED_TOKENS_PATH", str(tmp_path / "none"))
    run = made_run(tmp_path / "run")
    exporting = ["export", str(run.path), "--to", str(tmp_path / "sparse")]
    for arguments, words in (
        (["push", str(export[0]), "only-a-name"], "needs a name such as org/model"),
        (["push", str(export[0]), "a/b/c"], "needs a name such as org/model"),
        (["push", str(export[0]), "a/../b"], "needs a name such as org/model"),
        (["push", str(export[0]), REPO], "There is no token for the Hub: run `hf auth login`"),
        (["push", str(export[0]), REPO, "--revision", "refs/pr/1"], "give the name of a branch"),
        ([*exporting, "--push", REPO], "There is no token for the Hub"),
        ([*exporting, "--public"], "give --push ORG/NAME as well"),
    ):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1, error
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert main(["push", str(export[0]), REPO]) == 2
    assert "HF_HUB_OFFLINE" in capsys.readouterr().err and not (tmp_path / "sparse").exists()


def test_a_link_in_an_export_is_not_followed(hub, tiny_directory, tmp_path):
    directory, report = exported(tiny_directory, tmp_path / "sparse")
    (directory / ".git").mkdir()
    (directory / ".git" / "config").write_text("secret")
    push(directory, REPO, report["verification"])
    assert not any("git/" in name for name in hub.repos[REPO]["branches"]["main"])
    (directory / "notes.txt").symlink_to("/etc/hostname")
    with pytest.raises(ProxSparseError, match="holds a link"):
        push(directory, REPO, report["verification"])


def test_export_pushes_what_it_has_proven_or_says_how_to_push_it_later(tiny_directory, text_file, tmp_path):
    """Through the real command, with the Hub's address in the environment as a person sets it."""
    with hub_stand_in() as hub:
        offline = {"HF_HUB_OFFLINE", "HF_TOKEN"}
        environment = {name: value for name, value in os.environ.items() if name not in offline}
        environment |= {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": TOKEN}

        def proxsparse(*arguments):
            command = [sys.executable, "-m", "proxsparse", *map(str, arguments)]
            return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)

        learned = proxsparse(
            "learn", "--model", tiny_directory, "--corpus", text_file, "--evaluate-on", "--steps", "2", "--length", "16",
            "--context", "32", "--windows", "2", "--distill", "0", "--out", tmp_path / "run",
        )  # fmt: skip
        assert learned.returncode == 0, learned.stderr
        hub.refuse = {"/commit/main": (500, "down")}
        refused = proxsparse("export", tmp_path / "run", "--to", tmp_path / "sparse", "--push", REPO)
        assert refused.returncode == 2 and "answered with 500 (down)" in refused.stderr
        assert refused.stderr.strip().endswith(f"push it later with: proxsparse push {tmp_path / 'sparse'} {REPO}")
        assert (tmp_path / "sparse" / "model.safetensors").is_file() and not hub.commits
        hub.refuse = {}
        later = proxsparse("push", tmp_path / "sparse", REPO, "--json")
        assert later.returncode == 0 and json.loads(later.stdout)["repo"] == REPO, later.stderr
        assert hub.commits[0]["summary"] == "tiny-llama under 2:4 masks by ProxSparse, dense checkpoint"
        again = proxsparse("export", tmp_path / "run", "--to", tmp_path / "again", "--push", REPO, "--json")
        assert again.returncode == 0, again.stderr
        report = json.loads(again.stdout)
        assert report["pushed"]["repo"] == REPO and report["verification"]["ok"]
        arrived = hub.repos[REPO]["branches"]["main"]
        assert arrived["masks.safetensors"] == (tmp_path / "again" / "masks.safetensors").read_bytes()
        assert read_json(tmp_path / "again" / "provenance.json")["mask"] == "learned"
