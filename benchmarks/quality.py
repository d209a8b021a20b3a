"""What makes a better mask: one lever at a time, on the embedded model, with the figures of docs/quality.md.

python benchmarks/plain_wikitext.py valid.txt > plain.txt
python benchmarks/quality.py --corpus plain.txt --seeds 0 1               every variant; what is measured already is kept
python benchmarks/quality.py --corpus plain.txt --seeds 0 --only base kl   some of them
python benchmarks/quality.py --table                                      the measured ones as a table, nothing is run

A variant changes one thing of `BASE`. It is judged on windows of the held-out part that lie behind those on which
methods are compared: nothing is chosen by the text of the final comparison. Levers that won are settings of the library
by now; those that lost live on only here, as a metric, a loss or an update that the learner is given, or a small change of
its steps.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from proxsparse import LearnConfig, Mask, MaskLearner, MaskSet, load_model, load_windows, perplexity, prunable_layers
from proxsparse.learning.full_update import FullUpdate, adamw
from proxsparse.learning.metric import configured_metric
from proxsparse.learning.report import pattern_share
from proxsparse.learning.update import UpdateFactory
from proxsparse.methods import METHODS, maskllm
from proxsparse.methods.fisher import squared_gradients
from proxsparse.methods.maskllm import PRIOR_WINDOWS, MaskLLMOptions
from proxsparse.progress import no_progress

RESULTS = Path(__file__).parent / "results" / "quality.json"
LENGTH, CONTEXT = 256, 512
COMPARED, JUDGED = 40, 24  # held-out windows: the first are left for the comparison, the last are for choosing
BASE = {"steps": 80, "lambda1": 0.005, "ramp": 1.0, "distill": 0.0, "batch": 2}


def root_metric(*about):
    """√activation: |w|·√‖x‖."""
    return {name: scale.sqrt() for name, scale in configured_metric(*about).items()}


def fisher_metric(model, windows, layers, config, progress):
    """|w|·√E[g²], measured once on the dense model, as `proxsparse.methods.fisher` does."""
    squares = squared_gradients(model, windows[: config.metric_windows], layers.parameters())
    scales = {name: layer.matrix_of(squares[layer.parameter]).sqrt() for name, layer in layers.items()}
    for scale in scales.values():
        scale.clamp_min_(1e-3 * scale.mean())  # the metric divides by it
        scale.div_(scale.log().mean().exp())
    return scales


class OneScaleALayer(torch.optim.Optimizer):
    """AdamW with one second moment a layer: a step is proportional to the gradient's momentum, not nearly its sign."""

    def __init__(self, parameters, betas=(0.9, 0.999)):
        super().__init__(parameters, {"lr": 0.0, "betas": betas})

    @torch.no_grad()
    def step(self):
        (group,) = self.param_groups
        rate, (beta1, beta2) = group["lr"], group["betas"]
        for parameter in group["params"]:
            if parameter.grad is None:  # an idle expert
                continue
            state = self.state[parameter]
            if not state:
                state["step"], state["exp_avg"] = 0, torch.zeros_like(parameter)
                state["exp_avg_sq"] = torch.zeros(1, device=parameter.device)
            state["step"] += 1
            state["exp_avg"].lerp_(parameter.grad, 1 - beta1)
            state["exp_avg_sq"].lerp_(parameter.grad.square().mean(), 1 - beta2)
            scale = (state["exp_avg_sq"] / (1 - beta2 ** state["step"])).sqrt() + 1e-12
            parameter.sub_(state["exp_avg"] / (1 - beta1 ** state["step"]) / scale * rate)


def updated_by(make_optimizer) -> UpdateFactory:
    """The full update with another optimizer."""
    return partial(FullUpdate, make_optimizer=make_optimizer)


class SignKept(MaskLearner):
    """A soft weight that crosses zero stays at zero: the result would keep it with the other sign."""

    def prox_step(self):
        with torch.no_grad():
            for name, layer in self.layers.items():
                layer.matrix.mul_((layer.matrix * self.originals[name]) > 0)
        return super().prox_step()


class StepsInTheMetric(MaskLearner):
    """The learning rate of an input is divided by its scale: all scores |w|·s move equally fast."""

    def gradient_step(self):
        before = {name: layer.matrix.clone() for name, layer in self.layers.items()}
        loss = super().gradient_step()
        for name, layer in self.layers.items():
            layer.matrix.copy_(before[name] + (layer.matrix - before[name]) * self.factor(name))
        return loss

    def factor(self, name):
        return 1 / self.scales[name]


class RelativeSteps(StepsInTheMetric):
    """The learning rate of a layer is in proportion to the RMS of its weights, and on average what it is for all."""

    def factor(self, name):
        sizes = {other: math.sqrt(square / self.layers[other].numel) for other, square in self.squared_norms.items()}
        return sizes[name] / statistics.mean(sizes.values())


