# %% [markdown]
# # Learn a mask
#
# Lesson 01 ended with a choice that groups cannot make one by one, lesson 02 with an operator that pulls a group towards two nonzeros. This lesson
# puts the loss of a language model between two such pulls: what is learned, and how a gradient gets through a choice; one step, a cell for each of
# its parts; then a short run with the library's iterator, and a look at which groups changed, and why those.
#
# *50 minutes. You need lessons 01 and 02, and to know what backpropagation does. Three exercises.*

# %% tags=["setup"]
import pandas as pd
import torch
from lesson import EXAMPLE_RUN, FAST, check_03

from proxsparse import (
    LearnConfig,
    Mask,
    MaskLearner,
    Run,
    figures,
    load_heldout,
    load_model,
    load_windows,
    magnitude,
    perplexity,
    prunable_layers,
)

STEPS = 3 if FAST else 16  # more steps, better mask: the explorer's Quick preset takes 80
WINDOWS = 2 if FAST else 8  # on which perplexity is measured

# %% [markdown]
# ## What is learned
#
# Three matrices belong to each prunable layer:
#
# * the **original weights** $W_0$, which never change;
# * the **soft weights** $W$, which begin as a copy of them and are what is learned;
# * the **mask** $M$, which keeps the two largest soft weights of each group and is computed anew in each step.
#
# The result is $M \odot W_0$: original weights, half of them zero. *The soft weights only decide.* They are scores that start at a sensible place.

# %% [markdown]
# ### The metric
#
# Which of two weights is larger? A weight of 0.1 at an input that is always near 10 does more than one of 0.5 at an input near 0. So sizes are
# compared as $|w_{ij}| \cdot s_j$, where $s_j$ is in proportion to the norm $\lVert x_j \rVert$ of input $j$ over some text. This is the metric
# `activation`. The paper compares $|w_{ij}|$ itself, the metric `weight`.

# %% [markdown]
# ## Exercise 1: the masked weights
#
# For groups (groups, 4) return what the loss is taken at: the original weights where the soft ones are among the two largest of their group in the
# metric, and zero elsewhere. `scale` has shape (4,). Of equal ones the lower index is kept.
#
# <details><summary>Hint</summary>
#
# `keep_two_of_four` of lesson 01 has all but two things: what is compared, and what is returned.
#
# </details>


# %% exercise="masked_weights"
def masked_weights(soft, scale, original):
    """The original weights, zero where the mask of the soft ones drops."""
    ### BEGIN SOLUTION
    largest = (soft.abs() * scale).argsort(dim=1, descending=True, stable=True)[:, :2]
    kept = torch.zeros_like(soft, dtype=torch.bool).scatter(1, largest, True)
    return original * kept
    ### END SOLUTION


# %% check="masked_weights"
check_03.masked_weights(masked_weights)

# %% [markdown]
# ## A gradient through a choice
#
# The loss at $M \odot W_0$ depends on the soft weights only through the mask, and the mask changes only where two of them are equally large. Take one
# group, four inputs over three tokens, and for a loss the error of the output. Move $w_3$ past $|w_2| = 0.5$:

# %%
original = torch.tensor([[0.9, -0.5, 0.4, 0.1]])
inputs = torch.tensor([[1.0, 0.0, 1.0], [0.2, 0.1, 0.1], [1.0, 1.0, 0.0], [0.0, 1.0, 1.0]])


def output_error(weights):
    """‖(w − w0) X‖², the squared error of the group's output over all tokens."""
    return ((weights - original) @ inputs).square().sum()


rows = []
for third in (0.3, 0.4, 0.49, 0.51, 0.6):
    soft = torch.tensor([[0.9, -0.5, third, 0.1]])
    mask = Mask.project(soft)
    kept = "".join("●" if keeps else "○" for keeps in mask.dense()[0])
    rows.append({"soft w3": third, "mask": kept, "loss": output_error(mask.applied_to(original)).item()})
