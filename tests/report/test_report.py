"""The report: what it holds is what the run recorded, in the bytes allowed; and nothing in a run can break out of the page."""

import html
import json
import re

import numpy as np
import pytest
from made_runs import made_run, set_state
from pages import data_of, inside, unpacked
from recorded_run import recorded_run

from proxsparse import ProxSparseError, Run
from proxsparse.cli import main
from proxsparse.files import read_json, write_json
from proxsparse.report import MOST_BYTES, report_page, write_report
from proxsparse.report.about import changed_settings, results
from proxsparse.report.packing import packed_bits, packed_numbers, packed_series
from proxsparse.report.tiles import FEWEST_STEPS, fitted, read_tile

STEPS = 44


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    return recorded_run(tmp_path_factory.mktemp("recorded") / "learned", steps=STEPS)


@pytest.fixture(scope="module")
def page(recorded):
    return report_page(recorded[0])


def head_of(page):
    """What a person reads of it: all before the scripts."""
    return page[: page.index("<script type=")]


def check_masks(found, masks):
    """Every mask on the page is the one that the learner had."""
    for layer in found["layers"]:
        kept = unpacked(layer["kept"])
        for step, tile in zip(found["steps"], kept, strict=True):
            assert (tile == masks[step][layer["name"]][inside(layer)]).all(), (layer["name"], step)


def test_the_masks_on_the_page_are_those_that_the_learner_had(recorded, page):
    run, masks = recorded
    found = data_of(page)["masks"]
    assert found["steps"] == list(range(STEPS + 1)) and [layer["name"] for layer in found["layers"]] == list(masks[0])
    check_masks(found, masks)
    assert any(
        (masks[STEPS][layer["name"]] != masks[0][layer["name"]])[inside(layer)].any() for layer in found["layers"]
    )
    for layer in found["layers"]:
        for name in ("start", "magnitude"):
            other = run.reference_mask(layer["name"], name)
            assert (unpacked(layer["others"][name]) == other[inside(layer)]).all()


def test_the_soft_weights_on_the_page_are_the_recorded_ones(recorded, page):
    run, _ = recorded
    for layer in data_of(page)["masks"]["layers"]:
        weights = unpacked(layer["weights"]).reshape(STEPS + 1, 3, -1)
        tile = run.tile(layer["name"])
        for at, half in ((1, "gradient"), (2, "prox")):
            table = tile[(tile["half"] == half) & (tile["step"] > 0)]
            expected = table["weight"].to_numpy().reshape(STEPS, -1)
            precise = np.abs(expected) * 2**-10 + layer["weights"]["unit"] * 2**-24
            assert (np.abs(weights[1:, at] - expected) <= precise).all()
        assert (weights[1:, 0] == weights[:-1, 2]).all(), "a step begins where the one before ended"
        whole = run.patterns(layer["name"]).drop(columns="step").to_numpy()
        assert np.allclose(unpacked(layer["whole"]), whole, equal_nan=True)


def test_steps_are_left_out_first_and_then_the_soft_weights(recorded):
    run, masks = recorded
    history, all_steps = run.history(), list(range(STEPS + 1))
    whole, said = fitted(history, 10**9)
    size = len(json.dumps(whole))
    assert whole["steps"] == all_steps and f"All {STEPS + 1} recorded steps" in said

    fewer, said = fitted(history, size - 1)
    assert FEWEST_STEPS <= len(fewer["steps"]) < STEPS and (fewer["steps"][0], fewer["steps"][-1]) == (0, STEPS)
    assert len(json.dumps(fewer)) < size and fewer["layers"][0]["weights"]
    assert said == f"Of {STEPS + 1} recorded steps {len(fewer['steps'])} are here, so that the page stays small."

    without, said = fitted(history, len(json.dumps(fewer)) - 1)
    assert without["steps"] == all_steps and not any(layer["weights"] for layer in without["layers"])
    assert "soft weights are left out" in said and "All" in said
    least, _ = fitted(history, len(json.dumps(without)) - 1)
    assert len(least["steps"]) < STEPS
    for found in (fewer, without, least):
        check_masks(found, masks)
    assert fitted(history, 1000) == (None, "The masks are left out: the page would be too large with them.")


def test_where_steps_are_left_out_a_step_still_begins_with_what_came_before_it(recorded):
    run, _ = recorded
    layer = run.history().layers[0]
    whole, some = (read_tile(run.history(), layer, steps) for steps in (list(range(STEPS + 1)), [0, 7, 20, STEPS]))
    assert (some.weights == whole.weights[[0, 7, 20, STEPS]]).all()


def test_the_page_has_at_most_the_bytes_allowed(recorded, page):
    run, _ = recorded
    assert len(page.encode()) < MOST_BYTES == 15_000_000
    most = len(page.encode()) - 5000
    smaller = report_page(run, most)
    assert len(smaller.encode()) <= most and data_of(smaller)["masks"]
    assert "so that the page stays small" in head_of(smaller)
    with pytest.raises(ProxSparseError, match="bytes without its masks: allow that many, not 1,000,000"):
        report_page(run, 1_000_000)


def test_the_head_says_what_the_run_is_and_what_came_out(recorded, page):
    run, _ = recorded
    assert changed_settings(run) == {
        "steps": f"{STEPS} steps", "lambda1": "0.05", "metric windows": "4 windows", "learning rate": "0.02",
    }  # fmt: skip
    text = head_of(page)
    for said in ("learned", "mixed", "2:4", f"done, step {STEPS} of {STEPS}", "metric windows", "51.0 ± 1.0"):
        assert said in text, said
    (only,) = results(run)
    assert (only.mask, only.windows, only.context) == ("learned", 2, 512)


