# %% [markdown]
# # Methods compared
#
# A group of four has six masks, and every method has its own reason for one of them. This lesson makes three masks and judges them; then it reads a recorded
# comparison of twelve methods. Two masks are told apart by paired differences. Which method is better depends on the text that one asks; and the quantity that
# half of the methods minimize, the error of each layer's output, does not say how good a mask is.
#
# *50 minutes. You need lessons 01 and 03, and exercise 3 of lesson 04. Three exercises.*

# %% tags=["setup"]
import itertools
import math

import numpy as np
import pandas as pd
import torch
from lesson import EXAMPLE_COMPARISON, FAST, check_05

from proxsparse import (
    Comparison,
    figures,
    load_model,
    magnitude,
    perplexity,
    prunable_layers,
    sparsegpt,
    wanda,
    what_if,
)

CALIBRATION, CONTEXT, WINDOWS = (
    (2, 128, 2) if FAST else (16, 512, 22)
)  # windows to calibrate on; tokens; windows to judge by
pd.options.display.float_format = "{:,.3f}".format

# %% [markdown]
# ## One protocol
#
# A comparison of masks compares nothing unless all else is the same: the model, the pattern, which layers are pruned, the text to make the mask on and how much
# of it, the windows to judge by, and *what* is judged: here the original weights under the mask. Every method is therefore called in the same way,
# `method(model, windows)`, returns masks, and leaves the model as it came.
#
# The text to make masks on is `mixed`: articles of the bundled corpus, among text that the model wrote itself. Held-out windows are from other articles of the bundled
# corpus, which no method sees.

# %%
lm = load_model("embedded", "cpu")
text = lm.windows("mixed", length=256, context=CONTEXT)
calibration, heldout = text.calibration[:CALIBRATION], text.heldout[:WINDOWS]
layers = prunable_layers(lm.model)
if FAST:  # of the first two blocks only
    for name in [name for name, layer in layers.items() if layer.block > 1]:
        del layers[name]
print(
    f"{len(layers)} layers; {len(calibration)} windows to calibrate on, {len(heldout)} of {CONTEXT} tokens to judge by"
)

# %% [markdown]
# ### Three masks
#
# * **Magnitude** keeps the two largest $|w_i|$ and looks at no text.
# * **Wanda** keeps the two largest $|w_i| \lVert x_i \rVert$: it looks at how large each input is.
# * **SparseGPT** also looks at how inputs go together. With $H = XX^\top$, dropping $w_i$ and moving the others to make up for it costs $w_i^2 / [H^{-1}]_{ii}$. Here
#   only its mask is used, on the original weights (`update=False`).
#
# The last two go block by block: a block sees the text as the pruned blocks before it hand it on.

# %%
masks = {
    "magnitude": magnitude(lm.model, layers=layers).masks,
    "wanda": wanda(lm.model, calibration, layers=layers).masks,
    "sparsegpt": sparsegpt(lm.model, calibration, layers=layers, update=False).masks,
}

# %% [markdown]
# ### Judged on the same windows


# %%
def window_losses():
    """The mean loss of each held-out window, in nats a token, of what the model holds now."""
    return np.array([math.log(perplexity(lm.model, window[None]).value) for window in heldout])


live = {"dense": window_losses()}
for name, chosen in masks.items():
    with layers.on_copies():  # the original weights are back afterwards
        chosen.apply_(layers)
        live[name] = window_losses()
live = pd.DataFrame(live).rename_axis("window")
live.head(8)

# %%
about = pd.DataFrame({"mean loss": live.mean(), "deviation over windows": live.std()})
about.assign(perplexity=np.exp(about["mean loss"])).style.format(
    "{:,.3f}", subset=["mean loss", "deviation over windows"]
).format("{:,.1f}", subset=["perplexity"])

# %% [markdown]
# Read the first table by columns: how hard a window is differs by a third of a nat, for every mask. Read it by rows: magnitude is far behind in every window, while Wanda and SparseGPT
# change places from one to the next. So one compares window by window; exercise 1 makes a number of it.
#
# In the recorded comparison below both saw 128 windows instead of 16. Wanda's perplexity is nearly the same there, 202, and SparseGPT's 163: the matrix $H$ has a number for every two
# inputs, and takes more text to be known than their norms.

# %% [markdown]
# ## A recorded comparison
#
# The learned methods take minutes each, so the rest of the lesson reads a comparison that the project carries. It was made by `proxsparse compare`, and each of its
# twelve masks was judged on five texts.

