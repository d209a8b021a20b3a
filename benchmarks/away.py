"""How masks hold on texts of another kind: learned on A, judged on B, C and D, one change at a time, with the figures of docs/quality.md.

    python benchmarks/plain_wikitext.py valid.txt > wikitext.txt
    python benchmarks/away.py --texts wikitext.txt rust.txt shakespeare.txt                  what is measured already is kept
    python benchmarks/away.py --texts … --learn-on bundled self self+bundled --only Quick KL --seeds 0 1
    python benchmarks/away.py --table [--choosing]                                           the table, nothing is run

Every mask is judged on the held-out part of all texts, `bundled` and `bundled-other` among them. Of each text the first windows are
reported and the last ones chosen by: what is the better setting is decided on windows that no table of results shows. What is
learned on: `bundled`, `self` (text that the dense model wrote), `mixed` (both), one of the files, several joined by +, or
`own:PIECES:TOP_P:TEMPERATURE`, which is written anew. What is learned: see levers.py. With a GPU, --workers runs several at once (with
OMP_NUM_THREADS=2 or so).
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from levers import ONE_SHOT_WINDOWS, VARIANTS
from pool import measured

from proxsparse import LearnConfig, load_model, prunable_layers
from proxsparse.evaluation.perplexity import window_losses
from proxsparse.methods import METHODS
from proxsparse.methods.maskllm import MaskLLMOptions
from proxsparse.methods.result import Pruned
from proxsparse.models import own_text
from proxsparse.reordering.channels import find_order

RESULTS = Path(__file__).parent / "results" / "away.json"
CONTEXT = 512
REPORTED, CHOSEN_BY = 40, 24  # at most so many windows of each text; of short ones three fifths are reported
BUNDLED = ("bundled", "bundled-other")
AWAY = ("bundled-other", "rust.txt", "shakespeare.txt", "wikitext.txt")
ONE_SHOT = ("magnitude", "wanda", "ria", "fisher", "sparsegpt", "sparsegpt-update", "admm", "swaps")
MASKLLM = {"maskllm 2e-4": 2e-4, "maskllm 5e-4": 5e-4, "maskllm 1e-3": 1e-3}
REORDERED = "reordered, "  # before a name: channels are reordered first, as `proxsparse reorder` does
RIVALS = (*ONE_SHOT, *MASKLLM, *(f"{name}, 400 steps" for name in MASKLLM))


def windows_to_judge(lm, files: dict[str, str]) -> dict[str, dict[str, torch.Tensor]]:
    """{text: {"report", "choose": windows of its held-out part}}. files: {name: path}."""
    found = {}
    for text in (*BUNDLED, *files):
        own = lm.heldout(text, CONTEXT).windows if text in BUNDLED else lm.windows(files[text], 256, CONTEXT).heldout
        cut = min(REPORTED, len(own) * 3 // 5)
        found[text] = {"report": own[:cut], "choose": own[cut:][-CHOSEN_BY:]}
    return found


def judged(model, texts: dict[str, dict[str, torch.Tensor]]) -> dict[str, dict[str, list[float]]]:
    """{text: {part: losses of its windows}} of the model as it is. texts: as `windows_to_judge` gives them."""
    return {
        text: {
            part: [round(loss, 4) for loss in window_losses(model, windows, batch=16).tolist()]
            for part, windows in parts.items()
        }
        for text, parts in texts.items()
    }


def write_own_text(lm, wanted: str) -> str:
    """A file of text that the dense model writes. wanted: own:PIECES:TOP_P:TEMPERATURE."""
    _, pieces, top_p, temperature = wanted.split(":")
    path = Path(tempfile.gettempdir()) / f"own-{pieces}-{top_p}-{temperature}.jsonl"
    with FileLock(f"{path}.lock"):
        if not path.is_file():
            written = own_text.write_own_text(lm, int(pieces), 320, float(top_p), float(temperature), seed=1)
            path.write_text("".join(json.dumps({"text": piece}) + "\n" for piece in written))
    return str(path)


class Bench:
    """The embedded model, and the windows of every text."""

    def __init__(self, model: str, texts: list[str]):
        self.lm = load_model(model)
        self.layers = prunable_layers(self.lm.model)
        self.files = {Path(text).name: text for text in texts}
        self.texts = windows_to_judge(self.lm, self.files)

    def calibration(self, learned_on: str, length: int) -> torch.Tensor:
        parts = [
            write_own_text(self.lm, part) if part.startswith("own:") else self.files.get(part, part)
            for part in learned_on.split("+")
        ]
        return torch.cat([self.lm.windows(part, length).calibration for part in parts])

    def measure(self, task: tuple[str, str, int]) -> dict:
        name, learned_on, seed = task
        if name == "dense":
            return {"losses": judged(self.lm.model, self.texts), "seconds": 0}
        began = time.perf_counter()
        with self.reordered(name, learned_on):
            pruned = self.made(name.removeprefix(REORDERED), learned_on, seed)
            seconds = time.perf_counter() - began
            with pruned.placed_in(self.layers):
                return {"losses": judged(self.lm.model, self.texts), "seconds": round(seconds, 1)}

    @contextmanager
    def reordered(self, name: str, learned_on: str) -> Iterator[None]:
        """The model with its channels in a better order for groups of four, where the name says so."""
        if not name.startswith(REORDERED):
            yield
            return
        order = find_order(self.lm.model, self.calibration(learned_on, 256)[:ONE_SHOT_WINDOWS]).order
        order.apply_(self.lm.model)
        try:
            yield
        finally:
            order.inverse().apply_(self.lm.model)

    def made(self, name: str, learned_on: str, seed: int) -> Pruned:
        if name in ONE_SHOT:
            return METHODS[name](
                self.lm.model, self.calibration(learned_on, 256)[:ONE_SHOT_WINDOWS], layers=self.layers
            )
        if name in RIVALS:
            rate, _, steps = name.partition(", ")
            budget = LearnConfig(seed=seed, steps=400 if steps else 80)
            return METHODS["maskllm"](
                self.lm.model, self.calibration(learned_on, 256), layers=self.layers, budget=budget,
                options=MaskLLMOptions(learning_rate=MASKLLM[rate]),
            )  # fmt: skip
        variant = VARIANTS[name]
        changes = variant.changes | {"seed": seed}
        windows = self.calibration(learned_on, variant.length)
        with variant.learner(self.lm.model, windows, LearnConfig(**changes), self.layers, **variant.given) as learner:
            while not learner.done:
                learner.step()
            return Pruned(learner.masks())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", nargs="*", default=[], help="files to judge on, beside the bundled texts")
    parser.add_argument("--learn-on", nargs="*", default=["bundled", "self"])
    parser.add_argument("--only", nargs="*", default=["Quick", "KL"], help="variants and rivals, in this order")
    parser.add_argument("--plan", type=Path, help="a file of lines name|text|seed, in place of the three options")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=math.inf, help="after so many, end and leave the rest")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--choosing", action="store_true", help="the table of the windows that settings are chosen by")
    arguments = parser.parse_args()
    results = json.loads(arguments.results.read_text()) if arguments.results.exists() else {}
    if not arguments.table:
        run(arguments, results)
    print(table(results, "choose" if arguments.choosing else "report"))


def run(arguments, results: dict) -> None:
    if arguments.plan:
        lines = [line.split("|") for line in arguments.plan.read_text().splitlines() if line.strip()]
        wanted = [(name, learned_on, int(seed)) for name, learned_on, seed in lines]
    else:
        wanted = [
            (name, learned_on, seed)
            for seed in arguments.seeds for name in arguments.only for learned_on in arguments.learn_on
        ]  # fmt: skip
    wanted = [task for task in dict.fromkeys([("dense", "", 0), *wanted]) if key(task) not in results]
    for task, result in measured(
        Bench, (arguments.model, arguments.texts), wanted, arguments.workers, arguments.minutes
    ):
        results[key(task)] = result
        arguments.results.write_text(json.dumps(results, sort_keys=True).replace('}, "', '},\n"') + "\n")
        told = {text: round(perplexity(parts["choose"]), 1) for text, parts in result["losses"].items()}
        print(f"{key(task)} {told} {result['seconds']} s", flush=True)


def key(task: tuple[str, str, int]) -> str:
    return "|".join(map(str, task))


def perplexity(losses: list[float]) -> float:
    return math.exp(statistics.fmean(losses))


def away(losses: dict, part: str) -> float:
    """Geometric mean of the perplexities on the texts that are away from `bundled` and `self`."""
    return math.exp(statistics.fmean(statistics.fmean(losses[text][part]) for text in AWAY if text in losses))


def table(results: dict, part: str) -> str:
    """Markdown: perplexity of each mask on each text, the mean of the seeds; in brackets over dense."""
    dense = {text: perplexity(parts[part]) for text, parts in results["dense||0"]["losses"].items()}
    lines = [f"| method | made on | {' | '.join(dense)} | away | seeds |", "|---|---|" + "---|" * (len(dense) + 2)]
    lines.append(
        f"| dense | | {' | '.join(f'{value:.1f}' for value in dense.values())} | {away(results['dense||0']['losses'], part):.1f} | |"
    )
    groups: dict[tuple[str, str], list[dict]] = {}
    for named, result in results.items():
        name, learned_on, _ = named.split("|")
        if name != "dense":
            groups.setdefault((name, learned_on), []).append(result["losses"])
    for (name, learned_on), runs in sorted(
        groups.items(), key=lambda item: (item[0][1], statistics.fmean(away(run, part) for run in item[1]))
    ):
        cells = []
        for text, floor in dense.items():
            value = np.mean([perplexity(run[text][part]) for run in runs])
            cells.append(f"{value:.1f} ({value / floor:.2f}×)")
        together = np.mean([away(run, part) for run in runs])
        lines.append(f"| {name} | {learned_on} | {' | '.join(cells)} | {together:.2f} | {len(runs)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
