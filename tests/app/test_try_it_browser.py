"""The Try it screen in a real browser, with a real worker: a tiny model that learned a mask of its own."""

import pytest
from explorer import serve
from playwright.sync_api import expect
from test_app import choose
from waiting import until

from proxsparse import LearnConfig, LearnJob, MaskSet, Run, load_model, load_windows, prunable_layers, what_if
from proxsparse.evaluation.completions import complete
from proxsparse.evaluation.what_if import with_group
from proxsparse.methods import METHODS
from proxsparse.runs import Probe

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def learned(tmp_path_factory, tiny_directory, text_file):
    learn = LearnConfig(steps=4, learning_rate=1e-2, lambda1=0.05, ramp=1.0, metric_windows=2, batch=2, distill=0.0)
    around = {"length": 16, "context": 32, "windows": 40, "evaluate_every": 2, "checkpoint_every": 0, "device": "cpu"}
    job = LearnJob(str(tiny_directory), str(text_file), **around, learn=learn)
    run = Run.create(job, tmp_path_factory.mktemp("runs") / "learned")
    assert run.start().wait(180) == 0
    return run


def by_hand(run):
    """The model and its masks, made without the worker."""
    job = run.job()
    lm = load_model(job.model, "cpu")
    text = load_windows(job.corpus, lm.tokenizer, job.length, job.context)
    layers = prunable_layers(lm.model)
    masks = {
        name: METHODS[name](lm.model, text.calibration[:2], layers=layers).masks for name in ("magnitude", "wanda")
    }
    return lm, text.heldout, layers, masks | {"dense": MaskSet(), "learned": MaskSet.load(run.masks()[4])}


def test_from_a_prompt_to_a_group_changed_by_hand(learned, browser):
    address, process = serve(learned.path.parent)
    probe = Probe(learned)
    try:
        page = browser.new_page(viewport={"width": 1440, "height": 1000})
        problems = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(f"{address}/?run={learned.id}&screen=try")
        expect(page.locator("#try-worker")).to_contain_text("no model in memory")
        expect(page.locator("#try-question")).to_contain_text("recorded")

        page.locator("#try-prompt textarea").fill("ABCDE")
        page.locator("#try-tokens input[type=number]").fill("6")
        page.locator("#try-tokens input[type=number]").press("Tab")
        page.locator("#try-ask").click()
        expect(page.locator("#try-question")).to_contain_text("ABCDE")
        lm, heldout, layers, masks = by_hand(learned)
        for name, own in masks.items():
            with layers.on_copies():
                own.apply_(layers)
                wanted = complete(lm, ["ABCDE"], 6)[0]
            expect(page.locator(f"#try-{name} .text")).to_have_text(wanted, timeout=180_000)
            expect(page.locator(f"#try-bars-{name} .bars .point")).to_have_count(10)
        expect(page.locator("#try-worker")).to_contain_text("it leaves in")

        # One group of one layer: what it keeps now is ticked, and is changed to the two others.
        layer = list(layers)[3]
        choose(page, "try-layer", layer)
        page.locator("#try-row input").fill("5")
        page.locator("#try-row input").press("Tab")
        page.locator("#try-group input").fill("2")
        page.locator("#try-group input").press("Tab")
        kept = masks["learned"][layer].dense()[5, 8:12].tolist()
        boxes = page.locator("#try-kept input[type=checkbox]")
        words = " and ".join(str(place + 1) for place, keeps in enumerate(kept) if keeps)
        expect(page.locator("#try-kept")).to_contain_text(f"now it keeps {words}")
        for place, keeps in enumerate(kept):
            assert boxes.nth(place).is_checked() is keeps
            boxes.nth(place).set_checked(not keeps)
        page.locator("#try-ask-change").click()
        table = page.locator("#try-changes tbody tr").first
        changed = with_group(masks["learned"][layer], 5, 2, [place for place, keeps in enumerate(kept) if not keeps])
        wanted = what_if(lm.model, masks["learned"], {layer: changed}, heldout[:8])
        expect(table).to_contain_text("row 5, group 2")
        expect(table).to_contain_text(f"{wanted.after:.4f}")
        shown, _, stderr = table.locator("td").nth(3).inner_text().partition(" ± ")
        assert float(stderr) == pytest.approx(wanted.stderr, rel=0.06)  # two digits are shown
        assert float(shown) == pytest.approx(wanted.difference, abs=0.6 * 10 ** -len(shown.partition(".")[2]))

        # A prompt that has no answer leaves no bars of the one before.
        page.locator("#try-prompt textarea").fill("A" * 70)  # the tiny model reads 64 tokens
        page.locator("#try-ask").click()
        expect(page.locator("#try-question")).to_contain_text("70 tokens")
        expect(page.locator("#try-cards .bars .point")).to_have_count(0)

        # A sentence for what cannot be asked, and the model leaves when it is told to.
        page.locator("#try-row input").fill("999")
        page.locator("#try-row input").press("Tab")
        page.locator("#try-ask-change").click()
        expect(page.get_by_text("row is 999").first).to_be_visible()
        page.locator("#try-rank").click()
        expect(page.locator("#try-ranking")).to_contain_text("14 of 14 layers measured", timeout=180_000)
        page.locator("#try-end").click()
        expect(page.locator("#try-worker")).to_contain_text("no model in memory")
        until(lambda: not probe.directory.is_alive())
        assert problems == []
        page.close()
    finally:
        process.terminate()
        process.wait(20)
        if probe.is_there():
            probe.stop()