pd.DataFrame(rows)

# %% [markdown]
# Flat, then a jump, then flat: the derivative with respect to the soft weights is zero wherever there is one. Descent cannot start.
#
# But the loss does have a gradient with respect to the *masked weights* $\hat W = M \odot W_0$, at all four places, also where $\hat W$ is zero: it says
# whether the loss would fall if a little of that weight were there. The **straight-through estimator**
# ([Bengio et al. 2013](https://arxiv.org/abs/1308.3432)) takes it for the gradient of the soft weights. It is no derivative of anything; it is a hint
# about which way a weight should go, and over many batches such hints add up.

# %% [markdown]
# ## Exercise 2: straight through
#
# Given soft and original weights (groups, 4) and a function `loss` of a matrix of weights, return the gradient that the soft weights are given. Here
# the metric is the weight itself.
#
# <details><summary>Hint</summary>
#
# `Mask.project(soft).applied_to(original)` is $\hat W$. Call `requires_grad_()` on it, and `torch.autograd.grad(value, tensor)` returns a tuple with the
# gradient.
#
# </details>


# %% exercise="straight_through"
def straight_through(soft, original, loss):
    """The gradient of the loss at the masked weights, (groups, 4)."""
    ### BEGIN SOLUTION
    masked = Mask.project(soft).applied_to(original).requires_grad_()
    (gradient,) = torch.autograd.grad(loss(masked), masked)
    return gradient
    ### END SOLUTION


# %% check="straight_through"
check_03.straight_through(straight_through)

# %% [markdown]
# ### A dropped weight comes back
#
# The gradient of this small loss can be written down, $2 (\hat w - w_0) X X^\top$. Follow it from the original weights for a few steps. Magnitude drops
# $w_3$, whose input is large; the loss asks for it again, step by step, while it asks little for $w_2$. Once they have changed places the error is about
# a thirtieth, and the soft weights hardly move any more.

# %%
soft, rows = original.clone(), []
for step in range(7):
    mask = Mask.project(soft)
    masked = mask.applied_to(original)
    kept = "".join("●" if keeps else "○" for keeps in mask.dense()[0])
    rows.append([step, *soft[0].tolist(), kept, output_error(masked).item()])
    soft = soft - 0.02 * 2 * (masked - original) @ inputs @ inputs.T
pd.DataFrame(rows, columns=["step", "w1", "w2", "w3", "w4", "mask", "loss"]).set_index("step").round(3)

# %% [markdown]
# The paper takes the gradient at the soft weights instead (`loss_at="soft"`), and masks once, at the end. Then the loss never sees what the mask cuts
# off, and the regularizer has to bring the weights there before. Lesson 04 compares the two.

# %% [markdown]
# ## The model and the text
#
# `load_model("embedded")` gives SmolLM2-135M; its prunable layers are all linear maps inside the decoder blocks. The text comes in two parts that share
# no article: *calibration* windows to learn from, and *held-out* windows to judge by.

# %%
lm = load_model("embedded")
layers = prunable_layers(lm.model)
text = load_windows("bundled", lm.tokenizer, length=256, context=256)
print(f"{len(layers)} layers, {sum(layer.numel for layer in layers.values()):,} prunable weights")
print(f"calibration {tuple(text.calibration.shape)}, held out {tuple(text.heldout.shape)} (windows, tokens)")

# %% [markdown]
# ## One step, by hand
#
# A `MaskLearner` takes the model over. It measures the metric on a few windows, copies the original weights, and lets the model hold the soft weights
# from now on. The mask before any learning is the projection of the original weights in the metric, which is Wanda's mask.

# %%
config = LearnConfig(steps=STEPS, metric_windows=4)
magnitude_masks = magnitude(lm.model, layers=layers).masks
learner = MaskLearner(lm.model, text.calibration, config)