# %%
comparison = Comparison(EXAMPLE_COMPARISON)
job, table = comparison.job, comparison.table()
print(f"{job.model}, {job.n}:{job.m}, made on {job.corpus!r}, judged on {', '.join(job.judged_on)} as well")
print(f"calibrated on {job.calibration} windows of {job.length} tokens, or learned in {job.steps} steps of {job.batch}")
columns = ["method", "perplexity", "stderr", "ratio", "ratio_stderr", "weights_changed", "seconds", "memory_GB"]
table[columns].set_index("method").style.format(
    {
        "perplexity": "{:,.1f}",
        "stderr": "{:,.1f}",
        "ratio": "{:,.3f}",
        "ratio_stderr": "{:,.3f}",
        "seconds": "{:,.0f}",
        "memory_GB": "{:.1f}",
    }
)

# %% [markdown]
# | method | what it asks | sees the loss | changes weights |
# |---|---|---|---|
# | random | nothing | | |
# | magnitude | how large is the weight | | |
# | wanda | times the norm of its input | | |
# | ria | times the norm of its input, relative to its row and column | | |
# | sparsegpt | what does the layer's output lose if the others may make up for it | | |
# | swaps | Wanda's mask, changed group by group while the layer's output comes nearer | | |
# | sparsegpt-update | as sparsegpt, and the others do make up for it | | yes |
# | admm | the weights that make up best, and a mask chosen on the way | | yes |
# | fisher | what does the loss lose, to second order | once | |
# | maskllm | which pattern of six, learned through samples | every step | |
# | proxsparse-paper | which weights survive the regularizer, loss at the soft weights | every step | |
# | proxsparse | which weights survive, loss at the masked weights | every step | |
#
# "Changes weights" matters: such a method has more freedom than a mask has, and what it leaves is not half of the original model.

# %%
figures.perplexities(table.loc[table["method"] != "random", columns])

# %% [markdown]
# ### What they cost
#
# Seconds are of one CPU thread beside other work: good for orders of magnitude, no more. Magnitude takes a second (it would lie
# far to the left), looking at inputs or gradients one to three minutes, learning three to twelve.

# %%
figures.against_perplexity(table[~table["method"].isin(["random", "magnitude"])], "seconds")

# %% [markdown]
# ### A ranking has no error bars
#
# The error bars above overlap for most neighbours. They say how hard the windows are, and all masks share that. The columns `ratio` and `ratio_stderr` are paired: perplexity
# over that of `proxsparse`, on the same windows.

# %% [markdown]
# ## Exercise 1: a paired ratio
#
# `a` and `b` hold the losses of two masks on the same windows. Return the ratio of their perplexities, $a$ over $b$, and its standard error.
#
# <details><summary>Hint</summary>
#
# The logarithm of the ratio is the mean of $a - b$, and you know the standard error of that. A small error $e$ of a logarithm is an error of $r \cdot e$ of the number $r$
# itself.
#
# </details>


# %% exercise="ratio"
def ratio(a, b):
    """(perplexity of a over that of b, its standard error)."""
    ### BEGIN SOLUTION
    difference = a - b
    found = difference.mean().exp().item()
    return found, found * difference.std().item() / len(difference) ** 0.5
    ### END SOLUTION


# %% check="ratio"
check_05.ratio(ratio)

# %% [markdown]
# ## Exercise 2: how many windows?
#
# You have measured two masks on a few windows. On how many windows would the mean difference of their losses be at least `errors` standard errors from zero, if mean and
# deviation of the differences stayed what they are? It takes two windows at least, because one has no deviation.
#
# <details><summary>Hint</summary>
#
# On $n$ windows the standard error is $s/\sqrt n$, with $s$ the deviation of the differences.
#
# </details>


# %% exercise="windows_needed"
def windows_needed(a, b, errors):
    """The least number of windows that tells two masks apart."""
    ### BEGIN SOLUTION
    difference = a - b
    return max(2, math.ceil((errors * difference.std() / difference.mean()).square().item()))
    ### END SOLUTION


# %% check="windows_needed"
check_05.windows_needed(windows_needed)

# %% [markdown]
# ### Neighbours in the table
#
# Each method against the next one, on the 22 windows at home: the paired ratio, and how many windows would tell the two apart at two standard errors, with pairing and without.

