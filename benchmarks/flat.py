"""Many small changes of the learner in minutes on a GPU: all prunable weights of the embedded model lie in one buffer, so that what a step
does beside its passes through the model is a few large kernels. Without the regularizer, which decides little (docs/quality.md).

    python benchmarks/flat.py PLAN --texts wikitext.txt rust.txt shakespeare.txt [--workers 6] [--minutes 9]
    python benchmarks/flat.py --table

PLAN has a line of JSON for every run: what it changes of `Settings`, such as {"batch": 8, "power": 2}. It is judged as in away.py.
Several workers gain most where CUDA's MPS lets their kernels run side by side.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from away import away, judged, perplexity, windows_to_judge, write_own_text
from pool import measured
from torch import Tensor

from proxsparse import LearnConfig, load_model, prunable_layers
from proxsparse.learning.schedule import learning_rate_at, passes_at
from proxsparse.masks.groups import keep_largest
from proxsparse.methods import METHODS
from proxsparse.models.activations import activation_scales
from proxsparse.models.forward import autocast, next_token_divergences, next_token_states

RESULTS = Path(__file__).parent / "results" / "flat.jsonl"
LENGTH = 256


@dataclass(frozen=True)
class Settings:
    """What a line of the plan may change. learns: the weights, or scores, which are logarithms of magnitudes, with the gradient of the
    mask g·w0. power: of the update of AdamW, which is near 1 where gradients agree and small where they are noise. second_moment: one for
    each weight, group, row or layer. noise: of Gumbel noise on the scores under which the loss is taken, at first; none after 70% of
    the steps. shrink: of the way that each weight has gone, as a share of the learning rate a step. start, margin: the method whose mask
    comes first, and by how much what it keeps is raised over what it drops. averaged: share of the last steps whose mean is taken."""

    text: str = "self"
    steps: int = 80
    batch: int = 4
    rate: float = 1e-3
    beta1: float = 0.9
    learns: str = "weights"
    power: float = 1.0
    second_moment: str = "weight"
    noise: float = 0.0
    shrink: float = 0.0
    dropped_gradient: float = 1.0
    metric_power: float = 1.0
    start: str = "wanda"
    margin: float = 0.1
    share: float = 1.0
    warmup: float = 0.1
    decay: str = "linear"
    averaged: float = 0.0
    seed: int = 0


class Bench:
    """Model, teacher, texts, and the flat buffers."""

    def __init__(self, model: str, texts: list[str]):
        self.lm = load_model(model)
        self.files = {Path(text).name: text for text in texts}
        self.texts = windows_to_judge(self.lm, self.files)
        self.dense, self.windows, self.start_masks = copy.deepcopy(self.lm), {}, {}  # as loaded: for text and methods
        self.teacher = copy.deepcopy(self.lm.model).requires_grad_(False)
        self.model = self.lm.model.float().requires_grad_(False)
        self.device = self.model.device
        self.layers = prunable_layers(self.model)
        self.shapes = {name: layer.matrix.shape for name, layer in self.layers.items()}
        self.originals = torch.cat([layer.matrix.flatten() for layer in self.layers.values()])
        self.masked = self.originals.bfloat16()
        self.gradient = torch.zeros_like(self.masked)
        for (_, span), layer in zip(self.spans(), self.layers.values(), strict=True):
            layer.parameter.data = self.masked[span].view(layer.parameter.shape)
        self.teacher.float()
        for name, layer in prunable_layers(self.teacher).items():
            layer.parameter.data = self.layers[name].parameter.data.clone()

    def spans(self):
        begin = 0
        for name, shape in self.shapes.items():
            yield name, slice(begin, begin + shape.numel())
            begin += shape.numel()

    def calibration(self, text: str) -> Tensor:
        if text not in self.windows:
            parts = [
                write_own_text(self.dense, part) if part.startswith("own:") else self.files.get(part, part)
                for part in text.split("+")
            ]
            windows = [self.dense.windows(part, LENGTH).calibration for part in parts]
            self.windows[text] = torch.cat(windows).to(self.device)
        return self.windows[text]

    def flat(self, by_layer: dict[str, Tensor]) -> Tensor:
        return torch.cat([by_layer[name].expand(shape).flatten() for name, shape in self.shapes.items()])

    def hold(self, kept: Tensor) -> None:
        """Let the model have the original weights under a mask."""
        torch.mul(self.originals, kept, out=self.masked)

    def mask_of(self, method: str, text: str) -> Tensor:
        if (method, text) not in self.start_masks:
            masks = METHODS[method](self.dense.model, self.calibration(text)[:128]).masks
            self.start_masks[method, text] = self.flat({name: masks[name].dense(self.device) for name in self.shapes})
        return self.start_masks[method, text]

    def spread(self, squares: Tensor, over: str) -> Tensor:
        """The mean of squares over each group, row or layer, where they were."""
        if over == "weight":
            return squares
        found = torch.empty_like(squares)
        for name, span in self.spans():
            matrix = squares[span].view(self.shapes[name])
            if over == "group":
                groups = squares[span].view(-1, 4)
                found[span] = groups.mean(1, keepdim=True).expand_as(groups).flatten()
            else:
                mean = matrix.mean(1, keepdim=True) if over == "row" else matrix.mean()
                found[span] = mean.expand_as(matrix).flatten()
        return found

    def loss(self, windows: Tensor, share: float) -> Tensor:
        with torch.no_grad(), autocast(self.device):
            teacher = next_token_states(self.teacher, windows)
        with autocast(self.device):
            states = next_token_states(self.model, windows)
            return next_token_divergences(self.model, states, teacher, windows[:, 1:], share).mean()

    def learned(self, o: Settings) -> tuple[Tensor, Tensor]:
        """(the mask that is learned, the one that it began with), bool (weights,)."""
        windows = self.calibration(o.text)
        self.hold(torch.ones_like(self.originals))
        scale = self.flat(activation_scales(self.model, self.layers, windows[:16])) ** o.metric_power
        sizes = self.originals.abs() * scale
        if o.start != "wanda":
            sizes = ranked(sizes, self.mask_of(o.start, o.text), o.margin)
        scores = o.learns == "scores"
        sign = torch.where(self.originals < 0, -1.0, 1.0)
        soft = sizes.clamp_min(1e-9).log() if scores else sign * sizes / scale
        origin, first = soft.clone(), kept_of(sizes)
        mean, square, average = torch.zeros_like(soft), torch.zeros_like(soft), None
        config = LearnConfig(
            steps=o.steps, learning_rate=o.rate, batch=o.batch, warmup=o.warmup, decay=o.decay, seed=o.seed
        )
        generator = torch.Generator(self.device).manual_seed(o.seed + 7)
        for step in range(o.steps):
            rate = learning_rate_at(step, config)
            ranking = soft if scores else (soft.abs() * scale).clamp_min(1e-20).log()
            strength = o.noise * max(0.0, 1 - step / (0.7 * o.steps))
            if strength:
                noise = torch.empty_like(ranking).exponential_(generator=generator).log().neg()
                ranking = ranking + strength * noise
            kept = kept_of(ranking)
            self.hold(kept)
            (drawn,) = passes_at(step, len(windows), config)
            gradient = self.gradient_of(windows[drawn.to(self.device)], o.share)
            gradient *= (1 / (gradient.norm() + 1e-6)).clamp(max=1.0)
            gradient = torch.where(kept, gradient, gradient * o.dropped_gradient)
            if scores:
                gradient *= self.originals
            mean.lerp_(gradient, 1 - o.beta1)
            square.lerp_(self.spread(gradient.square(), o.second_moment), 1e-3)
            size = (square / (1 - 0.999 ** (step + 1))).sqrt() + (1e-20 if scores else 1e-8)
            update = mean / (1 - o.beta1 ** (step + 1)) / size
            soft.sub_((update.sign() * update.abs() ** o.power).clamp_(-5, 5), alpha=rate)
            if o.shrink:
                way = soft - origin
                soft = origin + way.sign() * (way.abs() - o.shrink * rate).clamp_min(0)
            if step >= o.steps * (1 - o.averaged):
                count = step - math.ceil(o.steps * (1 - o.averaged)) + 1
                average = soft.clone() if average is None else average.lerp_(soft, 1 / count)
        soft = soft if average is None else average
        return kept_of(soft if scores else soft.abs() * scale), first

    def gradient_of(self, windows: Tensor, share: float) -> Tensor:
        self.gradient.zero_()
        for (_, span), layer in zip(self.spans(), self.layers.values(), strict=True):
            layer.parameter.requires_grad_(True).grad = self.gradient[span].view(layer.parameter.shape)
        self.loss(windows, share).backward()
        self.model.requires_grad_(False)
        return self.gradient.float()

    def measure(self, changes: dict) -> dict:
        began = time.perf_counter()
        kept, first = self.learned(Settings(**changes))
        seconds = time.perf_counter() - began
        self.hold(kept)
        changed = (kept != first).view(-1, 4).any(1).float().mean().item()
        return {
            "losses": judged(self.model, self.texts),
            "groups_changed": round(changed, 4),
            "seconds": round(seconds, 1),
        }


def kept_of(ranking: Tensor) -> Tensor:
    """The two largest of each four, of equal ones the first; bool (weights,)."""
    return keep_largest(ranking.view(-1, 4).t(), 2).t().reshape(-1)


def ranked(sizes: Tensor, kept: Tensor, margin: float) -> Tensor:
    """Sizes of which each group keeps what `kept` says: where it does not, that is raised over a threshold, the rest lowered."""
    sizes, kept = sizes.view(-1, 4), kept.view(-1, 4)
    least = sizes.masked_fill(~kept, torch.inf).amin(1, keepdim=True)
    most = sizes.masked_fill(kept, 0).amax(1, keepdim=True)
    between = (least * most).sqrt().clamp_min(1e-12)
    moved = torch.where(kept, sizes.maximum(between * (1 + margin)), sizes.minimum(between / (1 + margin)))
    return torch.where(least <= most * (1 + margin), moved, sizes).view(-1)


def run(arguments) -> None:
    wanted = [json.loads(line) for line in arguments.plan.read_text().splitlines() if line.strip()]
    for changes in wanted:
        Settings(**changes)  # refuses what it does not know before anything is loaded
    about = (arguments.model, arguments.texts)
    for changes, result in measured(Bench, about, wanted, arguments.workers, arguments.minutes):
        with open(arguments.results, "a") as file:
            file.write(json.dumps({"changes": changes, **result}) + "\n")
        print(f"{changes}: away {away(result['losses'], 'choose'):.2f}", flush=True)


def table(path: Path) -> str:
    """Markdown, on the windows to choose by: what each run changes, and its perplexities."""
    defaults = asdict(Settings())
    lines = ["| changed | away | home | groups changed |", "|---|---|---|---|"]
    results = [json.loads(line) for line in path.read_text().splitlines()]
    for result in sorted(results, key=lambda result: away(result["losses"], "choose")):
        changes = {name: value for name, value in result["changes"].items() if value != defaults[name]}
        told = ", ".join(f"{name} {value}" for name, value in changes.items()) or "nothing"
        home = perplexity(result["losses"]["bundled"]["choose"])
        lines.append(
            f"| {told} | {away(result['losses'], 'choose'):.1f} | {home:.1f} | {result['groups_changed']:.1%} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path, nargs="?")
    parser.add_argument("--texts", nargs=3, default=[], metavar="FILE", help="WikiText-2, the Rust book, Shakespeare")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="print what is measured, run nothing")
    arguments = parser.parse_args()
    if arguments.table:
        print(table(arguments.results))
        return
    if arguments.plan is None or not arguments.texts:
        parser.error("give a PLAN and --texts, or --table")
    run(arguments)


if __name__ == "__main__":
    main()
