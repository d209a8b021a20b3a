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
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from proxsparse import LearnConfig, MaskLearner, load_heldout, load_model
from proxsparse.config import METHODS
from proxsparse.evaluation.perplexity import window_losses
from proxsparse.methods import sparsegpt, wanda

RESULTS = Path(__file__).parent / "results" / "away.json"
LENGTH, CONTEXT = 256, 512
REPORTED, CHOSEN_BY = 16, 12  # windows of each text, the first and the last of it
BUNDLED = ("bundled", "bundled-other")


@dataclass
class Variant:
    """What is learned with, beside the defaults."""

    changes: dict = field(default_factory=dict)


VARIANTS = {
    "Quick": Variant(),
    "KL": Variant({"distill": 1.0}),
    "half KL": Variant({"distill": 0.5}),
    "no regularizer": Variant({"lambda1": 0.0, "ramp": 1.0}),
    "KL, no regularizer": Variant({"distill": 1.0, "lambda1": 0.0, "ramp": 1.0}),
    "KL, learning rate 2e-3": Variant({"distill": 1.0, "learning_rate": 2e-3}),
    "KL, learning rate 5e-4": Variant({"distill": 1.0, "learning_rate": 5e-4}),
    "KL, 160 steps": Variant({"distill": 1.0, "steps": 160}),
    "KL, 4 windows a step": Variant({"distill": 1.0, "batch": 4}),
    "KL, 400 steps": Variant({"distill": 1.0, "steps": 400}),
    "the paper's": Variant(METHODS["proxsparse-paper"].options),
}
RIVALS = {
    "wanda": lambda model, windows, layers: wanda(model, windows[:128], layers=layers),
    "sparsegpt-update": lambda model, windows, layers: sparsegpt(model, windows[:128], layers=layers),
}


class Bench:
    """The embedded model, and the windows of every text."""

    def __init__(self, texts: list[Path]):
        self.lm = load_model("embedded")
        self.texts = {name: self.windows_of(name) for name in (*BUNDLED, *map(str, texts))}

    def windows_of(self, text: str) -> dict:
        windows = load_heldout(text, self.lm.tokenizer, CONTEXT).windows
        whole = windows if text in BUNDLED else self.whole(text)
        return {"report": whole[:REPORTED], "choose": whole[REPORTED:][-CHOSEN_BY:]}

    def whole(self, file: str):
        """All windows of a file: nothing is learned from it, or it is left out."""
        ids = self.lm.tokenizer(Path(file).read_text(encoding="utf-8"), return_tensors="pt", verbose=False).input_ids[0]
        return ids[: len(ids) // CONTEXT * CONTEXT].view(-1, CONTEXT)

    def judge(self, learned_on: str | None) -> dict:
        """{text: {part: losses of its windows}} of the model as it is."""
        return {
            Path(text).name: {part: window_losses(self.lm.model, windows).tolist() for part, windows in parts.items()}
            for text, parts in self.texts.items()
            if text in BUNDLED or text != learned_on
        }

    def learned(self, learned_on: str, variant: Variant, seed: int) -> dict:
        windows = self.lm.windows(learned_on, LENGTH).calibration
        config = LearnConfig(**variant.changes | {"seed": seed})
        with MaskLearner(self.lm.model, windows, config) as learner:
            seconds = [report.seconds for report in learner]
        return self.under(learner.masks(), learned_on) | {"seconds": statistics.median(seconds), "steps": config.steps}

    def under(self, masks, learned_on: str) -> dict:
        kept = {name: value.clone() for name, value in self.lm.model.state_dict().items()}
        masks.apply_(self.lm.model)
        try:
            return {"losses": self.judge(learned_on)}
        finally:
            self.lm.model.load_state_dict(kept)

    def rival(self, learned_on: str, name: str) -> dict:
        from proxsparse import prunable_layers

        layers = prunable_layers(self.lm.model)
        kept = {name: value.clone() for name, value in self.lm.model.state_dict().items()}
        pruned = RIVALS[name](self.lm.model, self.lm.windows(learned_on, LENGTH).calibration, layers)
        try:
            if pruned.weights is None:
                pruned.masks.apply_(self.lm.model)
            else:
                for layer, weight in pruned.weights.items():
                    layers[layer].matrix.copy_(weight)
            return {"losses": self.judge(learned_on)}
        finally:
            self.lm.model.load_state_dict(kept)


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
