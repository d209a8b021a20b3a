# %% [markdown]
# # Ship it
#
# A mask in a notebook is of no use to anybody. This lesson writes a sparse model to disk, proves from the files that it is what it claims to be, leaves the zeros out, loads it
# elsewhere, and asks what a GPU gains. The last question has an answer by arithmetic, and one by measurement; the second counts.
#
# *50 minutes. You need lesson 01. Four exercises. A GPU is not needed; where there is one, the lesson times it.*

# %% tags=["setup"]
import json
import shutil
import tempfile
from pathlib import Path

import pandas as pd
import torch
import transformers
from lesson import FAST, check_06
from safetensors.torch import load_file, save_file
from torch.utils.benchmark import Timer

from proxsparse import (
    MaskSet,
    accelerate,
    export_model,
    figures,
    load_compact,
    load_model,
    prunable_layers,
    verify,
    wanda,
)
from proxsparse.export.benchmark import bench_model
from proxsparse.export.estimate import bound

pd.options.display.float_format = "{:,.3f}".format
transformers.logging.disable_progress_bar()
temporary = tempfile.TemporaryDirectory()  # what the lesson writes goes with it
folder = Path(temporary.name)

# %% [markdown]
# ## What is shipped
#
# The masks are Wanda's, because they are made in seconds. `proxsparse export RUN --to DIR` does the same with the masks of a run that learned. The model stays in main memory
# and in the precision that its checkpoint has, two bytes a weight.

# %%
lm = load_model("embedded", "cpu")
calibration = lm.windows("bundled", length=256).calibration[: 2 if FAST else 8]
masks = wanda(lm.model, calibration).masks
layers = prunable_layers(lm.model)
print(
    f"{lm.model.dtype}; {masks.pattern} in {len(masks)} layers, {sum(layer.numel for layer in layers.values()):,} weights"
)

# %% [markdown]
# ## A dense checkpoint
#
# The simplest form is the one that everybody can load: the original model, with zeros where the mask drops.

# %%
exported = export_model(lm, masks, folder / "dense")
pd.DataFrame(exported["files"]).set_index("name").style.format({"bytes": "{:,}"})

# %%
name = "model.layers.10.mlp.up_proj"
stored = load_file(folder / "dense" / "model.safetensors")
corner = stored[f"{name}.weight"][:8, :32].float()
figures.mask_tile(
    (corner != 0).numpy(), 4, "soft weight", weights=corner.numpy(), title=f"A corner of {name}, as it lies on disk"
)

# %% [markdown]
# Half of the weights are zero, and **the file is as large as before**: a zero takes two bytes like any other number. With the masks beside it, the directory is even a little larger.
# Nor is it faster, because a dense kernel multiplies by the zeros. Here is one product of this layer with 256 tokens in float32, on this machine. The two take turns, and of each the quickest round counts:
# other work on the machine can only slow it.

# %%
timers, inputs = {}, torch.randn(256, layers[name].in_features)
for what, weight in (("original", layers[name].matrix), ("with zeros", stored[f"{name}.weight"])):
    about = {"product": torch.nn.functional.linear, "inputs": inputs, "weight": weight.float()}
    timers[what] = Timer("product(inputs, weight)", globals=about)
rounds = pd.DataFrame(
    [{what: timer.timeit(3).mean for what, timer in timers.items()} for _ in range(5 if FAST else 40)]
)
pd.DataFrame({"milliseconds": 1e3 * rounds.min()})

# %% [markdown]
# Half of the products are with zero, and they take the same time but for a few percent.

# %% [markdown]
# ## A proof
#
# Before the directory appeared, the files were read back from disk and compared with the original. `verify` does this again, whenever and wherever you like:

# %%
print(verify(folder / "dense").summary)

# %% [markdown]
# That is three statements, of three kinds of places:
#
# * where a mask drops, there are zeros;
# * where a mask keeps, there is the weight of the original, *bit for bit*;
# * in everything that has no mask, embeddings, norms, the output head, nothing has changed.
#
# To count zeros is not enough. A model with other weights can be 2:4 as well.

