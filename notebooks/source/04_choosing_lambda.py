# %% [markdown]
# # Choosing λ
#
# $\lambda_1$ is how strongly each step pulls groups towards two nonzeros. It is *the* knob of the method, and the paper tunes it for every model. What
# does it do if it is too small, too large, grows, or is changed while a run goes on? What does one gain by tuning it? The answers differ by what one asks
# about: the soft weights, which are learned, or the result, which is a mask on the original weights.
#
# *50 minutes, of which the learning takes about ten. You need lessons 02 and 03. Three exercises.*

# %% tags=["setup"]
import math

import numpy as np
import pandas as pd
import torch
from lesson import FAST, check_04

from proxsparse import (
    PRESETS,
    LearnConfig,
    MaskLearner,
    figures,
    load_model,
    load_windows,
    perplexity,
    prox,
    prunable_layers,
)

STEPS, TRIAL_STEPS = (2, 1) if FAST else (12, 6)  # of a run, and of a trial in the sweep
LENGTH, WINDOWS = (128, 2) if FAST else (256, 8)  # tokens in a window, and windows to judge by
EVERY = STEPS if FAST else 4  # steps between two measurements
pd.options.display.float_format = "{:,.4g}".format

# %% [markdown]
# ## What λ is weighed against
#
# The operator of lesson 02 minimizes $\tfrac12 \lVert w - v \rVert^2 + \lambda R(w)$. A square has the unit weight², $R$ is made of products of three and has
# the unit weight³. So $\lambda$ has the unit 1/weight, and what counts is $\lambda$ times the size of the weights. Here is the least λ that leaves two
# nonzeros of a group, and of the same group ten times as large:

# %%
group, strengths = torch.tensor([[0.9, -0.5, 0.4, 0.1]], dtype=torch.float64), np.logspace(-2, 2, 401)
rows = []
for size in (0.1, 1.0, 10.0):
    left = [int((prox(size * group, lam) != 0).sum()) for lam in strengths]
    least = strengths[left.index(2)]
    shown = ", ".join(f"{value:g}" for value in (size * group[0]).tolist())
    rows.append({"group": shown, "least λ": least, "least λ × size": least * size})
pd.DataFrame(rows)

# %% [markdown]
# Layers of one model differ in the size of their weights, here by a factor of eight (below), and models differ too. One number then means a strong pull
# here and hardly any there. Hence **relative** λ: it is divided by the root mean square (RMS) of the layer's original weights, in the metric, before the operator takes
# it. **Absolute** λ, as in the paper, is taken as it is.

# %% [markdown]
# ## Exercise 1: from relative to absolute
#
# `weight` is a layer (outputs, inputs), `scale` the metric (inputs,). Which λ does the operator get?


# %% exercise="absolute"
def absolute(relative, weight, scale):
    """λ over the RMS of the weights in the metric."""
    ### BEGIN SOLUTION
    return relative / (weight * scale).square().mean().sqrt()
    ### END SOLUTION


# %% check="absolute"
check_04.absolute(absolute)

# %% [markdown]
# ### The paper's presets
#
# The paper's scripts name an absolute λ for each model. They span more than a factor of hundred. On *our* model they would be
# relative ones from 0.04 to nearly 5 (and below we shall see what 2 does): such a preset is good for the model that it names, and for no other.

# %%
lm = load_model("embedded")
layers = prunable_layers(lm.model)
rms = {name: layer.matrix.float().square().mean().sqrt().item() for name, layer in layers.items()}
typical = float(np.median(list(rms.values())))
print(f"RMS of a layer's weights here: from {min(rms.values()):.3f} to {max(rms.values()):.3f}, median {typical:.3f}")
paper = {name.removeprefix("Paper: "): job.learn for name, job in PRESETS.items() if name.startswith("Paper: ")}
pd.DataFrame(
    [
        {
            "model": name,
            "λ1": learn.lambda1,
            "as it stands there": "relative" if learn.relative else "absolute",
            "relative, on this model": learn.lambda1 * (1 if learn.relative else typical),
            "learning rate": learn.learning_rate,
            "λ2": learn.lambda2,
        }
        for name, learn in paper.items()
    ]
).set_index("model")

