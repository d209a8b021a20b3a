# %% [markdown]
# # 2:4 sparsity
#
# Half of the weights of a layer are zero, and a GPU multiplies with the rest twice as fast: that is the promise of **2:4 sparsity**. This
# lesson says what the hardware asks for, looks at a mask on a layer of a real language model, counts what is saved, and shows why it is hard to
# say *which* half. Lesson 02 then makes a differentiable wish of it, and lesson 03 learns a mask.
#
# *50 minutes. You need linear algebra and a little PyTorch. Five exercises.*

# %% tags=["setup"]
import itertools
import math

import pandas as pd
import torch
from lesson import FAST, check_01

from proxsparse import Mask, figures, load_model, load_windows, magnitude, perplexity, prunable_layers, random_mask

torch.manual_seed(0)
pd.options.display.float_format = "{:,.3f}".format

# %% [markdown]
# ## What a sparse tensor core needs
#
# A linear layer computes $y = Wx$: every output is a sum of products, weight times input. A weight that is zero contributes nothing. Still, a
# dense kernel multiplies by it, because it walks through $W$ in a fixed pattern; and a kernel that looks for zeros first loses more time than it
# saves, unless nearly all weights are zero.
#
# NVIDIA's GPUs since Ampere (compute capability 8.0) have a way between: **of every four consecutive weights in a row of $W$, at most two are
# nonzero.** Then
#
# * each group of four holds exactly two stored values, so all rows take equally long, and memory is read in order;
# * beside each value lie two bits that say which of the four inputs it multiplies;
# * a small switch in front of the multiplier picks that input. Half as many multiplications are left.

# %% [markdown]
# ### One group
#
# Groups run along a row, that is along the *inputs* of a layer, since the products in a row are what is summed. Here are the weights of two
# outputs with eight inputs each: four groups. A **mask** says which weights are kept; crosses mark what it drops.

# %%
weight = torch.tensor([[0.9, -0.5, 0.4, 0.1, -0.2, 0.3, -0.8, 0.6], [0.1, 0.7, -0.2, -0.9, 0.5, 0.4, 0.3, 0.2]])
mask = Mask.project(weight)  # the two largest magnitudes of each group of four
figures.mask_tile(
    mask.dense().numpy(),
    4,
    "soft weight",
    weights=weight.numpy(),
    title="Two rows of eight weights: each group of four keeps two",
    called="weight",
)

# %%
mask.applied_to(weight)

# %% [markdown]
# ### The six patterns
#
# There are $\binom42 = 6$ ways to keep two of four. (A group may have fewer than two nonzeros; then it fits several patterns, and any of them
# will do.)

# %%
patterns = list(itertools.combinations(range(4), 2))
all_six = torch.zeros(len(patterns), 4, dtype=torch.bool)
for row, kept in enumerate(patterns):
    all_six[row, list(kept)] = True
figures.mask_tile(all_six.numpy(), 4, title="All patterns of a group, one a row")

# %% [markdown]
# ## Exercise 1: the mask of the largest magnitudes
#
# The simplest choice: in each group keep the two weights that are largest **by magnitude**; of equal ones keep the one with the lower index.
# Write it for a matrix of any shape (rows, columns) whose columns are a multiple of four. It returns a boolean matrix of the same shape.
#
# <details><summary>Hint</summary>
#
# `weight.reshape(-1, 4)` has a group in each row. `argsort` with `descending=True, stable=True` keeps the order of equal entries, and
# `scatter` writes `True` at given positions.
#
# </details>


# %% exercise="keep_two_of_four"
def keep_two_of_four(weight):
    """True where the weight is one of the two largest magnitudes of its group of four."""
    ### BEGIN SOLUTION
    groups = weight.abs().reshape(-1, 4)
    largest = groups.argsort(dim=1, descending=True, stable=True)[:, :2]
    kept = torch.zeros_like(groups, dtype=torch.bool).scatter(1, largest, True)
    return kept.reshape(weight.shape)
    ### END SOLUTION


# %% check="keep_two_of_four"
check_01.keep_two_of_four(keep_two_of_four)

# %% [markdown]
# ## A real layer
#
# `load_model("embedded")` gives SmolLM2-135M, a language model that fits everywhere. **Prunable** are all linear maps inside its decoder blocks;
# embeddings, norms and the output head stay dense.

