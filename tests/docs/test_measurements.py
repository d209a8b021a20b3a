"""The numbers of the pages are those that were recorded, and the same on every page that shows them."""

import importlib
import itertools
import json
import re
from pathlib import Path
from statistics import fmean

import pandas as pd
import pytest

from proxsparse import Comparison, Run
from proxsparse.learning.update import BYTES, learning_bytes

BENCHMARKS, QUALITY, README = Path("docs/explain/benchmarks.md"), Path("docs/quality.md"), Path("README.md")
RESULTS = Path("benchmarks/results")
TEXTS = {
    "bundled, held out": "", "bundled-other": " on bundled-other", "WikiText-2": " on wikitext.txt", "the Rust book": " on rust.txt",
    "Shakespeare": " on shakespeare.txt",
}  # fmt: skip
METHODS = {
    "dense": "dense", "ProxSparse, Quick": "proxsparse", "MaskLLM": "maskllm", "ADMM-pruning": "admm",
    "SparseGPT with its weight update": "sparsegpt-update", "ProxSparse, the paper's": "proxsparse-paper",
    "Wanda's mask, refined by swaps": "swaps", "SparseGPT, its mask alone": "sparsegpt", "Fisher": "fisher", "Wanda": "wanda",
    "RIA": "ria", "magnitude": "magnitude", "random": "random",
}  # fmt: skip


def rows(page: Path, heading: str) -> dict[str, list[str]]:
    """{first cell: other cells} of the table whose heading begins so, without the marks of bold print."""
    lines = page.read_text(encoding="utf-8").splitlines()
    begin = next(number for number, line in enumerate(lines) if line.startswith(heading))
    found = {}
    for line in lines[begin:]:
        if not line.startswith("|"):
            break
        name, *cells = (cell.strip().strip("*") for cell in line.strip("|").split("|"))
        found[name] = cells
    return found


def says(shown: str, measured: float) -> bool:
    """Whether a number, as it is written, is a measured one rounded to its digits."""
    if "e" in shown:
        return f"{measured:.0e}".replace("e+0", "e") == shown
    digits = len(shown.partition(".")[2])
    return abs(float(shown) - measured) <= 0.501 * 10**-digits


def in_one_line(page: Path) -> str:
    """The text of a page, its lines joined."""
    return " ".join(page.read_text(encoding="utf-8").split())


@pytest.fixture(scope="module")
def recorded():
    """The recorded comparison, a row a method."""
    return Comparison(Run("assets/example-comparison")).table().set_index("method")


@pytest.mark.parametrize(("page", "methods"), [(BENCHMARKS, len(METHODS)), (README, 6)])
def test_masks_made_on_mixed_are_those_of_the_recorded_comparison(page, methods, recorded):
    table = rows(page, "| made on `mixed`")
    texts = table.pop("made on `mixed`")[:-1]
    del table["---"]
    assert texts == list(TEXTS) and len(table) >= methods and {"dense", "ProxSparse, Quick"} <= table.keys()
    for name, (*cells, weights) in table.items():
        measured = recorded.loc[METHODS[name]]
        assert (weights == "updated") == measured["weights_changed"], name
        for text, cell in zip(texts, cells, strict=True):
            value, _, stderr = cell.partition(" ± ")
            assert says(value, measured[f"perplexity{TEXTS[text]}"]), f"{name} on {text}"
            assert not stderr or says(stderr, measured[f"stderr{TEXTS[text]}"]), f"{name} on {text}"


def test_the_ratios_of_the_nearest_rivals_are_those_of_the_recorded_comparison(recorded):
    (sentence,) = re.findall(r"paired ratio of the nearest rival[^.]*\.(?:\d[^.]*\.)*", in_one_line(BENCHMARKS))
    shown = re.findall(r"(\d\.\d\d) ± (\d\.\d\d)", sentence)
    assert len(shown) == len(TEXTS)
    rivals = recorded.drop(index=["dense", "proxsparse"])
    for (value, stderr), text in zip(shown, TEXTS.values(), strict=True):
        nearest = rivals.loc[rivals[f"ratio{text}"].idxmin()]
        assert says(value, nearest[f"ratio{text}"]) and says(stderr, nearest[f"ratio_stderr{text}"]), text


def test_a_measurement_on_wikitext_is_the_same_wherever_it_is_shown():
    whole = rows(BENCHMARKS, "| mask | perplexity |")
    part = rows(Path("docs/explain/departures.md"), "| mask | perplexity |")
    assert len(part) >= 7
    for name, (perplexity,) in part.items():
        assert name == "---" or whole[name][0].strip("*") == perplexity, name