# %% [markdown]
# λ2 is another regularizer, of two of the scripts: it holds *kept* weights near their original values. This lesson leaves it at zero.

# %% [markdown]
# ## The runs
#
# All runs below but one learn on the same windows in the same order: two windows a step, the language-model loss alone (`distill=0`, which saves the second forward
# pass), learning rate as by default. They are short, so that a lesson has time for many. What is said about *how much* comes from longer ones.
#
# At the end of each we look at three things: the loss of the **result**, the original weights under the mask; the loss of the **soft weights**, with which
# the model is run as they are; and how much of them the mask **cuts off**, as a share of their squares in the metric.

# %%
text = load_windows("bundled", lm.tokenizer, length=LENGTH, context=LENGTH)
apart, calibration = text.calibration[:WINDOWS], text.calibration[WINDOWS:]  # the former for the sweep
heldout = text.heldout[:WINDOWS]


def window_losses():
    """The mean loss of each held-out window, in nats a token, of what the model holds now."""
    return torch.tensor([math.log(perplexity(lm.model, window[None]).value) for window in heldout])


def measured(step, mask, losses):
    """A row of a run's table of perplexities."""
    value = losses.mean().exp().item()
    return {"step": step, "mask": mask, "scope": "live", "perplexity": value, "windows": WINDOWS, "context": LENGTH}


def settings(**changes):
    """The base of all runs, with changes."""
    base = {"steps": STEPS, "batch": 2, "distill": 0.0, "metric_windows": 2 if FAST else 8, "ramp": 1.0}
    return LearnConfig(**(base | changes))


runs = {}


def finish(name, learner, steps=()):
    """Take the steps that are left, and keep under `name` what was seen."""
    steps, rows = list(steps), [dense]
    with learner:
        while not learner.done:
            report = learner.step()
            steps.append(report.record())
            if report.step % EVERY == 0 or learner.done:
                with learner.projected():
                    losses = window_losses()
                rows.append(measured(report.step, "learned", losses))
        soft, cut, all_squares = window_losses(), 0.0, 0.0  # the model still holds the soft weights
        for key, mask in learner.masks().items():
            scale = 1 if learner.scales[key] is None else learner.scales[key]
            squares = (learner.layers[key].matrix * scale).square()
            all_squares += squares.sum().item()
            cut += squares[~mask.dense()].sum().item()
    steps = pd.DataFrame(steps)
    runs[name] = {
        "steps": steps,
        "perplexity": pd.DataFrame(rows),
        "losses": losses,
        "soft losses": soft,
        "cut off": cut / all_squares,
    }
    print(f"{name}: perplexity {losses.mean().exp():.1f} of the result, {soft.mean().exp():.1f} of the soft weights")


# %% [markdown]
# The first learner measures the metric, all others take it over. The starting mask, Wanda's, is measured before anything is learned.

# %%
first = MaskLearner(lm.model, calibration, settings(lambda1=0.0))
scales = first.scales
with first.dense():
    dense = measured(0, "dense", window_losses())
with first.projected(first.start):
    wanda = window_losses()
print(f"perplexity: dense {dense['perplexity']:.1f}, Wanda's mask {wanda.mean().exp():.1f}")


def same_metric(*_):
    """The metric that the first learner measured."""
    return scales


def learner_with(state=None, **changes):
    """A learner with the settings of all runs, changed."""
    return MaskLearner(lm.model, calibration, settings(**changes), metric=same_metric, state=state)


finish("λ1 = 0", first)

# %% [markdown]
# ## Too small
#
# With a constant relative λ of 0.02 a single step changes little (lesson 02), and a few steps not much more. On the way we keep a copy of the learner's
# state, for later: `state_dict()` has the tensors that the learner goes on working with, so that a copy has to clone them.