class Remeasured(MaskLearner):
    """Activations measured anew every 20 steps, on the masked model."""

    every = 20

    def gradient_step(self):
        if self.step_index and self.step_index % self.every == 0:
            with self.projected():
                scales = self.metric(self.model, self.windows, self.layers, self.config, no_progress)
            self.use_scales(scales)
        return super().gradient_step()


class Averaged(MaskLearner):
    """The mask of the soft weights' mean over the last fifth of the steps."""

    share = 0.2

    def prox_step(self):
        report = super().prox_step()
        since = int((1 - self.share) * self.config.steps)
        if self.step_index > since:
            count = self.step_index - since
            self.mean = getattr(self, "mean", {})
            for parameter in self.layers.parameters():
                mean = self.mean.setdefault(parameter, torch.zeros_like(parameter))
                mean.lerp_(parameter.data, 1 / count)
        return report

    def own_masks(self):
        if not self.done or not hasattr(self, "mean"):
            return super().own_masks()
        return MaskSet(
            {
                name: Mask.project(layer.matrix_of(self.mean[layer.parameter]), scale=self.scales[name])
                for name, layer in self.layers.items()
            }
        )


class SignProjected(MaskLearner):
    """In the end, a soft weight that changed its sign is ranked as zero: the original weight would be the wrong one."""

    def own_masks(self):
        if not self.done or self.restored:
            return super().own_masks()
        masks = MaskSet()
        for name, layer in self.layers.items():
            agrees = layer.matrix * self.originals[name] > 0
            masks[name] = Mask.project(layer.matrix * agrees, scale=self.scales[name])
        return masks


class BlockAfterBlock(MaskLearner):
    """Blocks are masked in the loss one after the other, from the first on, over the first half of the steps."""

    reverse = False

    def loss_masks(self):
        blocks = sorted({layer.block for layer in self.layers.values()}, reverse=self.reverse)
        joined = set(blocks[: math.ceil(len(blocks) * min(1.0, 2 * (self.step_index + 1) / self.config.steps))])
        return MaskSet({name: mask for name, mask in self.own_masks().items() if self.layers[name].block in joined})


class LastBlockFirst(BlockAfterBlock):
    """The same from the last block on."""

    reverse = True


@dataclass(frozen=True)
class Variant:
    lever: str
    what: str
    changes: dict = field(default_factory=dict)
    learner: type[MaskLearner] = MaskLearner
    given: dict = field(default_factory=dict)  # metric, loss or update of the learner


VARIANTS = {
    "paper": Variant("loss at", "the soft weights, as in the paper, λ 0.02", {"loss_at": "soft", "lambda1": 0.02}),
    "masked-0.02": Variant("loss at", "the masked original weights, λ 0.02", {"lambda1": 0.02}),
    "base": Variant("λ", "0.005 (the base)"),
    "lambda-0": Variant("λ", "0: no regularizer, the projection alone", {"lambda1": 0.0}),
    "ramp": Variant("λ", "from 0.0002 to 0.2, growing by a constant factor a step", {"lambda1": 0.2, "ramp": 1000.0}),
    "ramp-0.5": Variant("λ", "from 0.0005 to 0.5, in the same way", {"lambda1": 0.5, "ramp": 1000.0}),
    "rate-3e-4": Variant("learning rate", "3e-4", {"learning_rate": 3e-4}),
    "rate-2e-3": Variant("learning rate", "2e-3", {"learning_rate": 2e-3}),
    "rate-3e-3": Variant("learning rate", "3e-3", {"learning_rate": 3e-3}),
    "beta-0.95": Variant(
        "optimizer", "AdamW's β2 0.95", given={"update": updated_by(partial(adamw, betas=(0.9, 0.95)))}
    ),
    "one-scale": Variant("optimizer", "one second moment a layer", given={"update": updated_by(OneScaleALayer)}),
    "metric-steps": Variant("optimizer", "steps in the metric", {}, StepsInTheMetric),
    "relative-steps": Variant("optimizer", "learning rate in proportion to each layer's RMS", {}, RelativeSteps),
    "weight": Variant("metric", "the weight alone, as in the paper", {"metric": "weight"}),
    "root": Variant("metric", "√activation", given={"metric": root_metric}),
    "fisher": Variant("metric", "Fisher, w²·E[g²]", given={"metric": fisher_metric}),
    "remeasured": Variant("metric", "activations measured anew every 20 steps", {}, Remeasured),
    "kl": Variant("loss", "KL to the dense model", changes={"distill": 1.0}),
    "half-kl": Variant("loss", "half KL, half language model", changes={"distill": 0.5}),
    "sign": Variant("projection", "weights never change their sign", {}, SignKept),
    "sign-at-end": Variant("projection", "in the end, weights that changed their sign rank last", {}, SignProjected),
    "averaged": Variant("averaging", "soft weights, last fifth of the steps", {}, Averaged),
    "lambda2": Variant("λ2", "0.1", {"lambda2": 0.1}),
    "batch-4": Variant("tokens a step", "4 × 256", {"batch": 4}),
    "first-first": Variant("which layers first", "masked in the loss from the first block on", {}, BlockAfterBlock),
    "last-first": Variant("which layers first", "masked in the loss from the last block on", {}, LastBlockFirst),
}