@pytest.fixture
def away(monkeypatch):
    """benchmarks/away.py, which finds its neighbours beside it."""
    monkeypatch.syspath_prepend("benchmarks")
    return importlib.import_module("away")


def lines_of(page: Path, heading: str) -> list[str]:
    """A table, line by line, without its heading."""
    found = page.read_text(encoding="utf-8").splitlines()
    begin = next(number for number, line in enumerate(found) if line.startswith(heading))
    return list(itertools.takewhile(lambda line: line.startswith("|"), found[begin + 2 :]))


def cells(lines: list[str]) -> list[list[str]]:
    return [line.strip("| ").split(" | ") for line in lines]


def test_masks_away_from_home_are_those_that_were_recorded(away):
    results = json.loads(away.RESULTS.read_text())
    shown, measured = lines_of(QUALITY, "| method | made on | bundled |"), away.table(results, "report").splitlines()
    assert len(shown) > 15 and set(shown) <= set(measured), set(shown) - set(measured)

    chosen_by = cells(away.table(results, "choose").splitlines()[3:])
    home_and_away = {
        name: (f"{float(away):.1f}", home.split()[0], seeds)
        for name, text, home, *_, away, seeds in chosen_by
        if text == "self"
    }
    tried = {name: tuple(row) for name, row in rows(QUALITY, "| changed | away | home | seeds |").items()}
    assert len(tried) > 15 and all(home_and_away[name] == row for name, row in list(tried.items())[2:])


def shares(away, results: dict, rival: str, learned_on: str, name="default", seeds=3) -> dict[str, list[float]]:
    """{text: perplexity of the default over that of a rival, made on the same text, for each seed of the default}."""
    ours = [results[f"{name}|{learned_on}|{seed}"]["losses"] for seed in range(seeds)]
    return {
        text: [away.perplexity(losses[text]["report"]) / away.perplexity(theirs["report"]) for losses in ours]
        for text, theirs in results[f"{rival}|{learned_on}|0"]["losses"].items()
    }


def pairs(away, rival: str) -> dict[tuple[str, str], list[float]]:
    """{(made on, judged on): the default's shares of a rival's perplexity, a seed of the default each}."""
    results = json.loads(away.RESULTS.read_text())
    made_on = [task.split("|")[1] for task in results if task.startswith(f"{rival}|") and task.endswith("|0")]
    return {
        (learned_on, text): found
        for learned_on in made_on
        for text, found in shares(away, results, rival, learned_on).items()
    }


def away_on_mixed() -> dict[str, float]:
    """{method: perplexity away of its mask made on `mixed`}, as the page shows it."""
    table = cells(lines_of(QUALITY, "| method | made on | bundled |"))
    return {name: float(row[-1]) for name, made_on, *row, _ in table if made_on == "mixed"}


def means(pairs: dict[tuple[str, str], list[float]]) -> dict[tuple[str, str], float]:
    return {pair: fmean(shares) for pair, shares in pairs.items()}


def extremes(shares: list[float]) -> tuple[float, float]:
    return round(min(shares), 2), round(max(shares), 2)


def test_the_default_is_below_sparsegpt_with_its_update_on_every_pair_of_texts(away):
    found = pairs(away, "sparsegpt-update")  # which draws nothing at random
    share, worst = means(found), max(map(max, found.values()))
    shown = r"with (0\.\d\d) to (0\.\d\d) of its perplexity, the mean of three seeds, and at most (0\.\d\d) with the worst of them"
    said = tuple(map(float, re.search(shown, in_one_line(QUALITY)).groups()))
    assert len(share) == 25 and (*extremes(share.values()), round(worst, 2)) == said
    assert worst < 1 and max(share, key=share.get) == ("bundled", "shakespeare.txt")


def test_the_default_is_below_maskllm_on_every_pair_of_texts(away):
    share = means(pairs(away, "maskllm 5e-4"))
    said = re.search(r"\(one seed of MaskLLM\), with (0\.\d\d) to (0\.\d\d) of its perplexity", in_one_line(QUALITY))
    assert len(share) == 25 and extremes(share.values()) == tuple(map(float, said.groups()))
    shown = r"three that were tried on `mixed` \((\S+) at 2e-4, (\S+), (\S+) at 1e-3\)"
    low, chosen, high = re.search(shown, in_one_line(QUALITY)).groups()
    measured = [away_on_mixed()[f"maskllm {rate}"] for rate in ("2e-4", "5e-4", "1e-3")]
    assert all(map(says, (low, chosen, high), measured)) and min(measured) == measured[1]
    for text in ("bundled", "rust.txt", "shakespeare.txt", "wikitext.txt"):
        assert max((judged for made, judged in share if made == text), key=lambda judged: share[text, judged]) == text