# %%
lm = load_model("embedded")
layers = prunable_layers(lm.model)
table = pd.DataFrame(
    {"projection": layer.projection, "rows": layer.out_features, "columns": layer.in_features, "weights": layer.numel}
    for layer in layers.values()
)
shapes = table.groupby("projection", sort=False).agg(
    layers=("weights", "size"), rows=("rows", "first"), columns=("columns", "first"), weights=("weights", "sum")
)
shapes.style.format("{:,}")

# %%
name = "model.layers.10.mlp.up_proj"
W = layers[name].matrix.float()
kept = Mask.project(W).dense()
figures.mask_tile(
    kept[:8, :32].numpy(),
    4,
    "soft weight",
    weights=W[:8, :32].numpy(),
    title=f"A corner of {name}, {W.shape[0]} × {W.shape[1]} weights",
    called="weight",
)

# %% [markdown]
# ### What magnitude keeps
#
# Half of the weights, but more than half of their squares. A mask that keeps two at random keeps half of both. If weights and positions had
# nothing to do with each other, each pattern would come up in a sixth of the groups.

# %%
at_random = random_mask(lm.model, layers=layers).masks[name].dense()
pd.DataFrame(
    {
        "weights kept": [float(each.float().mean()) for each in (kept, at_random)],
        "of the sum of squares": [float(W[each].square().sum() / W.square().sum()) for each in (kept, at_random)],
    },
    index=["magnitude", "random"],
)

# %%
groups = kept.reshape(-1, 4)
ordered = W.abs().reshape(-1, 4).sort(dim=1, descending=True).values
tied = ordered[:, 1] == ordered[:, 2]
print(f"{tied.float().mean():.1%} of the groups have a tie between the second and the third magnitude")
pd.DataFrame(
    [
        {
            "pattern": "".join("●" if keeps else "○" for keeps in row),
            "all groups": float(has.mean()),
            "groups without a tie": float(has[~tied].mean()),
        }
        for row in all_six
        for has in [(groups == row).all(dim=1).float()]
    ]
)

# %% [markdown]
# Over all groups the patterns are *not* equally frequent, and the reason is ties: this model was stored with four bits a weight, so many weights of a
# group are equal, and ties go to the lower index. Without these groups, each pattern has about a sixth. Worth remembering: in a group with a tie,
# magnitude has no reason for its choice.

# %% [markdown]
# ## What is saved: storage
#
# The hardware's format of a 2:4 matrix has the kept values, half as many columns as before, and for each its **position** in its group, a number
# from 0 to 3.

# %% [markdown]
# ## Exercise 2: compress
#
# Given a weight and a mask that keeps exactly two of each group, return `values` and `positions`, both of shape (rows, columns / 2), row by row
# and from left to right.
#
# <details><summary>Hint</summary>
#
# `weight[kept]` lists the kept weights in the order that is wanted. `kept.nonzero()` has a row (row, column) for each of them.
#
# </details>


