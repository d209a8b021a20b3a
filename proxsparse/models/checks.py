"""What a checkpoint has to be before it is used: whole, alone, causal, and with a tokenizer that fits. Anything else would
be measured, pruned and "proven" as a model that nobody trained."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from proxsparse.errors import ProxSparseError
from proxsparse.files import refuse_lfs_pointer
from proxsparse.models.own_files import check_links, check_names

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
# What may lie in a checkpoint although the model has no place for it, beside transformers' own lists.
HARMLESS = re.compile(
    r"(^|\.)(inv_freq|position_ids|masked_bias)$"  # computed; earlier versions of transformers stored them
    r"|(^|\.)attn\.(attention\.)?bias$"  # the causal mask of GPT-2 and GPT-Neo, once a buffer
    r"|(^|\.)mtp(_\w+)?\."  # predicts tokens beyond the next one; transformers leaves it out
    r"|(^|\.)(vision_tower|vision_model|visual|audio_tower|multi_modal_projector)\."  # text does not pass through it
)
WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "module")  # torch.compile, FSDP, DDP
QUANTIZED = re.compile(
    r"(scales?|scale_inv|zeros|zero_points?|qweight|qzeros|g_idx|absmax|quant_map|quant_state\S*|amax|SCB|weight_packed)$"
)
CAUSAL_TOKENS = 4  # of the text on which it is tried out whether a model is causal
LEAK = 1e-3  # of the dependence on a token itself; a causal model has none on later tokens


def check_directory(name: str, directory: Path) -> None:
    """Raise ProxSparseError for a model directory that names or links to files that are not its own, holds an adapter as well,
    or pointers in place of files."""
    check_links(name, directory)
    for adapter in ADAPTER_FILES:
        if (directory / adapter).exists():
            raise adapter_error(name, adapter)
    for file in sorted(directory.iterdir()):
        if file.suffix in (".json", ".safetensors", ".model", ".txt"):
            refuse_lfs_pointer(file)
    check_names(name, directory)


def adapter_error(name: str, file: str) -> ProxSparseError:
    """That an adapter would be left out."""
    return ProxSparseError(
        f"{name} holds an adapter ({file}), which would be left out: merge it first, with peft's `merge_and_unload()` and "
        "`save_pretrained`, and give the merged model; or take the adapter's files away to use the model without it."
    )


def check_decoder(name: str, config) -> None:
    """Raise ProxSparseError for an encoder-decoder: its decoder alone is no language model."""
    if getattr(config, "is_encoder_decoder", False):
        raise ProxSparseError(
            f"{name} is an encoder-decoder ({config.model_type}), whose decoder alone is no language model: choose a causal "
            "language model."
        )


def check_loading(name: str, model, info: dict) -> None:
    """Raise ProxSparseError where a model was not filled with exactly what its checkpoint holds.

    info: what `from_pretrained(..., output_loading_info=True)` tells: missing_keys, mismatched_keys, unexpected_keys. Tied
    weights are not missing; of unexpected ones, those that transformers or HARMLESS names are left out.
    """
    missing, mismatched = sorted(info["missing_keys"]), sorted(info["mismatched_keys"])
    unexpected = sorted(key for key in info["unexpected_keys"] if not _is_harmless(key, model.config))
    kind = type(model).__name__
    if missing:
        raise ProxSparseError(
            f"{name} lacks {len(missing)} of the {len(model.state_dict())} tensors of {kind}, first {missing[0]}, and random "
            f"numbers would take their place: {_way_out(missing, unexpected)}"
        )
    if mismatched:
        key, stored, wanted = mismatched[0]
        raise ProxSparseError(
            f"{len(mismatched)} tensors of {name} have another shape than its config.json asks for, first {key}: "
            f"{tuple(stored)} instead of {tuple(wanted)}; give weights and config.json of one model."
        )
    if unexpected:
        raise ProxSparseError(
            f"{name} holds {len(unexpected)} tensors that {kind} has no place for, first {unexpected[0]}: "
            f"{_way_out(missing, unexpected)}"
        )


def _is_harmless(key: str, config) -> bool:
    if HARMLESS.search(key):
        return True
    text = config.get_text_config(decoder=True)
    more = getattr(text, "num_nextn_predict_layers", None) or 0  # blocks after the last that predict further tokens
    block = re.search(r"(^|\.)layers\.(\d+)\.", key)
    return block is not None and 0 <= int(block[2]) - text.num_hidden_layers < more


def _way_out(missing: list[str], unexpected: list[str]) -> str:
    """What names that do not fit look like, and what to do."""
    for key in unexpected:
        wrapper = next((wrapper for wrapper in WRAPPERS if wrapper in key.split(".")), None)
        if wrapper and missing:
            return (
                f"its tensors have the names of a wrapped model ({key}): save the model inside, `model.{wrapper}`, or take "
                f"`{wrapper}.` out of the names."
            )
        if "lora_" in key or ".base_layer." in key:
            return "they belong to an adapter: merge it first, with peft's `merge_and_unload()`, and save the merged model."
        if QUANTIZED.search(key):
            return f"the weights are quantized ({key}) in a way that was not undone: give the model's full-precision checkpoint."
    if missing and unexpected:
        return f"it holds {len(unexpected)} others, first {unexpected[0]}; give weights and config.json of one model."
    if missing:
        return "give the complete checkpoint, with the config.json that belongs to it."
    return "give weights and config.json of one model, or save the model again with transformers."


def drop_quantization_mark(model) -> None:
    """Let the configuration of a model whose weights are not quantized no longer say that they are."""
    if getattr(model, "hf_quantizer", None) is not None:
        return
    for config in (model.config, *(getattr(model.config, name) for name in model.config.sub_configs)):
        if hasattr(config, "quantization_config"):
            del config.quantization_config


def check_tokenizer(name: str, model, tokenizer) -> None:
    """Raise ProxSparseError where ordinary tokens of the tokenizer have no row in the embedding.

    Added tokens may lie beyond: text rarely holds them, and `load_windows` finds those that it does hold.
    """
    rows = embedding_rows(model)
    added = set(tokenizer.get_added_vocab())
    beyond = [(index, token) for token, index in tokenizer.get_vocab().items() if index >= rows and token not in added]
    if beyond:
        index, token = min(beyond)
        raise ProxSparseError(
            f"The tokenizer of {name} has {len(beyond)} tokens beyond the {rows} rows of the model's embedding, first {token!r} "
            f"({index}): give the tokenizer that belongs to the model."
        )


def embedding_rows(model) -> int:
    """How many tokens the model knows."""
    return model.get_input_embeddings().weight.shape[0]


def check_causal(name: str, model) -> None:
    """Raise ProxSparseError where the first token's logits depend on later tokens, as in a BERT: what would be measured
    were no probability of the next token given those before it.

    Asked is their gradient, in the embeddings of a text of a few tokens: through a causal mask it is exactly zero, whatever
    the arithmetic, where logits themselves may move by a rounding.
    """
    tokens = torch.arange(CAUSAL_TOKENS, device=next(model.parameters()).device).unsqueeze(0) % embedding_rows(model)
    seen = []

    def keep(module, inputs, output):
        seen.append(output.detach().requires_grad_())
        return seen[-1].clone()  # some models write into it

    hook = model.get_input_embeddings().register_forward_hook(keep)
    try:
        with torch.enable_grad():
            first = model(input_ids=tokens, use_cache=False).logits[0, 0].float()
            weights = torch.linspace(-1, 1, len(first), device=first.device)  # no sum: it is the same for every input
            gradient = torch.autograd.grad((first * weights).sum(), seen[0])[0].float()
    finally:
        hook.remove()
    dependence = gradient.abs().amax(-1).flatten()  # one a token; XLNet has them along the first dimension
    if float(dependence[1:].max()) > LEAK * float(dependence[0]):
        raise ProxSparseError(
            f"{name} is no causal language model: as {type(model).__name__}, what it predicts for a token depends on the tokens "
            "after it, so that a perplexity would mean nothing; choose a decoder."
        )