def test_the_default_is_below_admm_on_every_pair_of_texts_but_one(away):
    found = pairs(away, "admm")
    level = found.pop(("bundled", "shakespeare.txt"))
    share = means(found)
    shown = (
        r"on 24 of the pairs, with (0\.\d\d) to (0\.\d\d) of its perplexity.*they are level, (\d+\.\d) and (\d+\.\d)\."
    )
    *said, ours, theirs = map(float, re.search(shown, in_one_line(QUALITY)).groups())
    assert len(share) == 24 and extremes(share.values()) == tuple(said)
    assert 1 < fmean(level) < 1.02 and fmean(level) == pytest.approx(ours / theirs, abs=0.001)


def test_400_steps_help_the_default_away_from_home_and_not_maskllm(away):
    results, text = json.loads(away.RESULTS.read_text()), in_one_line(QUALITY)
    of_both = shares(away, results, "maskllm 5e-4, 400 steps", "mixed", name="default, 400 steps", seeds=1)
    share = [found for (found,) in of_both.values()]
    both = re.search(r"With 400 steps for both, the default has (0\.\d\d) to (0\.\d\d) of MaskLLM's", text)
    assert len(share) == 5 and extremes(share) == tuple(map(float, both.groups()))
    shown = r"the default goes from (\S+) to (\S+) away with 400 steps in place of 80, and MaskLLM from (\S+) to (\S+),"
    measured = away_on_mixed()
    names = [name + steps for name in ("default", "maskllm 5e-4") for steps in ("", ", 400 steps")]
    for value, name in zip(re.search(shown, text).groups(), names, strict=True):
        assert says(value, measured[name]), name


def test_metrics_with_the_gradient_end_where_the_page_says(away):
    results, text = json.loads(away.RESULTS.read_text()), in_one_line(QUALITY)
    table = cells(away.table(results, "choose").splitlines()[3:])
    measured = [float(row[-2]) for share in (0.95, 0.8, 0.5) for row in table if row[0] == f"default, metric {share}"]
    said = re.search(r"and so on\), the mask ends at (\S+), (\S+) and (\S+)\.(?= )", text).groups()
    assert len(measured) == 3 and all(map(says, said, measured))


def test_what_is_said_not_to_be_measured_is_not(away):
    """When this fails, a study has grown: take it out of the list at the end of docs/quality.md, and report it there."""
    made_on = {}
    for name, text, _ in (task.split("|") for task in json.loads(away.RESULTS.read_text())):
        made_on.setdefault((name, text), 0)
        made_on[name, text] += 1
    texts = {name: {text for made, text in made_on if made == name} for name, _ in made_on}
    assert texts["default"] == texts["sparsegpt-update"] == texts["admm"] == texts["maskllm 5e-4"]
    assert {task: seeds for task, seeds in made_on.items() if seeds > 1} == {
        ("KL", "self"): 3, **{("default", text): 3 for text in texts["default"]},
    }  # fmt: skip
    assert {name: made for name, made in texts.items() if name.endswith(", 400 steps")} == {
        "default, 400 steps": {"mixed", "wikitext.txt"}, "KL, 400 steps": {"self+bundled"}, "maskllm 5e-4, 400 steps": {"mixed"},
    }  # fmt: skip


def test_what_the_operator_takes_is_what_was_measured():
    table = rows(BENCHMARKS, "| λ · RMS of the weights")
    measured = json.loads((RESULTS / "proximal-cpu.json").read_text())["rows"]
    for row in measured:
        reference, ours, counted, ratio = table[f"{row['λ·rms']:g}"]
        assert says(reference.removesuffix(" s"), row["reference, s"]) and says(ours.removesuffix(" s"), row["ours, s"])
        assert says(counted.removesuffix(" s"), row["with counts, s"]) and int(ratio) == row["ratio"]
    assert len(table) == len(measured) + 2


def test_what_a_step_takes_is_what_was_measured():
    table = rows(BENCHMARKS, "| | step | peak memory |")
    shown = [tuple(cells) for name, cells in table.items() if name not in ("", "---")]
    measured = json.loads((RESULTS / "step-cpu.json").read_text())["rows"]
    assert len(shown) == len(measured)
    for (seconds, memory), row in zip(shown, measured, strict=True):
        assert says(seconds.removesuffix(" s"), row["step, s"]) and says(
            memory.removesuffix(" GB"), row["peak memory, GB"]
        )


