"""What every test shares: nothing reaches a network, and runs of other projects are not touched."""

import gc
import os
import subprocess

if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 0)):
    # Before torch is loaded: the cores are shared out, for threads that wait for one another across processes crawl.
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // workers))
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from importlib.util import find_spec

import pytest
import torch
from installed import elsewhere, installed, wheel  # noqa: F401  fixtures
from tiny_models import save_tiny_model, tiny_text

if find_spec("triton") and not torch.cuda.is_available():
    # Triton asks when it is imported whether it is to interpret; other tests may import it first, through torch.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        import triton  # noqa: F401


# The files that take longest, by what all processes of their tests computed: they come first, so that no core waits for the last.
LONGEST = (
    "test_app", "test_notebooks", "test_families", "test_launched", "test_kills", "test_measured", "test_damaged_files", "test_plan",
    "test_accessibility", "test_worker", "test_sharded", "test_sweep_screen", "test_started_again", "test_n_of_m", "test_cli",
    "test_packaging", "test_sweep", "test_compare", "test_container", "test_space", "test_site",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


def pytest_collection_finish():
    """What the imports made stays until the end: no later garbage collection looks through it again."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure():
    gc.unfreeze()  # extensions look at the end whether something of theirs was left


@pytest.fixture(scope="session")
def tiny_directory(tmp_path_factory):
    """A tiny Llama with its tokenizer, as a directory that load_model reads."""
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny-llama")


@pytest.fixture(scope="session")
def text_file(tmp_path_factory):
    """A text of some 8000 tiny tokens."""
    path = tmp_path_factory.mktemp("texts") / "text.txt"
    path.write_text(tiny_text(), encoding="utf-8")
    return path


@pytest.fixture
def command(capsys):
    """The command line in this process, which need not import torch once more: what `subprocess.run` would return."""
    from proxsparse.cli import main

    def run(*arguments):
        capsys.readouterr()
        try:
            code = main(words := [*map(str, arguments)])
        except SystemExit as ended:  # argparse's own ending
            code = ended.code
        return subprocess.CompletedProcess(words, code, *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def browser():
    """Chromium. What a test expects of a page or does on it may take long: a loaded machine is waited for."""
    from explorer import chromium
    from playwright.sync_api import expect, sync_playwright

    patience = 120_000
    expect.set_options(timeout=patience)
    with sync_playwright() as playwright:
        browser = chromium(playwright)
        new_page = browser.new_page

        def patient_page(**options):
            page = new_page(**options)
            page.set_default_timeout(patience)
            return page

        browser.new_page = patient_page
        yield browser
        browser.close()
