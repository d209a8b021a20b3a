"""How masks hold on texts of another kind: learned on A, judged on B, C and D, one change at a time, with the figures of docs/quality.md.

    python benchmarks/plain_wikitext.py valid.txt > wikitext.txt
    python benchmarks/away.py --texts wikitext.txt rust.txt shakespeare.txt                what is measured already is kept
    python benchmarks/away.py --texts … --learn-on bundled self --only Quick KL --seeds 0 1
    python benchmarks/away.py --table [--choosing]                                         the table, nothing is run

Every mask is judged on all texts, `bundled` (its held-out part) and `bundled-other` among them. Of each text the first windows are
reported and the last ones chosen by: what is the better setting is decided on windows that no table shows. A mask that was learned on
a file is not judged on that file.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from pathlib import Path

import numpy as np

from proxsparse import LearnConfig, MaskLearner, load_heldout, load_model, prunable_layers
from proxsparse.config import METHODS
from proxsparse.evaluation.perplexity import window_losses
from proxsparse.methods import sparsegpt, wanda
from proxsparse.methods.result import Pruned

RESULTS = Path(__file__).parent / "results" / "away.json"
LENGTH, CONTEXT = 256, 512
REPORTED, CHOSEN_BY = 16, 12  # windows of each text, the first and the last of it
BUNDLED = ("bundled", "bundled-other")


# Settings beside the defaults.
VARIANTS = {
    "Quick": {},
    "KL": {"distill": 1.0},
    "half KL": {"distill": 0.5},
    "no regularizer": {"lambda1": 0.0, "ramp": 1.0},
    "KL, no regularizer": {"distill": 1.0, "lambda1": 0.0, "ramp": 1.0},
    "KL, learning rate 2e-3": {"distill": 1.0, "learning_rate": 2e-3},
    "KL, learning rate 5e-4": {"distill": 1.0, "learning_rate": 5e-4},
    "KL, 160 steps": {"distill": 1.0, "steps": 160},
    "KL, 4 windows a step": {"distill": 1.0, "batch": 4},
    "KL, 400 steps": {"distill": 1.0, "steps": 400},
    "the paper's": METHODS["proxsparse-paper"].options,
}
RIVALS = {
    "wanda": lambda model, windows, layers: wanda(model, windows[:128], layers=layers),
    "sparsegpt-update": lambda model, windows, layers: sparsegpt(model, windows[:128], layers=layers),
}


class Bench:
    """The embedded model, and the windows of every text."""

    def __init__(self, texts: list[Path]):
        self.lm = load_model("embedded")
        self.layers = prunable_layers(self.lm.model)
        self.texts = {name: self.windows_of(name) for name in (*BUNDLED, *map(str, texts))}

    def windows_of(self, text: str) -> dict:
        if text in BUNDLED:
            windows = load_heldout(text, self.lm.tokenizer, CONTEXT).windows
        else:  # the whole file: nothing is learned from it, or it is left out
            tokens = self.lm.tokenizer(Path(text).read_text(encoding="utf-8"), return_tensors="pt", verbose=False)
            ids = tokens.input_ids[0]
            windows = ids[: len(ids) // CONTEXT * CONTEXT].view(-1, CONTEXT)
        return {"report": windows[:REPORTED], "choose": windows[REPORTED:][-CHOSEN_BY:]}

    def judge(self, learned_on: str | None) -> dict:
        """{text: {part: losses of its windows}} of the model as it is."""
        return {
            Path(text).name: {part: window_losses(self.lm.model, windows).tolist() for part, windows in parts.items()}
            for text, parts in self.texts.items()
            if text in BUNDLED or text != learned_on
        }

    def learned(self, learned_on: str, changes: dict, seed: int) -> dict:
        config = LearnConfig(**changes | {"seed": seed})
        with MaskLearner(self.lm.model, self.calibration(learned_on), config, self.layers) as learner:
            seconds = [report.seconds for report in learner]
        found = self.worth(Pruned(learner.masks()), learned_on)
        return found | {"seconds": statistics.median(seconds), "steps": config.steps}

    def rival(self, learned_on: str, name: str) -> dict:
        return self.worth(RIVALS[name](self.lm.model, self.calibration(learned_on), self.layers), learned_on)

    def calibration(self, learned_on: str):
        return self.lm.windows(learned_on, LENGTH).calibration

    def worth(self, pruned: Pruned, learned_on: str) -> dict:
        with pruned.placed_in(self.layers):
            return {"losses": self.judge(learned_on)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", nargs="*", type=Path, default=[], help="files to judge on, beside the bundled texts")
    parser.add_argument("--learn-on", nargs="*", default=["bundled", "self"])
    parser.add_argument("--only", nargs="*", default=["Quick", "KL", *RIVALS], choices=[*VARIANTS, *RIVALS])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--choosing", action="store_true", help="the table of the windows that settings are chosen by")
    arguments = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if not arguments.table:
        bench = Bench(arguments.texts)

        def measure(key: str, what, *about) -> None:
            if key not in results:
                results[key] = what(*about)
                RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
                print(
                    key,
                    {text: round(perplexity(parts["report"]), 1) for text, parts in results[key]["losses"].items()},
                    flush=True,
                )

        measure("dense||0", lambda: {"losses": bench.judge(None)})
        for seed in arguments.seeds:
            for name in arguments.only:
                for learned_on in arguments.learn_on:
                    text = Path(learned_on).name
                    if name in RIVALS:
                        measure(f"{name}|{text}|0", bench.rival, learned_on, name)
                    else:
                        measure(f"{name}|{text}|{seed}", bench.learned, learned_on, VARIANTS[name], seed)
    print(table(results, "choose" if arguments.choosing else "report"))


def perplexity(losses: list[float]) -> float:
    return math.exp(statistics.fmean(losses))


def table(results: dict, part: str) -> str:
    """Markdown: perplexity of each mask on each text, the mean of the seeds; in brackets over dense."""
    dense = {text: perplexity(parts[part]) for text, parts in results["dense||0"]["losses"].items()}
    lines = [f"| method | made on | {' | '.join(dense)} | seeds |", "|---|---|" + "---|" * (len(dense) + 1)]
    lines.append(f"| dense | | {' | '.join(f'{value:.1f}' for value in dense.values())} | |")
    groups: dict[tuple[str, str], list[dict]] = {}
    for key, result in results.items():
        name, learned_on, _ = key.split("|")
        if name != "dense":
            groups.setdefault((name, learned_on), []).append(result["losses"])
    for (name, learned_on), runs in sorted(groups.items(), key=lambda item: item[0][::-1]):
        cells = []
        for text, floor in dense.items():
            values = [perplexity(run[text][part]) for run in runs if text in run]
            cells.append(f"{np.mean(values):.1f} ({np.mean(values) / floor:.2f}×)" if values else "learned on it")
        lines.append(f"| {name} | {learned_on} | {' | '.join(cells)} | {len(runs)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