# %% [markdown]
# ## Exercise 1: was it tampered with?
#
# `original` and `exported` hold the tensors of two checkpoints by name, `kept` the masks (boolean) of those that have one. Return a list of the names of all tensors that are not as they
# have to be: a changed one, a missing one, one that the original does not have.
#
# <details><summary>Hint</summary>
#
# With `torch.where(kept, original, 0)` you know what a masked tensor has to be. `torch.equal` knows no tolerance.
#
# </details>


# %% exercise="tampered"
def tampered(original, exported, kept):
    """The names of all tensors that are not those of the original under its masks."""
    ### BEGIN SOLUTION
    wanted = {name: torch.where(kept[name], tensor, 0) if name in kept else tensor for name, tensor in original.items()}
    return [
        name
        for name in original.keys() | exported.keys()
        if name not in exported or name not in wanted or not torch.equal(exported[name], wanted[name])
    ]
    ### END SOLUTION


# %% check="tampered"
check_06.tampered(tampered)

# %% [markdown]
# ### Three ways to tamper
#
# One kept weight is changed in its last bit; one dropped weight comes back; one norm is scaled. The first two are one number in 134 million.

# %%
key = f"{name}.weight"
row, column = masks[name].dense()[:8, :32].nonzero()[5].tolist()  # of a kept weight in the corner
group = slice(column // 4 * 4, column // 4 * 4 + 4)
dropped = group.start + int((~masks[name].dense()[row, group]).nonzero()[0])


def last_bit(tensors):
    """The kept weight's nearest neighbour."""
    tensors[key].view(torch.int16)[row, column] ^= 1


def comes_back(tensors):
    """A dropped weight of the same group has its original value again."""
    tensors[key][row, dropped] = layers[name].matrix[row, dropped]


def scaled(tensors):
    """A tensor that has no mask."""
    tensors["model.norm.weight"] *= 2


for what, change in {"last bit": last_bit, "comes back": comes_back, "scaled": scaled}.items():
    tensors = {each: tensor.clone() for each, tensor in stored.items()}
    change(tensors)
    shutil.copytree(folder / "dense", folder / "other", dirs_exist_ok=True)
    save_file(tensors, folder / "other" / "model.safetensors", {"format": "pt"})
    print(f"{what}: {verify(folder / 'other').summary}")
    if change is comes_back:
        corner = tensors[key][:8, :32]

# %%
figures.mask_tile(
    (corner != 0).numpy(),
    4,
    "against another mask",
    other=masks[name].dense()[:8, :32].numpy(),
    title="A dropped weight has come back: nonzero weights on disk against the mask",
)

# %% [markdown]
# Blue is the weight that came back: its group has three nonzeros.
#
# What `verify` does not say: who wrote the files, and whether the mask is any good. It compares with an original that *you* load, so whoever can exchange your original can deceive it. And
# methods that update weights cannot be proven in this way: what they keep is not the original's.

# %% [markdown]
# ## A compact checkpoint
#
# Storing zeros is a waste. The compact format has, of each masked layer, the **kept values** and **one bit a weight** that says which they are. In bytes, for `rows` × `columns` weights:
#
# $$\tfrac12 \cdot \text{rows} \cdot \text{columns} \cdot \text{bytes a weight} \;+\; \text{rows} \cdot \lceil \text{columns} / 8 \rceil$$
#
# Lesson 01 stored two bits for each kept value, its position. Of each group that is four bits as well, so both formats are equally large.

# %%
compact = export_model(lm, masks, folder / "compact", format="compact")
print(compact["size"]["summary"])
by_hand = sum(
    layer.numel * layer.matrix.element_size() // 2 + layer.out_features * -(-layer.in_features // 8)
    for layer in layers.values()
)
assert by_hand == compact["size"]["masked_stored_bytes"]
pd.DataFrame(
    {"share of a dense layer": {f"{size} bytes a weight": (size / 2 + 1 / 8) / size for size in (4, 2, 1)}}
).style.format("{:.2%}")

# %% [markdown]
# The smaller a weight already is, the less is saved: the bits stay.

# %% [markdown]
# ## Exercise 2: pack
#
# Of a weight (rows, columns) and a mask that keeps exactly two of each group, return the kept values (rows, columns / 2) in their order, and the bits as `torch.uint8` (rows, columns / 8):
# bit $k$ of byte $b$ says whether weight $8b + k$ of the row is kept. `columns` is a multiple of eight.
#
# <details><summary>Hint</summary>
#
# Bit $k$ counts $2^k$. `kept.reshape(rows, -1, 8)` has a byte's bits in its last dimension.
#
# </details>


# %% exercise="pack"
def pack(weight, kept):
    """(values, bits)."""
    ### BEGIN SOLUTION
    rows, columns = weight.shape
    values = weight[kept].reshape(rows, columns // 2)
    bits = (kept.reshape(rows, -1, 8) * 2 ** torch.arange(8)).sum(-1).to(torch.uint8)
    return values, bits
    ### END SOLUTION


# %% check="pack"
check_06.pack(pack)

# %% [markdown]
# ## Exercise 3, if there is time: unpack
#
# And back: from `values` (rows, columns / 2) and `bits` (rows, columns / 8) the weights (rows, columns), with their zeros.
#
# <details><summary>Hint</summary>
#
# `bits.unsqueeze(-1) >> torch.arange(8)` shifts each of the bits to the lowest place, and `& 1` takes it. Then `weights[kept] = …`.
#
# </details>


# %% exercise="unpack"
def unpack(values, bits):
    """The weights (rows, columns)."""
    ### BEGIN SOLUTION
    kept = (bits.unsqueeze(-1) >> torch.arange(8) & 1).bool().reshape(len(values), -1)
    weights = torch.zeros(kept.shape, dtype=values.dtype)
    weights[kept] = values.flatten()
    return weights
    ### END SOLUTION


# %% check="unpack"
check_06.unpack(unpack)

# %% [markdown]
# ### The file itself
#
# The format is JSON and safetensors, and docs/reference/file-formats.md describes it: a program in any language can read it. `masks.safetensors` holds the bits, `compact.safetensors` the values, under the name of the layer
# and `.kept`; `compact.json` says which file holds what, and which masks belong to it.

# %%
about = json.loads((folder / "compact" / "compact.json").read_text())
values = load_file(folder / "compact" / "compact.safetensors")[f"{name}.kept"]
print({what: about[what] for what in ("format", "version", "pattern")}, tuple(values.shape), values.dtype)

kept = MaskSet.load(folder / "compact" / "masks.safetensors")[name].dense()
weights = torch.zeros(kept.shape, dtype=values.dtype)
weights[kept] = values.flatten()
assert torch.equal(weights, stored[key])
figures.mask_tile(
    kept[:2, :32].numpy(),
    4,
    "soft weight",
    weights=weights[:2, :32].float().numpy(),
    title="Two rows, from values and bits",
)

# %% [markdown]
# ## Load it elsewhere
#
# * **The dense export** is a checkpoint as any other. `transformers` loads it, without this library; so does everything that loads the original.
# * **The compact export** is read by `load_compact`, which puts the zeros back. In memory it is then as large as the original. *Smaller* is true of the disk and of the network.

# %%
plain = transformers.AutoModelForCausalLM.from_pretrained(folder / "dense", dtype="auto").eval()
small = load_compact(folder / "compact", "cpu")
ids = lm.tokenizer("The lighthouse keeper climbed the stairs and", return_tensors="pt")["input_ids"]
with torch.inference_mode():
    one, other = plain(ids).logits, small.model(ids).logits
assert torch.equal(one, other)
print(f"{one.numel():,} logits, equal bit for bit")
memory = {"dense": plain, "compact, loaded": small.model}
pd.DataFrame(
    {"MB in memory": {how: sum(each.nbytes for each in model.parameters()) / 1e6 for how, model in memory.items()}}
)

# %% [markdown]
# ## What runs it faster
#
# A runtime has to have kernels that take 2:4 matrices, and use them. At the end of 2026 (from docs/explain/two-four.md and the Export screen, which name issues of these projects as their sources):
#
# | runtime | state |
# |---|---|
# | torch, `to_sparse_semi_structured` | CUTLASS on compute capability 8.x, cuSPARSELt on 8.x and 9.x, hipSPARSELt on gfx942 and gfx950; fp16, bf16, int8; Blackwell is not in torch's own tests |
# | torchao | `torchao.sparsity` was removed in August 2026; FP8 2:4 packings are left in its quantization API |
# | vLLM, llm-compressor, compressed-tensors | removed 2:4 (vllm#36799) |
# | TensorRT, TensorRT-LLM | by checkpoint; 0% gain on an L4 reported (Model-Optimizer#1974) |
# | llama.cpp, MLX, ONNX Runtime | nothing |
#
# And where it loses, as others report: an **H100** on which sparse is slower than dense (pytorch#153825), and decoding 12% slower on an **RTX 4090** (tutorials#3505). Below compute capability 8.0 there are
# no sparse tensor cores at all.

# %% [markdown]
# ### accelerate
#
# `accelerate` gives every layer that torch's kernels take a sparse weight, in place, and says of every other why not. It never approximates, and on a CPU it changes nothing.

# %%
report = accelerate(small.model.to("cuda" if torch.cuda.is_available() else "cpu"))
print(report.summary)
pd.DataFrame(report.layers).groupby(["rows", "columns", "accelerated", "reason"], as_index=False).size()

# %% [markdown]
# ## By arithmetic: a bound
#
# Sparse tensor cores multiply at most twice as fast. If a share $s$ of the multiply-adds lies in pruned layers, the rest takes as long as before, and **Amdahl's law** bounds the whole:
#
# $$\frac{1}{(1-s) + s/2}$$
#
# It is the number that `proxsparse bench` and the Export screen print without a GPU, as arithmetic. Beside our model, here is one of the shape of Llama-2-7B: 32 blocks of width 4096, with 11008
# neurons between, and 32000 tokens.

# %%
pruned = sum(layer.numel for layer in layers.values())
head = lm.model.get_output_embeddings().weight.numel()
models = {
    "embedded": (pruned, head),
    "shape of Llama-2-7B": (32 * (4 * 4096**2 + 3 * 4096 * 11008), 32000 * 4096),
}
pd.DataFrame(
    {
        model: {"pruned": inside, "outside": outside, **bound(inside, outside)}
        for model, (inside, outside) in models.items()
    }
).T.style.format({"pruned": "{:,.0f}", "outside": "{:,.0f}", "share": "{:.1%}", "speedup": "{:.2f}×"})

# %% [markdown]
# A small model has much of its arithmetic in the output head, which stays dense, and so gains less.

# %% [markdown]
# ### With few tokens, reading counts
#
# To multiply a token with a weight, the weight has to be read from memory first. Many tokens at once, a batch or a prompt, share one reading. Say that a card does `balance` multiply-adds in the time in which it reads one
# 16-bit weight (for your card: multiply-adds a second over weights a second, from its data sheet), and that it does both at the same time. In units of one multiply-add, a layer of $w$ weights with $t$ tokens takes
#
# $$\max(t \cdot w,\; \text{balance} \cdot w),$$
#
# whichever is longer. A 2:4 layer has half of the multiply-adds, and 9/16 of the reading: you computed that share in lesson 01.

# %% [markdown]
# ## Exercise 4: a bound for a batch
#
# `pruned` and `outside` are the weights in layers with a mask, and in the other linear maps. How many times as fast as dense can the sparse model be for `tokens` tokens at once?
#
# <details><summary>Hint</summary>
#
# Times add up, speedups do not: the time of all dense over the time of all sparse.
#
# </details>


# %% exercise="at_most"
def at_most(pruned, outside, tokens, balance):
    """Dense time over sparse time, by this arithmetic."""

    ### BEGIN SOLUTION
    def time(multiply_adds, reads):
        return max(tokens * multiply_adds, balance * reads)

    rest = time(outside, outside)
    return (time(pruned, pruned) + rest) / (time(pruned / 2, pruned * 9 / 16) + rest)
    ### END SOLUTION


# %% check="at_most"
check_06.at_most(at_most)

# %%
balance, rows = 200, []  # put in your card's
for tokens in (1, 16, 128, 200, 225, 256, 1024, 4096):
    gains = {"tokens": tokens}
    for model, (inside, outside) in models.items():
        dense, rest = (max(tokens, balance) * weights for weights in (inside, outside))
        gains[model] = (dense + rest) / (max(tokens / 2, balance * 9 / 16) * inside + rest)
    rows.append(gains)
pd.DataFrame(rows).set_index("tokens").style.format("{:.2f}×")

# %% [markdown]
# Up to the balance reading is what takes the time, from 9/8 of it on multiplying, and there the bound is Amdahl's. By this arithmetic sparse wins everywhere. The reports above say that it does not: **a bound is no
# forecast**. It leaves out what the kernels themselves cost, which need many rows to be faster (docs/explain/two-four.md), and attention's own products, which no mask makes fewer.

# %% [markdown]
# ## By measurement
#
# `bench_model` (`proxsparse bench DIR`) times each shape of layer with 1 to 4096 tokens at once, then the whole model reading a prompt and decoding, dense against sparse, and checks that both compute the same. Without a GPU
# that has the kernels it measures nothing and says so. The outputs that come with this lesson are from a CPU: for times, run it where there is a GPU.

# %%
timed = bench_model(str(folder / "dense"), rows=(1, 256) if FAST else (1, 16, 256, 4096))
print(timed["device"])
print(timed["summary"])
shapes = ["rows", "columns", "layers", "dense_bytes", "sparse_bytes", "dense_multiply_adds", "sparse_multiply_adds"]
pd.DataFrame(timed["shapes"])[shapes].style.format("{:,}")

# %% [markdown]
# With a GPU, here are its times. Read them by `tokens`: where a few at once are slower, decoding is; where thousands are faster, reading long prompts is.


# %%
def times(rows):
    """What was timed, as a table; a sentence where nothing was."""
    if not rows:
        return "not measured: no GPU here has the kernels"
    table = pd.DataFrame(rows)
    for what in ("dense", "sparse"):
        table[f"{what} ms"] = 1e3 * table.pop(f"{what}_seconds")
    return table


times(timed["layers"])

# %%
times(timed["end_to_end"])

# %% [markdown]
# Then decide, in this order:
#
# 1. Is it for **research**, or to be smaller on disk? Any card will do, and nothing has to be faster.
# 2. Does a runtime that you use have the kernels, and your card them? If not, 2:4 gains no time, whatever the data sheet says.
# 3. Do *your* numbers of tokens gain, measured? Prompts and large batches may, decoding one text hardly.
# 4. Is what it gains worth what it costs in perplexity (lesson 05), on *your* text?

# %%
temporary.cleanup()

# %% [markdown]
# ## What to take along
#
# * A dense checkpoint with zeros loads anywhere, and is neither smaller nor faster. Say so when you ship one.
# * Proven is what was read back from the files: zeros where the mask drops, the original's bits everywhere else.
# * Compact is values and one bit a weight, 56.25% of a masked layer in 16 bits; smaller on disk, not in memory.
# * Arithmetic bounds the gain from above: Amdahl's law, and the reading where tokens are few. What a card gains is measured on that card.
#
# This was the last lesson. `proxsparse push DIR ORG/NAME` puts an export on the Hugging Face Hub, private unless you say otherwise; the explorer's Export screen shows all of this on a page.
