# %% [markdown]
# # Learn a mask
#
# A 2:4 mask keeps two of every four neighbouring weights. This lesson learns one by hand: first a single step, one cell for each of
# its parts, then a short run with the library's iterator. It uses the same model, text and figures as the explorer.
#
# It runs offline on two CPU cores in about three minutes.

# %% tags=["setup"]
import pandas as pd
import torch
from lesson import FAST

from proxsparse import (
    LearnConfig,
    MaskLearner,
    figures,
    load_model,
    load_windows,
    magnitude,
    perplexity,
    prox,
    prunable_layers,
    regularizer,
)

STEPS = 3 if FAST else 12  # more steps, better mask: the explorer's Quick preset takes 80

# %% [markdown]
# ## The model and the text
#
# `load_model("embedded")` gives SmolLM2-135M. Its prunable layers are all linear maps inside the decoder blocks. The text comes in two
# parts: *calibration* windows to learn from, and *held-out* windows to judge by.

# %%
lm = load_model("embedded")
layers = prunable_layers(lm.model)
text = load_windows("bundled", lm.tokenizer, length=256, context=256)
print(f"{len(layers)} layers, {sum(layer.numel for layer in layers.values()):,} weights")
print(f"calibration {tuple(text.calibration.shape)}, held out {tuple(text.heldout.shape)} (windows, tokens)")

# %% [markdown]
# ## One group
#
# Take one group of four weights. The regularizer $R(w) = |w_1w_2w_3| + |w_2w_3w_4| + |w_3w_4w_1| + |w_4w_1w_2|$ is zero exactly when at
# most two of them are nonzero. Its proximal operator pulls the group there: a weak pull shrinks the small weights, a strong one
# removes them, and the two largest come back to where they were.

# %%
group = torch.tensor([[0.9, -0.5, 0.4, 0.1]])
rows = []
for strength in (0.0, 0.1, 0.3, 0.6, 1.0, 2.0):
    pulled = prox(group, strength)
    rows.append([strength, *pulled[0].tolist(), regularizer(pulled).item()])
pd.DataFrame(rows, columns=["λ", "w1", "w2", "w3", "w4", "R"]).round(3)

# %% [markdown]
# ## One step, by hand
#
# The learner keeps *soft weights*, which start as the model's own. The metric is `activation`: magnitudes are compared as
# $|w_{ij}| \cdot \lVert x_j \rVert$, so a weight counts by what it does to real inputs. The starting mask is what this metric says
# before anything is learned (it is Wanda's mask).

# %%
config = LearnConfig(steps=STEPS, metric="activation", metric_windows=4)
magnitude_mask = magnitude(lm.model, layers=layers).masks
learner = MaskLearner(lm.model, text.calibration, config)
name = "model.layers.10.mlp.up_proj"
soft = learner.layers[name].matrix
before = soft[0, :8].clone()
print(f"λ1 = {learner.lambda1} relative to the layer's scale, {learner.absolute_lambda1(name):.3f} absolute for {name}")

# %% [markdown]
# **The gradient half**: forward, backward, clipping, AdamW. The loss is that of the result: the original weights under the projected mask; its gradient moves the soft weights to where the text wants them.

# %%
loss = learner.gradient_step()
after_gradient = soft[0, :8].clone()
print(f"loss {loss:.3f} nats a token; next half: {learner.phase}")

# %% [markdown]
# **The prox half**: every group is pulled towards two nonzeros. The report counts what the pass touched.

# %%
report = learner.prox_step()
after_prox = soft[0, :8].clone()
pd.DataFrame(
    {"before": before, "after gradient": after_gradient, "after prox": after_prox}, index=[f"w{i}" for i in range(8)]
).round(4)

# %%
pd.Series(report.record()).to_frame("first step").round(4)

# %% [markdown]
# ## The rest of the run
#
# `for report in learner` takes the remaining steps. Every four steps we look at what counts: the perplexity of the **original** weights
# under the mask of that moment. `learner.projected()` holds the model in that state while the block is open.

# %%
held_out = text.heldout[:4]
measured = []


def measure(step, mask, context):
    with context:
        found = perplexity(lm.model, held_out)
    measured.append(
        {
            "step": step,
            "mask": mask,
            "scope": "live",
            "perplexity": found.value,
            "windows": found.windows,
            "context": found.context,
        }
    )
    print(f"step {step:>3}  {mask:<10} {found}")


measure(0, "dense", learner.dense())
measure(0, "magnitude", learner.projected(magnitude_mask))
measure(learner.step_index, "learned", learner.projected())

steps, per_layer = [report.record()], [report.layer_record()]
for report in learner:
    steps.append(report.record())
    per_layer.append(report.layer_record())
    if report.step % 4 == 0 or learner.done:
        measure(report.step, "learned", learner.projected())

# %% [markdown]
# The loop has put the original weights back into the model. The same figures as in the explorer:

# %%
steps, measured = pd.DataFrame(steps), pd.DataFrame(measured)
figures.learning_curve(steps, measured)

# %%
figures.composition(steps)

# %%
table = pd.DataFrame(
    [
        {
            "name": layer.name,
            "block": layer.block,
            "projection": layer.projection,
            "rows": layer.out_features,
            "columns": layer.in_features,
        }
        for layer in layers.values()
    ]
)
figures.layer_heatmap(table, per_layer[-1], "drift")

# %% [markdown]
# ## The result
#
# The result is a mask, not new weights. It is applied to the original model; half of each group becomes zero, the rest keeps its bits.

# %%
masks = learner.masks()
before = layers[name].matrix.clone()
masks.apply_(lm.model)
kept = masks[name].dense()
assert torch.equal(layers[name].matrix[kept], before[kept])
assert (layers[name].matrix[~kept] == 0).all()
print(before[0, :8].tolist())
print(layers[name].matrix[0, :8].tolist())

# %%
prompt = lm.tokenizer("The lighthouse keeper climbed the stairs and", return_tensors="pt")
print(lm.tokenizer.decode(lm.model.generate(**prompt, max_new_tokens=30, do_sample=False)[0]))

# %% [markdown]
# **Try it.** Set `lambda1` to 0 and to 1 and run again: how do the composition and the perplexity change? Set `metric="weight"`, the
# paper's own. Then take the explorer (`make app`), and change λ1 while the run goes on.