# %%
losses = {name: torch.tensor(result["losses"]) for name, result in comparison.results().items()}
order = [name for name in table["method"] if name not in ("dense", "random")]
rows = []
for better, worse in itertools.pairwise(order):
    apart = losses[worse] - losses[better]
    row = {"better": better, "worse": worse, "ratio": apart.mean().exp().item()}
    for how, variance in (("paired", apart.var()), ("unpaired", losses[worse].var() + losses[better].var())):
        row[f"windows, {how}"] = max(2, math.ceil(4 * variance / apart.mean() ** 2))
    rows.append(row)
pd.DataFrame(rows).style.format({"ratio": "{:.3f}", "windows, paired": "{:,}", "windows, unpaired": "{:,}"})

# %% [markdown]
# Where it takes more than two windows, pairing saves a factor of 20 to 90. With 22 windows Wanda and RIA are not told apart, and SparseGPT with its update and the paper's method only just not;
# all other neighbours are, though the error bars of most of them overlap. Mind what such an error does *not* cover:
#
# * **other seeds.** A method that learns ends elsewhere with another seed (docs/quality.md: one standard deviation of 0.4 where the perplexity is 60). More windows do not help
#   against that;
# * **other texts.** Windows are drawn from one text. That a mask is better *on this text* is all that is said;
# * **settings.** The defaults of `proxsparse` were chosen with texts of these five kinds at hand (docs/quality.md), which favours it. MaskLLM has the best of five learning rates; every other
#   method has its own default.

# %% [markdown]
# ## In domain, and out of it
#
# All masks were made on `mixed`. Articles of the bundled corpus are a part of it, so its held-out articles are *in domain*; nothing was made on the four other texts. A perplexity
# of 50 is good for one text and bad for another, so each is divided by that of the dense model on the same text.

# %%
texts = {"bundled": losses}
for name, found in comparison.judged().items():
    texts[name] = {method: torch.tensor(values) for method, values in found.items()}
factors = pd.DataFrame(
    {
        name: {method: (found[method] - found["dense"]).mean().exp().item() for method in order}
        for name, found in texts.items()
    }
)
factors.style.format("{:.2f}×")

# %%
factors.rank().astype(int).rename_axis("rank").sort_values("bundled")

# %% [markdown]
# The rank depends on the text:
#
# * **MaskLLM and ADMM.** At home MaskLLM has 0.88 times the perplexity of ADMM, on every other text about 1.3 times. Each difference is many standard errors, and their signs are opposite.
# * **The paper's method** is far better than Wanda at home (0.58 times); away it is worse on two texts, and level on the other two.
# * **Wanda and RIA**, not told apart at home, are on two texts, for RIA.
# * **Our default** is first everywhere, and its lead shrinks: over ADMM from 1.49 at home to 1.08 on Shakespeare.
#
# What learns from the loss fits the text that the loss was taken on. MaskLLM and the paper's method learn from the next token alone. The default of `proxsparse` takes three
# quarters of its loss from the predictions of the dense model instead, because that loses less away from home (docs/quality.md).

# %%
rows = {}
for first, second in (("maskllm", "admm"), ("proxsparse-paper", "wanda"), ("admm", "proxsparse")):
    cells = rows[f"{first} / {second}"] = {}
    for name, found in texts.items():
        apart = found[first] - found[second]
        value = apart.mean().exp()
        cells[name] = f"{value:.2f} ± {value * apart.std() / len(apart) ** 0.5:.2f}"
pd.DataFrame(rows).T

# %% [markdown]
# **A comparison on one text is a statement about that text.** If it is the one that a mask was learned on, it flatters what learns.

# %% [markdown]
# ## The error of a layer
#
# Most methods above never see the loss. They ask how far the output of a layer is off, $\lVert WX - \hat W X \rVert / \lVert WX \rVert$, with the inputs $X$ of the calibration text: Wanda minimizes
# a bound for it (the triangle inequality), SparseGPT and `swaps` look at the thing itself. It is cheap, needs no gradient, and one layer at a time fits in any memory. Does it say how good the mask is?

# %%
figures.against_perplexity(table[table["method"] != "random"], "output_error")

# %% [markdown]
# ## Exercise 3: where it misleads
#
# `table` has a row for each method, with the columns `method`, `output_error` and `perplexity`. Return a list of all pairs of methods `(a, b)` of which the layer error says that $a$ is better,
# and the perplexity that it is worse. Methods without a layer error (it is `nan`) belong to no pair.