# %% exercise="compress"
def compress(weight, kept):
    """The kept values, and the position of each in its group (whole numbers from 0 to 3)."""
    ### BEGIN SOLUTION
    half = (weight.shape[0], weight.shape[1] // 2)
    values = weight[kept].reshape(half)
    positions = (kept.nonzero()[:, 1] % 4).reshape(half)
    return values, positions
    ### END SOLUTION


# %% check="compress"
check_01.compress(compress)

# %% [markdown]
# ## Exercise 3: how small is it?
#
# A weight has `bits` bits, a position two. How large is a 2:4 matrix in this format, as a share of the dense one?
#
# <details><summary>Hint</summary>
#
# Count the bits of one group: dense, it has four weights.
#
# </details>


# %% exercise="stored_share"
def stored_share(bits):
    """Size of the 2:4 matrix over the size of the dense one."""
    ### BEGIN SOLUTION
    return (2 * bits + 2 * 2) / (4 * bits)
    ### END SOLUTION


# %% check="stored_share"
check_01.stored_share(stored_share)

# %% [markdown]
# ### The whole model
#
# What is not prunable stays as it is, so the model as a whole shrinks less than its layers. Two more remarks: two positions take four bits where
# the choice among six patterns needs only $\log_2 6 \approx 2.58$; and at four bits a weight, quantization has already taken most of what there
# was to save.

# %%
prunable = sum(layer.numel for layer in layers.values())
whole = sum(parameter.numel() for parameter in lm.model.parameters())
in_bf16 = {
    "dense": whole * 2,
    "2:4, values and positions": (whole - prunable) * 2 + prunable // 2 * 2 + prunable // 2 / 4,
}
sizes = pd.DataFrame({"MB": pd.Series(in_bf16) / 1e6})
sizes["share"] = sizes["MB"] / sizes["MB"].iloc[0]
print(f"{prunable:,} of {whole:,} parameters are prunable; log2 6 = {math.log2(6):.3f}")
sizes

# %% [markdown]
# ## What is saved: arithmetic
#
# The tensor core never builds the dense row again. For each stored value it picks the input that the position names, multiplies, and adds.

# %% [markdown]
# ## Exercise 4, if there is time: multiply without the zeros
#
# Compute $y = Wx$ from `values` and `positions` alone: half as many products as in the dense row. Column $c$ of `values` belongs to group
# $\lfloor c/2 \rfloor$, whose inputs are $x_{4g} \dots x_{4g+3}$.
#
# <details><summary>Hint</summary>
#
# Make a matrix of columns of $W$ from the positions, and index `x` with it.
#
# </details>


# %% exercise="multiply"
def multiply(values, positions, x):
    """The product (rows,) of the compressed matrix with x (columns,)."""
    ### BEGIN SOLUTION
    group = torch.arange(values.shape[1]) // 2
    columns = 4 * group + positions
    return (values * x[columns]).sum(dim=1)
    ### END SOLUTION


# %% check="multiply"
check_01.multiply(multiply)

# %% [markdown]
# ### Half the arithmetic is not half the time
#
# * Only the prunable layers get faster. For one token, count a multiplication for each of their weights and for each of the output head's, and
#   leave attention out: what remains if the first are halved is a bound, not a promise.
# * When a single token is generated, the GPU mostly waits for weights to arrive from memory. Then what counts is the share that you found in
#   exercise 3.
# * The kernels need large enough matrices; below that, dense is faster. Which runtimes have such kernels changes from year to year: PyTorch has
#   them for compute capability 8 and 9, others have removed theirs. So measure on your own GPU: `proxsparse bench` does.

# %%
head = lm.model.get_output_embeddings().weight.numel()
print(f"multiplications a token: {prunable + head:,}, of which {prunable / (prunable + head):.0%} in prunable layers")
print(f"faster at most by a factor {(prunable + head) / (prunable / 2 + head):.2f}")

# %% [markdown]
# ## What it costs
#
# A language model assigns each next token a probability. Its **perplexity** is the exponential of its mean loss: as if it had to guess
# among so many equally probable tokens. Here it is on held-out text, dense, with the mask of magnitudes in all layers, and with a random one.

# %%
windows = load_windows("bundled", lm.tokenizer, length=256, context=256).heldout[: 2 if FAST else 12]
originals = {key: layer.matrix.clone() for key, layer in layers.items()}
masks = {"magnitude": magnitude(lm.model, layers=layers).masks, "random": random_mask(lm.model, layers=layers).masks}


def restore():
    """The original weights, in place."""
    for key, layer in layers.items():
        layer.matrix.copy_(originals[key])


found = {"dense": perplexity(lm.model, windows).value}
for choice, chosen in masks.items():
    chosen.apply_(lm.model)
    found[choice] = perplexity(lm.model, windows).value
    restore()
pd.Series(found, name="perplexity").to_frame().style.format("{:,.0f}")


# %%
prompt = lm.tokenizer("The lighthouse keeper climbed the stairs and", return_tensors="pt").to(lm.model.device)


def continuation():
    """How the model goes on, with the most probable token each time."""
    made = lm.model.generate(**prompt, max_new_tokens=8 if FAST else 20, do_sample=False)
    return lm.tokenizer.decode(made[0, prompt["input_ids"].shape[1] :])


print("dense:    ", repr(continuation()))
masks["magnitude"].apply_(lm.model)
print("magnitude:", repr(continuation()))
restore()

# %% [markdown]
# Both masks keep half of the weights. One is far better than the other, and both ruin the model. *Which* half is kept decides: a mask that is learned
# comes far closer to the dense model, without changing a single weight that it keeps (lesson 03; docs/quality.md has measurements).

# %% [markdown]
# ## Why the choice is hard
#
# Each group has only six patterns. That would be easy, if groups could be chosen one by one. First count what there is to choose from.

# %% [markdown]
# ## Exercise 5: how many masks are there?
#
# How many 2:4 masks that keep exactly two of each group does a model with this many prunable weights have? The number is too large to be written
# down: return its decimal logarithm.


# %% exercise="log10_masks"
def log10_masks(weights):
    """log10 of the number of masks, for a number of weights that is a multiple of four."""
    ### BEGIN SOLUTION
    return weights // 4 * math.log10(6)
    ### END SOLUTION


# %% check="log10_masks"
check_01.log10_masks(log10_masks)

# %%
digits = math.floor(prunable / 4 * math.log10(6)) + 1
print(f"The number of masks of this model has {digits:,} digits; that of atoms in the visible universe has about 80.")

# %% [markdown]
# ### Groups do not choose alone
#
# Let $w$ be one row, $m$ its mask and $X$ the inputs that it sees, a column a token. What the mask does to the output is
# $\lVert (w - m \odot w) X \rVert^2$. Multiplied out, it has a term $w_i w_j \, (XX^\top)_{ij}$ for every two dropped weights. Where inputs $i$ and $j$ are
# correlated, dropping both may cost far more than each alone, or less, if their errors cancel; and $i$ and $j$ may lie in different groups.
#
# We can see it on the real thing, if we make it small: 64 rows of the first block's `q_proj` with the first 12 of its inputs, three groups. That is
# $6^3 = 216$ masks a row, few enough to try them all. The inputs are what this layer really sees: the normalized embeddings of text.

# %%
first = layers["model.layers.0.self_attn.q_proj"]
block = lm.model.model.layers[0]
with torch.no_grad():
    X = block.input_layernorm(lm.model.model.embed_tokens(windows[:2])).flatten(0, 1).float().T[:12]
rows = first.matrix[:64, :12].float()
every_mask = torch.stack([torch.cat(three) for three in itertools.product(all_six, repeat=3)])  # (216, 12)
gram = X @ X.T


def output_error(kept):
    """‖(w − m ⊙ w) X‖² of each row under its mask; kept: (…, 64, 12)."""
    dropped = rows * ~kept
    return ((dropped @ gram) * dropped).sum(-1)


errors = torch.stack([output_error(each.expand(64, 12)) for each in every_mask])  # (216, 64)
best = errors.min(0).values

# %% [markdown]
# ### Four ways to choose
#
# * **magnitude**: the largest $|w_i|$ of each group;
# * **weight × input**: the largest $|w_i|\,\lVert x_i \rVert$, which is Wanda's score;
# * **group by group**: the pattern with the least error of each group, all other groups left dense;
# * **jointly**: the best of all 216.

# %%
alone = torch.zeros(64, 12, dtype=torch.bool)
for group in range(3):
    place = slice(4 * group, 4 * group + 4)
    tried = torch.ones(6, 64, 12, dtype=torch.bool)
    tried[:, :, place] = all_six[:, None, :]
    alone[:, place] = all_six[output_error(tried).argmin(0)]
ways = {
    "magnitude": Mask.project(rows).dense(),
    "weight × input": Mask.project(rows, scale=X.norm(dim=1)).dense(),
    "group by group": alone,
}
compared = {way: output_error(chosen) for way, chosen in ways.items()} | {"jointly": best}
pd.DataFrame(
    {
        "error over the least, mean": {way: float((error / best).mean()) for way, error in compared.items()},
        "rows with the best mask": {
            way: float((error <= best * (1 + 1e-5)).float().mean()) for way, error in compared.items()
        },
    }
)

# %% [markdown]
# Even the best pattern of each group, found exactly, is often not the best together. And this is one row, three groups and one layer's own output.
# The loss of a language model couples all rows, all layers and all tokens. Nobody can try all masks, so every method is a way to avoid it:
#
# * score each weight once (magnitude, Wanda);
# * go through a layer column by column, and let the remaining weights make up for what is dropped (SparseGPT);
# * **learn**: let the loss move continuous weights, and pull every group towards two nonzeros with a regularizer. That is ProxSparse.
#
# **Lesson 02** builds that regularizer.

# %% [markdown]
# ## What to take along
#
# * 2:4: at most two nonzeros in each four consecutive weights of a row; six patterns; values and two-bit positions.
# * It halves the multiplications of the layers that it applies to. Storage falls to 56% at 16 bits a weight; with fewer bits less is gained.
# * Whether it is faster depends on GPU, runtime and shapes: measure it.
# * The number of masks of even this small model has millions of digits, and groups cannot be chosen one by one.