def test_the_map_holds_the_records_of_the_layers(recorded, page):
    run, _ = recorded
    maps, records, layers = data_of(page)["layers"], run.table("layers"), run.layers()
    quantities = {quantity["name"]: quantity for quantity in maps["quantities"]}
    drift = unpacked(quantities["drift"]["values"])
    differs = unpacked(quantities["differs from magnitude"]["values"])
    agreement = run.history().agreement("magnitude")
    for at, layer in enumerate(layers.itertuples()):
        cell = maps["projections"].index(layer.projection), maps["blocks"].index(layer.block)
        assert maps["layers"][cell[0]][cell[1]] == layer.name
        assert drift[(slice(None), *cell)] == pytest.approx([record[at] for record in records["drift"]], rel=1e-6)
        assert differs[(slice(None), *cell)] == pytest.approx(1 - agreement[layer.name].to_numpy(), abs=1e-6)


def test_without_a_history_the_rest_is_there_and_a_sentence(tmp_path):
    run = made_run(tmp_path / "old", steps=30)
    page = report_page(run)
    data = data_of(page)
    assert data["masks"] is None and len(data["curves"]) == 4 and len(data["layers"]["quantities"]) == 5
    assert "recorded no masks" in head_of(page)
    assert "nonzero soft weights" in head_of(page)


def test_a_run_that_took_no_step_and_one_of_thousands(tmp_path):
    page = report_page(made_run(tmp_path / "new"))
    assert "has taken no step yet" in head_of(page) and data_of(page)["layers"] is None
    long = report_page(made_run(tmp_path / "long", steps=3000))
    assert len(long.encode()) < 6_500_000
    assert len(data_of(long)["layers"]["quantities"][0]["steps"]) == 100


def test_nothing_in_a_run_breaks_out_of_the_page(tmp_path, page):
    nasty = "</script><script>alert(1)</script>"
    run = made_run(tmp_path / "a <img src=x onerror=alert(1)> & {{data}}", steps=2, corpus=f"{nasty}.txt")
    content = read_json(run.path / "layers.json")
    content["layers"][0] |= {"projection": nasty, "name": f"layers.0.{nasty}"}
    write_json(run.path / "layers.json", content)
    set_state(run, "failed", 2, error=nasty)
    made = report_page(run)
    assert [len(re.findall(tag, made, re.IGNORECASE)) for tag in ("<script", "</script")] == [3, 3]
    assert "<img" not in made.split("<style>")[0] + made.split("</style>")[1].split("<script")[0]
    assert html.escape(run.id) in made and html.escape(nasty) in made
    assert data_of(made)["layers"]["projections"][0] == nasty


def test_a_path_of_this_machine_stays_here(tmp_path):
    text = tmp_path / "private folder" / "letters.txt"
    run = made_run(tmp_path / "run", steps=2, corpus=str(text), model=str(tmp_path / "private folder" / "a-model"))
    page = report_page(run)
    assert "private folder" not in page and "letters.txt" in head_of(page) and "a-model" in head_of(page)


def test_only_a_report_is_replaced(tmp_path, monkeypatch, capsys):
    run = made_run(tmp_path / "run", steps=2)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert main(["report", str(run.path), "--to", "~/pages/run.html", "--json"]) == 0
    written = tmp_path / "home" / "pages" / "run.html"
    assert json.loads(capsys.readouterr().out) == {"report": str(written), "bytes": written.stat().st_size}
    written.write_text(written.read_text()[:2000])  # half a report is one
    assert write_report(run, written).stat().st_size > 4_000_000

    other = tmp_path / "notes.html"
    other.write_text("<html>mine</html>")
    for taken in (other, tmp_path):
        assert main(["report", str(run.path), "--to", str(taken)]) == 2
        assert f"{taken} is there and is no report: choose another name" in capsys.readouterr().err
    assert other.read_text() == "<html>mine</html>"
    assert main(["report", str(run.path), "--to", str(other / "run.html")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_what_learned_nothing_has_no_report(tmp_path, monkeypatch):
    run = Run.create_kind("sweep", {}, tmp_path / "sweep")
    with pytest.raises(ProxSparseError, match="learned no mask"):
        report_page(run)
    monkeypatch.setattr("proxsparse.report.page.find_spec", lambda name: None)
    with pytest.raises(ProxSparseError, match=r"pip install 'proxsparse\[figures\]'"):
        report_page(made_run(tmp_path / "run", steps=2))


def test_arrays_come_back():
    random = np.random.default_rng(0)
    bits = random.random((3, 5, 7)) < 0.5
    assert (unpacked(packed_bits(bits)) == bits).all()
    numbers = random.normal(size=(4, 6)).astype(np.float32)
    numbers[1, 2] = np.nan
    assert np.array_equal(unpacked(packed_numbers(numbers)), numbers, equal_nan=True)
    series = (random.normal(size=(9, 2, 8)) * 1e-6).astype(np.float32)
    series[4] = np.nan
    found = unpacked(packed_series(series))
    assert np.isnan(found[4]).all() and np.allclose(found, series, rtol=2**-10, atol=1e-12, equal_nan=True)
    assert (unpacked(packed_series(np.zeros((2, 4)))) == 0).all()