# %% exercise="misleading"
def misleading(table):
    """All (a, b) of which a has the lower layer error and the higher perplexity."""
    ### BEGIN SOLUTION
    known = list(zip(table["method"], table["output_error"], table["perplexity"], strict=True))
    return [(a, b) for a, error, value in known for b, other, better in known if error < other and value > better]
    ### END SOLUTION


# %% check="misleading"
check_05.misleading(misleading)

# %% [markdown]
# ### What the table says
#
# Here are the masks on original weights, by their layer error.

# %%
by_error = table[~table["weights_changed"] & ~table["method"].isin(["dense", "random"])].sort_values("output_error")
by_error.set_index("method")[["output_error", "perplexity"]].style.format(
    {"output_error": "{:.4f}", "perplexity": "{:,.1f}"}
)

# %% [markdown]
# * SparseGPT's mask has a lower layer error than `proxsparse`, by less than half a percent, and 2.4 times its perplexity.
# * The paper's method has nearly the layer error of magnitude, and a fourteenth of its perplexity.
# * `swaps` has the lowest layer error of all masks on the original weights, and more than twice the perplexity of `proxsparse`, which starts from the same mask as it does.
#
# Yet the error says something: among the masks made without the loss (`swaps`, SparseGPT, Wanda, RIA, magnitude) a lower one goes with a lower perplexity. It misleads where one compares
# them with masks that were learned from the loss.

# %%
figures.output_errors(
    comparison.layers().query("method in ['swaps', 'sparsegpt', 'wanda', 'maskllm', 'proxsparse', 'proxsparse-paper']")
)

# %% [markdown]
# ### Why
#
# 1. **Each layer is looked at alone.** In this measure $X$ is what the layer sees in the *dense* model. In the pruned one it sees what the pruned layers before it hand on. Whether the errors of two layers add up
#    or cancel does not show.
# 2. **All outputs count alike.** A sum of squares does not know which of them the layers behind react to.
# 3. **All layers count alike** in the mean.
#
# The last two can be seen. Here are layers in which magnitude's mask makes nearly the same relative error. Each is masked alone, all others are dense. What does that do to the loss?

# %%
recorded = comparison.layers().query("method == 'magnitude'").set_index("name")["output_error"]
alike = recorded[recorded.between(0.34, 0.36)].index[::3]
rows = []
for name in [name for name in alike if name in layers][: 1 if FAST else None]:
    change = what_if(lm.model, {}, {name: masks["magnitude"][name]}, heldout[:6, :256])
    rows.append({"layer": name, "layer error": recorded[name], "loss": change.difference, "±": change.stderr})
pd.DataFrame(rows).set_index("layer").sort_values("loss").style.format("{:+.4f}", subset=["loss"]).format(
    "{:.4f}", subset=["layer error", "±"]
)

# %% [markdown]
# The same error to within a few percent. In several of these layers it costs nothing that one could tell from zero; in the last block's `up_proj` it costs 0.30 nats, more than ten times as
# much as in any other.

# %% [markdown]
# ### Nearly the same mask
#
# How much do masks have in common that differ so much in what they are worth? Two random masks share half of their kept weights.

# %%
figures.overlap_matrix(comparison.overlaps())

# %% [markdown]
# `proxsparse` keeps 93.5% of what Wanda keeps, and has a third of its perplexity. The paper's method keeps 95% of what magnitude keeps, where its learning began, and MaskLLM 97% of SparseGPT's mask, where its began.
# A few percent of the weights make the difference, and neither their magnitude nor the error of a layer points at them: lesson 03 showed which they are, the close calls.

# %% [markdown]
# ## In words
#
# How one prompt goes on under each mask, with the most probable token each time.

# %%
completions = comparison.completions()
prompt = completions.index[0]
print(prompt, "…\n")
for name in ["dense", *order]:
    print(f"{name:>17}  {' '.join(completions.loc[prompt, name].split())}")

# %% [markdown]
# ## What to take along
#
# * One protocol for all: model, pattern, layers, calibration text, windows, and original weights, or the table says which were changed.
# * Compare on the same windows, by paired differences. They tell masks apart with a fraction of the windows; they say nothing about other seeds and other texts.
# * Judge on text that the mask was not made on. Ranks change with the text, most for what learned from the loss.
# * The layers' output error is cheap, and good for choosing among masks of one kind. Between kinds it misleads: look at the loss of the whole model.
#
# **Lesson 06** takes a mask out of the notebook: files, a proof, and what runs it.
