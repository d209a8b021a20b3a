"""`--out=~/run`: a shell leaves a ~ after = alone, and every path that is given is one of the home directory."""

import os
import shutil

import pytest

from proxsparse import MaskSet, Run, export_model, list_runs, load_model, magnitude, verify
from proxsparse.config import absolute
from proxsparse.files import cache_dir
from proxsparse.runs import new_run_path
from proxsparse.runs.presets import PRESET_FILE, read_preset, write_preset
from proxsparse.runs.readers.comparison import check_masks

SHORT = ("--length=16", "--context=32", "--windows=4", "--steps=1", "--evaluate-every=0", "--metric-windows=4")


@pytest.fixture
def home(tmp_path, monkeypatch, tiny_directory, text_file):
    """A home directory with a model and a text in it; the working directory is another."""
    home, work = tmp_path / "home", tmp_path / "work"
    shutil.copytree(tiny_directory, home / "model")
    shutil.copy(text_file, home / "text.txt")
    work.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    monkeypatch.chdir(work)
    yield home
    assert not list(work.iterdir()), "nothing is written into a directory called ~"


def test_every_path_of_the_command_line(home, command):
    def proxsparse(*arguments):
        found = command(*arguments)
        assert found.returncode == 0, found.stderr
        return found.stdout

    proxsparse("learn", "--model=~/model", "--corpus=~/text.txt", *SHORT, "--out=~/runs/run")
    assert (home / "runs" / "run" / "run.json").is_file()
    proxsparse("export", "~/runs/run", "--to=~/sparse", "--model=~/model")
    assert (home / "sparse" / "config.json").is_file()
    assert "Proven" in proxsparse("verify", "~/sparse", "--original=~/model")
    assert "perplexity" in proxsparse("eval", "~/model", "--corpus=~/text.txt", "--context=32", "--windows=2")
    assert "run" in proxsparse("runs", "--root=~/runs")


def test_every_path_of_the_library(home):
    lm = load_model("~/model", "cpu")
    masks = magnitude(lm.model, None).masks
    export_model(lm, masks, "~/sparse")
    assert verify("~/sparse", "~/model").ok
    check_masks(["~/sparse"])
    masks.save("~/masks.safetensors")
    assert MaskSet.load("~/masks.safetensors").keys() == masks.keys()
    assert new_run_path("~/runs", "x").parent == home / "runs" and list_runs("~/runs") == []
    assert absolute("~/model") == str(home / "model")


def test_presets_and_the_cache(home, monkeypatch):
    from proxsparse import LearnJob

    write_preset(home / PRESET_FILE, LearnJob(length=7))
    assert read_preset("~").length == read_preset(f"~/{PRESET_FILE}").length == 7
    monkeypatch.setenv("PROXSPARSE_CACHE", "~/cache")
    assert cache_dir() == home / "cache"


def test_the_explorers_folders(home):
    main = pytest.importorskip("app.main")
    assert main._runs_folder("~/runs") == home / "runs" and main._allowed("~/model") == home / "model"


def test_a_run_by_its_name(home):
    from proxsparse import LearnJob

    run = Run.create(LearnJob(), "~/runs/mine")
    assert run.path == home / "runs" / "mine" and Run("~/runs/mine").id == "mine"