def test_where_a_step_goes_is_what_was_measured():
    table = rows(BENCHMARKS, "| | share |")
    measured = json.loads((RESULTS / "operations-cpu.json").read_text())
    shown = {
        name.partition(":")[0].replace("AdamW", "optimizer").removesuffix(" over the vocabulary"): cells
        for name, cells in table.items()
    }
    assert shown.keys() - {"", "---"} == measured["shares"].keys()
    for name, share in measured["shares"].items():
        assert says(shown[name][0].removesuffix("%"), 100 * share), name
    operator = 100 * measured["proximal operator, of the step"]
    assert f"The proximal operator takes another {operator:.0f}% of the step." in in_one_line(BENCHMARKS)


def test_the_memory_plans_are_those_of_the_program():
    table = rows(Path("docs/explain/memory.md"), "| | full | lean |")
    kinds = {"soft weight": "soft", "gradient": "gradient", "AdamW's moments": "moments"}
    for column, plan in enumerate(("full", "lean")):
        for name, kind in kinds.items():
            assert int(re.match(r"\d+", table[name][column])[0]) == BYTES[plan][kind], name
        original = int(table["original weight, of a bf16 model"][column])
        assert int(table["together"][column].strip("*")) == original + learning_bytes(plan, "masked")
        assert int(table["with the loss at the soft weights (`--loss-at soft`)"][column]) == original + learning_bytes(
            plan, "soft"
        )


def test_the_sweep_is_told_as_it_was_recorded():
    """By `Sweep.table` of its run: the ranges after 20 steps, and where the two that went on ended."""
    found = pd.read_csv(RESULTS / "sweep.csv")
    text = in_one_line(BENCHMARKS)
    for rate in (0.001, 0.0005):
        at = found[(found["steps"] == 20) & (found["learning_rate"] == rate)]["perplexity"]
        assert len(at) == 4 and f"{rate:g} " in text
        assert re.search(rf"between {at.min():.1f} and {at.max():.1f}", text), rate
    last = found[found["steps"] == 80].set_index("lambda1")["perplexity"]
    assert len(last) == 2
    for strength, value in last.items():
        assert re.search(rf"λ1 {strength:g} (ends )?at {value:.1f}", text), strength


def test_masks_made_on_wikitext_are_told_as_they_were_judged():
    found = pd.read_csv(RESULTS / "made-on-wikitext.csv").set_index("method")
    shown = rows(BENCHMARKS, "| made on WikiText-2, judged on")
    texts = ("bundled", "bundled-other", "rust.txt", "shakespeare.txt")
    for name, method in METHODS.items():
        for cell, text in zip(shown[name], texts, strict=True):
            value, *error = cell.split(" ± ")
            assert says(value, found.loc[method, f"perplexity on {text}"]), (name, text)
            assert all(says(each, found.loc[method, f"stderr on {text}"]) for each in error), (name, text)
    others = found.drop(index=["dense", "proxsparse"])
    for text in texts:
        assert found.loc["proxsparse", f"perplexity on {text}"] < others[f"perplexity on {text}"].min()
        assert others[f"perplexity on {text}"].idxmin() == "admm"


def test_what_streaming_takes_is_what_was_measured():
    table = rows(BENCHMARKS, "| command, streamed")
    measured = json.loads((RESULTS / "streamed.json").read_text())
    larger, compared = (
        {(row["command"], row["way"]): row for row in measured[name]["rows"]} for name in ("larger", "compared")
    )
    assert len(table) == 5 and larger["eval", "in memory, under the limit"]["exit code"] == -9
    for command in ("prune, export", "eval", "verify"):
        found, (time, peak, share, slower, smaller) = larger[command, "streamed"], table[command]
        streamed, whole = compared[command, "streamed"], compared[command, "in memory"]
        assert found["exit code"] == 0 and found["peak, GB"] * 1e9 < measured["larger"]["limit"]
        assert says(time.removesuffix(" s"), found["seconds"]) and says(peak.removesuffix(" GB"), found["peak, GB"])
        assert says(share, found["weights / peak"]) and says(slower, streamed["seconds"] / whole["seconds"])
        assert says(smaller, streamed["peak, GB"] / whole["peak, GB"])


def test_times_of_the_lessons_are_those_that_were_measured():
    seconds = json.loads((RESULTS / "lessons.json").read_text())["seconds"]
    shown = re.findall(
        r"^\| \[.*\]\((\w+)\.ipynb\).* (\d+) \((\d+)\) \|$", Path("notebooks/README.md").read_text(), re.MULTILINE
    )
    assert {name: {"fast": int(fast), "whole": int(whole)} for name, whole, fast in shown} == seconds
    assert len(seconds) == 6 and all(each["fast"] < 120 and each["whole"] < 900 for each in seconds.values())