# %%
learner = learner_with(lambda1=0.02)
early = [learner.step().record() for _ in range(STEPS // 2)]
tensors, rest = learner.state_dict()
halfway = ({name: tensor.clone() for name, tensor in tensors.items()}, rest)
del tensors
finish("λ1 = 0.02", learner, early)

# %%
figures.composition(runs["λ1 = 0.02"]["steps"])

# %% [markdown]
# Most groups still have three or four nonzeros at the end. **The result is 2:4 all the same**, because the projection sees to it. "Too small" is said of the
# soft weights.

# %% [markdown]
# ## Too large
#
# Now a hundred times as strong, from the first step.

# %%
finish("λ1 = 2", learner_with(lambda1=2.0))

# %%
figures.composition(runs["λ1 = 2"]["steps"])

# %%
weights = sum(layer.numel for layer in layers.values())
flips = {name: run["steps"].set_index("step")["flips_from_start"] / weights for name, run in runs.items()}
pd.DataFrame(flips).rename_axis(columns="flips from start").iloc[[0, -1]].style.format("{:.3%}")

# %% [markdown]
# Groups are 2:4 at once, by their sizes alone: the choice is made before the loss had a say. And it stays made. In each step the loss may lift a dropped
# weight off zero by about the learning rate, and in the same step the operator puts it back. Nothing adds up, so hardly anything flips. **This is what too
# large means for the result**: the mask stays near the one it began with.

# %% [markdown]
# ## Changed while it runs
#
# So is a strong pull bad? Take the weak run at half of its way, and continue from there with 2. `learner.lambda1` can be set before any step; the explorer
# and `proxsparse send RUN set --lambda1 2` do the same.

# %%
learner = learner_with(state=halfway, lambda1=0.02)
learner.lambda1 = 2.0
finish("0.02, then 2", learner, early)
del halfway

# %%
start = measured(0, "learned", wanda)


def course(name, forked_at=None):
    """A run as the figure takes it, from the starting mask on."""
    run = runs[name]
    return figures.Course(name, run["steps"], pd.concat([pd.DataFrame([start]), run["perplexity"]]), forked_at)


figures.learning_curves([course("0.02, then 2", STEPS // 2), course("λ1 = 0.02"), course("λ1 = 2")])

# %% [markdown]
# (The two runs that share their first half are measured from step 8 on only.) After the change the mask hardly moves any more: perplexity stays where it was,
# while the weak run still gains a little. But what was learned before is kept, and that is most of it. A strong pull does not spoil a choice that has been
# made; it ends the choosing. Hence the idea of a **ramp**: weak while the loss chooses, strong when there is little left to learn.

# %% [markdown]
# ## Exercise 2: a ramp
#
# The default lets λ1 grow by a constant factor a step, so that at the last step it is `ramp` times as strong as at the first. Return λ1 at `step`, counted
# from 1, of `steps`; at the last step it is `last`.


# %% exercise="strength"
def strength(step, steps, last, ramp):
    """λ1 at a step."""
    ### BEGIN SOLUTION
    return last / ramp ** ((steps - step) / (steps - 1))
    ### END SOLUTION


# %% check="strength"
check_04.strength(strength)

# %%
finish("ramp to 0.2", learner_with(lambda1=0.2, ramp=1000.0))

# %%
figures.strength(runs["ramp to 0.2"]["steps"])

# %%
figures.composition(runs["ramp to 0.2"]["steps"])

# %% [markdown]
# A factor and not an amount, because λ matters on a logarithmic scale: from 0.0002 to 0.002 nothing is to be seen, from 0.02 to 0.2 most groups lose
# weights. In 80 steps, with the same two ends, 87% of the groups end 2:4 (lesson 03), because there are more steps at each strength. If you set λ1 during a ramp, it grows on from there by what is left of it.

# %% [markdown]
# ## The soft weights, and the result


# %%
def table(names):
    """What the runs of these names came to."""
    rows = {}
    for name in names:
        run, last = runs[name], runs[name]["steps"].iloc[-1]
        rows[name] = {
            "groups 2:4": last["nonzeros_2"] + last["nonzeros_1"],
            "cut off": run["cut off"],
            "weights flipped": last["flips_from_start"] / weights,
            "perplexity, soft weights": run["soft losses"].mean().exp().item(),
            "perplexity, result": run["losses"].mean().exp().item(),
        }
    shares = dict.fromkeys(("groups 2:4", "cut off", "weights flipped"), "{:.2%}")
    perplexities = dict.fromkeys(("perplexity, soft weights", "perplexity, result"), "{:,.1f}")
    return pd.DataFrame(rows).T.style.format(shares | perplexities)


table(runs)

# %% [markdown]
# Compare the first columns with the last.
#
# * **What λ does for the soft weights**: it decides how many groups are 2:4, from none to nearly all, and how little the mask cuts off.
# * **What it does for the result**: with λ1 = 0 nothing but the projection makes groups 2:4, and the result is as good as with a weak one or with the ramp. What
#   hurts is strength that comes before the loss has chosen.
# * **The soft weights are not a model that one would want to run.** Under strong λ nearly nothing of them is cut off: they have the same zeros as the
#   result, and yet they are worse, because gradients and pull have moved what is left of them, and no loss was ever taken there. They are there to decide.

# %% [markdown]
# ## The paper's method
#
# It is otherwise if the loss is taken at the soft weights, as in the paper, with sizes compared as they are (`metric="weight"`). The loss then sees every weight that
# is not yet zero, and learns to use it; what the mask will cut off at the end it cannot know. Only λ can bring the weights there before.

# %%
for value in (0.002, 0.02, 0.2):
    learner = MaskLearner(lm.model, calibration, settings(lambda1=value, metric="weight", loss_at="soft"))
    finish(f"paper, λ1 = {value}", learner)

# %%
table(name for name in runs if name.startswith("paper"))

# %% [markdown]
# Weak λ: the soft weights are as good as the dense model, a tenth of their squares is cut off at the end, and the result is far worse. Strong λ: nearly nothing is cut
# off, and the soft weights themselves have become bad. Even then the result is worse than they are, because the weights that are kept have been adjusted to each other too, and the
# result has their original values. So here λ has a say in the result, by a factor and not by a percent, and has to be tuned.
#
# Do not compare these perplexities with those above: two things differ, the metric and the place of the loss, and so does the starting mask, which is magnitude's. In 80
# steps, one thing changed at a time, the metric makes it 84.0 in place of 60.1, and the loss at the soft weights 87.6 in place of 62.9 (docs/quality.md).
# (`"Paper: embedded"` among the presets is this method, with the 80 steps of a Quick run.)

# %% [markdown]
# ## Is that a difference?
#
# Perplexities of a few windows have standard errors of several points. But two masks that are judged on the *same* windows share most of that: a hard window is hard for
# both. So look at the differences, window by window.

# %% [markdown]
# ## Exercise 3: a paired difference
#
# `a` and `b` hold the losses of two masks on the same windows. Return the mean of $a - b$ and the standard error of this mean.


# %% exercise="paired"
def paired(a, b):
    """(mean of a − b, its standard error)."""
    ### BEGIN SOLUTION
    difference = a - b
    return difference.mean().item(), (difference.std() / len(difference) ** 0.5).item()
    ### END SOLUTION


# %% check="paired"
check_04.paired(paired)

# %% [markdown]
# ### Against a run without a regularizer
#
# And against another seed of it, which draws the windows in another order: what two seeds differ by is the yardstick for everything else. A difference of
# losses is the logarithm of a ratio of perplexities, so it is shown as a percentage.

# %%
finish("λ1 = 0, another seed", learner_with(lambda1=0.0, seed=1))

# %%
rows = {}
ours = {name: run["losses"] for name, run in runs.items() if not name.startswith("paper")}
for name, losses in {"Wanda": wanda, **ours}.items():
    apart_by = losses - runs["λ1 = 0"]["losses"]
    error = apart_by.std() / len(apart_by) ** 0.5
    rows[name] = {
        "perplexity": losses.mean().exp().item(),
        "against λ1 = 0": math.expm1(apart_by.mean()),
        "±": error.item(),
    }
pd.DataFrame(rows).T.drop("λ1 = 0").style.format({"perplexity": "{:,.1f}", "against λ1 = 0": "{:+.1%}", "±": "{:.1%}"})

# %% [markdown]
# The weak run and the ramp differ from no regularizer at all by no more than the other seed does. Strong from the first step is worse beyond doubt, and to become strong
# at half of the way costs a few percent.

# %% [markdown]
# ## A small sweep
#
# The end of the ramp, times the learning rate, a few steps each. The settings are judged on calibration windows that nothing was learned on; **held-out text is
# not for choosing**, or it is held out no longer. `proxsparse sweep` does this with more settings, stops the worse half early, and writes the best as a preset.

# %%
trials = []
for rate in (1e-3,) if FAST else (5e-4, 2e-3):
    for value in (0.02, 0.2) if FAST else (0.02, 0.2, 2.0):
        learner = learner_with(lambda1=value, ramp=1000.0, learning_rate=rate, steps=TRIAL_STEPS)
        with learner:
            while not learner.done:
                learner.step()
            with learner.projected():
                found = perplexity(lm.model, apart)
        trial = {"trial": len(trials), "rung": 0, "steps": TRIAL_STEPS, "lambda1": value, "learning_rate": rate}
        trials.append(trial | {"perplexity": found.value, "stderr": found.stderr})
trials = pd.DataFrame(trials)
figures.sweep(trials)

# %% [markdown]
# Before you take the lowest point, look at the axis. Over a factor of a hundred λ changes the perplexity by a percent, and each point has an error bar many times as long.
# Most of that is shared, as you know from exercise 3; but a percent is what two seeds differ by. **This sweep has not chosen between its values of λ**, and a longer one on
# more windows would have to show that there is something to choose.

# %% [markdown]
# ## What was measured
#
# Twelve steps may mislead. These are runs of 80 steps, from docs/quality.md. At home, learned and judged on WikiText-2's validation split (2 × 256 tokens a step, the
# language-model loss; a seed changes the perplexity by 0.40, one standard deviation):
#
# | λ1 | perplexity of the result, mean of two seeds | groups 2:4 at the end |
# |---|---|---|
# | 0: no regularizer | 59.7 | 0% |
# | 0.005, constant | 60.1 | 30% |
# | a ramp to 0.2 | 60.5 | 87% |
# | a ramp to 0.5 | 61.0 | 97% |
# | 0.02, constant (one seed) | 62.9 | 78% |
# | 0.02, constant, loss at the soft weights (one seed) | 87.6 | 78% |
#
# Away from home, on four texts that nothing was learned on, masks end at 64.4 without a regularizer, 64.7 with the ramp to 0.2, and 64.6 with the ramp to 0.5.
#
# In plain words: **with the loss at the result, the regularizer gains nothing in perplexity.** At home the ramp to 0.2 costs 0.8, about what two seeds may differ by,
# a constant 0.02 costs 3; away from home a ramp costs nothing that one could measure. What it gives is soft weights that *are* 2:4 when learning ends: one sees groups
# commit. With the loss at the soft weights one cannot do without it, and its strength decides. The largest difference in the table is not made by λ at all.

# %% [markdown]
# ## What to take along
#
# * λ has the unit 1/weight. Relative λ means the same in every layer and model; absolute presets belong to the model that they name.
# * Too small: soft weights that are not 2:4, and no harm to the result. Too large from the start: the loss has no say, and the mask stays what it was.
# * Strong late ends the choosing and keeps what was chosen: hence a ramp.
# * Judge on the same windows, by paired differences, and keep a second seed as the yardstick. Choose on text set apart, never on held-out text.
# * What gains more than tuning λ: more tokens a step, more steps, text like yours (docs/how-to/choose-lambda.md).