# The learned rival on the same steps and windows, at several learning rates: its script's is made for 2000 long steps.
RIVALS = {
    "maskllm-2e-4": 2e-4,
    "maskllm-5e-4": 5e-4,
    "maskllm-1e-3": 1e-3,
    "maskllm-2e-3": 2e-3,
    "maskllm-5e-3": 5e-3,
    "maskllm-1e-2": 1e-2,
}


def learn_rival(rate: float, seed: int, lm, text, prior: MaskSet) -> dict:
    """The same of MaskLLM, which starts from SparseGPT's mask."""
    began = time.perf_counter()
    budget, options = LearnConfig(**BASE, seed=seed), MaskLLMOptions(learning_rate=rate)
    pruned = maskllm(lm.model, text.calibration, budget=budget, options=options, prior=prior)
    with pruned.placed_in(prunable_layers(lm.model)):
        found = perplexity(lm.model, text.heldout[-JUDGED:])
    return {
        "perplexity": round(found.value, 2), "stderr": round(found.stderr, 2), "sparse_groups": 1.0,
        "seconds": round(time.perf_counter() - began),
    }  # fmt: skip


def learn(variant: Variant, seed: int, lm, text) -> dict:
    """Perplexity, on the windows for choosing, of the original weights under what a variant learns."""
    began = time.perf_counter()
    config = LearnConfig(**BASE | variant.changes, seed=seed)
    with variant.learner(lm.model, text.calibration, config, **variant.given) as learner:
        while not learner.done:
            report = learner.step()
        with learner.projected(learner.masks()):
            found = perplexity(lm.model, text.heldout[-JUDGED:])
    return {
        "perplexity": round(found.value, 2), "stderr": round(found.stderr, 2),
        "sparse_groups": round(float(pattern_share(report.record())), 3),
        "seconds": round(time.perf_counter() - began),
    }  # fmt: skip


def table(results: dict) -> str:
    """What is measured, for docs/quality.md, and how far two seeds lie apart."""
    lines = ["| lever | variant | perplexity, a seed each | mean | 2:4 groups at the end |", "|---|---|---|---|---|"]
    rivals = {name: Variant("MaskLLM", f"learning rate {rate:g}") for name, rate in RIVALS.items()}
    for name, variant in (VARIANTS | rivals).items():
        seeds = results.get(name, {})
        if seeds:
            values = [found["perplexity"] for found in seeds.values()]
            shares = statistics.mean(found["sparse_groups"] for found in seeds.values())
            mean = f"{statistics.mean(values):.1f}"
            lines.append(
                f"| {variant.lever} | {variant.what} | {', '.join(f'{value:.1f}' for value in values)} | {mean} | {shares:.0%} |"
            )
    variances = [
        statistics.variance(found["perplexity"] for found in results[name].values())
        for name in VARIANTS
        if len(results.get(name, {})) > 1
    ]
    if variances:
        lines += ["", f"Standard deviation over seeds, pooled over the {len(variances)} variants that have more than one: "
                      f"{math.sqrt(statistics.mean(variances)):.2f}."]  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", help="a text file, such as plain_wikitext.py makes")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--only", nargs="+", choices=[*VARIANTS, *RIVALS], default=[*VARIANTS, *RIVALS])
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="print what is measured, run nothing")
    arguments = parser.parse_args()
    results = json.loads(arguments.results.read_text()) if arguments.results.exists() else {}
    if arguments.table:
        print(table(results))
        return
    if not arguments.corpus:
        parser.error("give --corpus FILE, or --table")
    lm = load_model("embedded")
    text = load_windows(arguments.corpus, lm.tokenizer, LENGTH, CONTEXT)
    if len(text.heldout) < COMPARED + JUDGED:
        parser.error(f"{arguments.corpus} has {len(text.heldout)} held-out windows: {COMPARED + JUDGED} are needed")
    about = {"corpus_sha256": text.sha256, "length": LENGTH, "context": CONTEXT, "base": BASE}
    if results.get("measured on", about) != about:
        parser.error(f"{arguments.results} was measured on {results['measured on']}, not on {about}: give --results")
    prior = None  # of all rivals, made once
    for seed in arguments.seeds:
        for name in arguments.only:
            if str(seed) in results.get(name, {}):
                continue
            if name in VARIANTS:
                found = learn(VARIANTS[name], seed, lm, text)
            else:
                prior = prior or METHODS["sparsegpt"](lm.model, text.calibration[:PRIOR_WINDOWS]).masks
                found = learn_rival(RIVALS[name], seed, lm, text, prior)
            results = json.loads(arguments.results.read_text()) if arguments.results.exists() else {}
            results.setdefault("measured on", about)
            results.setdefault(name, {})[str(seed)] = found
            arguments.results.write_text(json.dumps(results, indent=1) + "\n")
            print(f"{name}, seed {seed}: {found}", flush=True)
    print(table(results))


if __name__ == "__main__":
    main()