name = "model.layers.10.mlp.up_proj"
soft = learner.layers[name].matrix  # (outputs, inputs); it follows the learner
scale = learner.scales[name]
original = soft.clone()
print(f"s of {name}: from {scale.min():.3f} to {scale.max():.3f}, with geometric mean {scale.log().mean().exp():.3f}")
print(f"share of what it keeps that magnitude keeps too: {learner.start[name].overlap(magnitude_masks[name]):.1%}")

# %% [markdown]
# ### The gradient half
#
# Draw a batch, put $M \odot W_0$ into the model, run it forward and backward, clip the gradient, and let AdamW move the soft weights. The loss is three
# quarters the KL divergence of the model's predictions from those of the dense model (`distill`), one quarter the usual loss of the next token.

# %%
loss = learner.gradient_step()
after_gradient = soft.clone()
moved = (after_gradient - original).abs()
print(f"loss {loss:.3f} nats a token; the half that comes next: {learner.phase}")
print(
    f"moved: median {moved.median():.2e}, largest {moved.max():.2e}; a weight's RMS is {original.square().mean().sqrt():.3f}"
)

# %% [markdown]
# Almost all weights moved by the same amount: AdamW divides a gradient by its usual size, and at the first step that is its own. What differs is the
# sign. The amount is the learning rate, which is low in the first steps and rises (`warmup`).
#
# The mask may have changed already, before any group was pulled: where two weights were nearly equal, a small move is enough.

# %%
flips = sum(learner.masks().flips(learner.start).values())
print(f"{flips:,} of {sum(layer.numel for layer in layers.values()):,} weights changed sides after the gradient half")

# %% [markdown]
# ### The prox half
#
# Every group of every layer is pulled towards two nonzeros, by the operator of lesson 02, in the metric. $\lambda_1$ is *relative*: the same number means
# the same in each layer (lesson 04 says how). It is weak in this first step, and grows by a constant factor a step.

# %%
print(f"λ1 = {learner.lambda1:.2g}, relative; absolute for {name}: {learner.absolute_lambda1(name):.2g}")
report = learner.prox_step()
columns = {"scale": scale, "original": original[0], "after gradient": after_gradient[0], "after prox": soft[0]}
pd.DataFrame({column: values[:8] for column, values in columns.items()}, index=[f"w{i}" for i in range(8)]).round(5)

# %% [markdown]
# ### The report
#
# In the same pass the operator counts what it touches: how many groups have how many nonzeros, how many weights changed sides (`flips`, since the last
# step and since the start), how far the soft weights are from the original ones (`drift`), and where the time went.

# %%
pd.Series(report.record()).to_frame("first step").style.format("{:,.5g}")

# %% [markdown]
# ## The rest of the run
#
# `for report in learner` takes the remaining steps. From time to time we look at what counts: the perplexity of the **original** weights under the mask
# of that moment. `learner.projected()` lets the model hold just that, while the block is open.

# %%
heldout, measured = text.heldout[:WINDOWS], []


def measure(step, mask, context):
    """Perplexity of what the model holds in this context, as one more row."""
    with context:
        found = perplexity(lm.model, heldout)
    row = {"perplexity": found.value, "windows": found.windows, "context": found.context}
    measured.append({"step": step, "mask": mask, "scope": "live"} | row)
    print(f"step {step:>3}  {mask:<10} {found}")


measure(0, "dense", learner.dense())
measure(0, "magnitude", learner.projected(magnitude_masks))
measure(0, "learned", learner.projected(learner.start))  # nothing is learned yet: Wanda's mask

steps, per_layer = [report.record()], [report.layer_record()]
for report in learner:
    steps.append(report.record())
    per_layer.append(report.layer_record())
    if report.step % 4 == 0 or learner.done:
        measure(report.step, "learned", learner.projected())

# %% [markdown]
# After the last step the iterator has put the original weights back; `learner.masks()` still has the result. The figures are those of the explorer:

# %%
steps, measured = pd.DataFrame(steps), pd.DataFrame(measured)
figures.learning_curve(steps, measured)

# %% [markdown]
# ### Composition and flips
#
# Two things to watch in a run. The **composition** counts nonzeros of the soft weights: the work of the regularizer. **Flips** count weights that changed sides:
# the work of the loss, for the most part. Here are those of this run, and below them those of the run that the explorer shows first, 80 steps with the
# default settings.

# %%
figures.composition(steps)

# %%
figures.flips(steps, sum(layer.numel for layer in layers.values()))

# %%
example = Run(EXAMPLE_RUN)
example_steps = example.table("steps")
figures.composition(example_steps, title="The same in 80 steps: most groups become 2:4 late, as λ1 grows")

# %%
figures.flips(example_steps, sum(layer.numel for layer in layers.values()))

# %% [markdown]
# Read both together. In the long run nine tenths of the final flips have happened by step 40, when 2% of the groups are 2:4: the loss decides first, under
# a regularizer too weak to matter. Then $\lambda_1$ grows, group after group becomes 2:4, and flips die out. They die out for another reason too: the learning rate falls to
# zero.

# %% [markdown]
# ## What the mask changed its mind about
#
# The result differs from the start in a few groups only. Which ones?

# %% [markdown]
# ## Exercise 3, if there is time: group by group
#
# Two masks of one layer, boolean (rows, columns), each with two of every four kept. How many weights did each group exchange: 0, 1 or 2? Return whole
# numbers (rows, columns / 4).


# %% exercise="exchanged"
def exchanged(before, after):
    """How many weights of each group are kept before and not after."""
    ### BEGIN SOLUTION
    lost = before & ~after
    return lost.reshape(len(before), -1, 4).sum(dim=2)
    ### END SOLUTION


# %% check="exchanged"
check_03.exchanged(exchanged)

# %% [markdown]
# ### Layer by layer, and one corner
#
# The heat map counts weights, and layers differ in size: `gate_proj` has eight times as many as `k_proj`. The corner below it is one with many changes.

# %%
about = ("name", "block", "projection", "out_features", "in_features")
table = pd.DataFrame([[getattr(layer, each) for each in about] for layer in layers.values()], columns=about)
table = table.rename(columns={"out_features": "rows", "in_features": "columns"})
figures.layer_heatmap(table, per_layer[-1], "flips from start")

# %%
masks = learner.masks()
start, end = learner.start[name].dense(), masks[name].dense()
groups_before, groups_after = (kept.reshape(-1, 4) for kept in (start, end))
changed = (groups_before != groups_after).any(dim=1)
print(f"{changed.double().mean():.2%} of the groups of {name} have another pattern than at the start")
row = int(
    changed.reshape(len(start), -1)[:, :10].sum(dim=1).argmax()
)  # the row with most changes in its first ten groups
top = min(row, len(start) - 8)
figures.mask_tile(
    end[top : top + 8, :40].numpy(),
    4,
    "against another mask",
    other=start[top : top + 8, :40].numpy(),
    corner=(top, 0),
    title=f"Learned mask against the start, a corner of {name}",
)

# %% [markdown]
# ### The close calls
#
# Sort the groups by how close the choice was at the start: the third magnitude over the second, in the metric, where 1 is a tie. A weight moves by little
# more than the learning rate in each step, so it is the close ones that change.

# %%
ordered = (original.abs() * scale).reshape(-1, 4).sort(dim=1, descending=True).values
closeness = (ordered[:, 2] / ordered[:, 1].clamp(min=1e-12)).numpy()
bins = pd.cut(closeness, [0, 0.5, 0.7, 0.8, 0.9, 0.95, 1.0], include_lowest=True)
groups = pd.DataFrame({"third over second": bins, "changed": changed.numpy()}).groupby(
    "third over second", observed=True
)
pd.DataFrame({"groups": groups.size(), "changed": groups["changed"].mean()}).style.format(
    {"groups": "{:,}", "changed": "{:.2%}"}
)

# %% [markdown]
# ### Back and forth
#
# A flip is not a decision yet. The recorded run knows every change at every step: how often does a group change in 80 steps, and how many are at the
# end where they began?

# %%
recorded = "model.layers.20.mlp.down_proj"
history = example.flips(recorded)  # step, row, group, pattern before, pattern after
by_group = history.groupby(["row", "group"])
often = pd.DataFrame({"changes": by_group.size(), "came back": by_group["before"].first() == by_group["after"].last()})
often["changes"] = often["changes"].map(lambda count: str(count) if count < 5 else "5 or more")
often.groupby("changes")["came back"].agg(groups="size", **{"came back": "sum"})

# %%
count = example.mask(recorded, 0).size // 4
print(
    f"Of {count:,} groups {len(often) / count:.1%} changed at some time, and {(~often['came back']).sum() / count:.1%} in the end"
)

# %% [markdown]
# Here is a group that changed three times. Weights 3 and 4 are nearly equal from the first step to the last, and three times the other one is ahead. As
# $\lambda_1$ grows the operator shrinks both, because it cannot tell them apart: groups near a tie resist (lesson 02). Weight 2 is zero after 60 steps,
# weight 4 at the end, and then $R$ is zero too. That weight 3 has shrunk on the way does not matter for the result, which keeps its *original* value.

# %%
row, group = 284, 190
tile = example.tile(recorded)
tile = tile[(tile["row"] == row) & (tile["column"] // 4 == group)]
changes = history[(history["row"] == row) & (history["group"] == group)]
figures.group_path(tile, changes, 2, title=f"Group {group} of row {row} in {recorded}, 80 steps")

# %% [markdown]
# ## The result
#
# The result is a mask, not new weights. Applied to the original model, it sets half of each group to zero and leaves every bit of the rest.

# %%
before = layers[name].matrix.clone()
masks.apply_(lm.model)
assert torch.equal(layers[name].matrix[end], before[end])
assert (layers[name].matrix[~end] == 0).all()
for each in (before, layers[name].matrix):
    print([f"{value:.4f}" for value in each[0, :8].tolist()])

# %%
prompt = lm.tokenizer("The lighthouse keeper climbed the stairs and", return_tensors="pt").to(lm.model.device)
made = lm.model.generate(**prompt, max_new_tokens=8 if FAST else 24, do_sample=False)
print(lm.tokenizer.decode(made[0]))

# %% [markdown]
# ### On other text
#
# The mask was learned on one kind of text and judged on more of that kind. How does it do on another kind? The measure is how many times the dense
# model's perplexity it has. `bundled-other` is text that nothing learns from.

# %%
other = load_heldout("bundled-other", lm.tokenizer, context=256).windows[:WINDOWS]
models = {"dense": load_model("embedded").model, "learned mask": lm.model}
table = pd.DataFrame(
    {
        kind: {
            name: perplexity(model, windows).value for name, windows in (("bundled", heldout), ("bundled-other", other))
        }
        for kind, model in models.items()
    }
)
table.assign(factor=table["learned mask"] / table["dense"]).style.format("{:,.2f}")

# %% [markdown]
# On text of the kind that it learned on, a few steps bring the mask to one and a half times the dense perplexity. On the other kind it is much worse: **a
# learned mask is best at home.** The default therefore learns on a mixture of the bundled text and text that the model writes itself; after 80 steps of
# that the factors were 1.53 and 1.78 (docs/quality.md, on more and longer windows).

# %% [markdown]
# ## What to take along
#
# * Soft weights decide, original weights are kept. The loss is taken at the result, and its gradient passed straight through the choice.
# * A step has two halves: the loss moves every weight by about the learning rate, the proximal operator pulls every group towards two nonzeros.
# * Close calls change, and some change again and again. A few percent of the groups make the difference between Wanda's mask and a learned one.
# * The composition shows the regularizer, flips show the loss, and the perplexity of the masked *original* weights shows what one gets.
#
# **Lesson 04** turns the one knob that was left alone here, λ1.
