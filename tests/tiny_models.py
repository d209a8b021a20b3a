"""Random models of two layers, one of every family that the learner is tested on, and a tokenizer for them."""

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    OPTConfig,
    Phi3Config,
    PreTrainedTokenizerFast,
    Qwen2Config,
)
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

VOCABULARY = 128
COMMON = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
LLAMA_LIKE = COMMON | {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip

CONFIGS = {
    "llama": lambda: LlamaConfig(**LLAMA_LIKE),
    "qwen2": lambda: Qwen2Config(**LLAMA_LIKE),
    "mistral": lambda: MistralConfig(**LLAMA_LIKE),
    "gemma": lambda: GemmaConfig(**LLAMA_LIKE, head_dim=8),
    "gpt2": lambda: GPT2Config(**COMMON, n_embd=32, n_layer=2, n_head=4, n_positions=64),
    "opt": lambda: OPTConfig(
        **COMMON, hidden_size=32, ffn_dim=64, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=64,
        word_embed_proj_dim=16,
    ),
    "gpt_neox": lambda: GPTNeoXConfig(
        **COMMON, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=64,
    ),
    "phi3": lambda: Phi3Config(**LLAMA_LIKE),
    "mixtral": lambda: MixtralConfig(**LLAMA_LIKE, num_local_experts=4, num_experts_per_tok=2),
}  # fmt: skip
FAMILIES = tuple(CONFIGS)


def tiny_model(family: str = "llama", seed: int = 0, **changes):
    """A causal language model with random weights, float32, in eval mode. changes: attributes of its configuration."""
    config = CONFIGS[family]()
    for name, value in changes.items():
        setattr(config, name, value)
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config).eval()


def tiny_tokenizer():
    """One token for each of the first 128 bytes; 0, 1, 2 stand for padding, begin and end."""
    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2} | {chr(code): code for code in range(3, VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(pattern="", behavior="isolated")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<pad>"
    )


def save_tiny_model(directory, family: str = "llama", seed: int = 0, **changes):
    """Write a tiny model and its tokenizer where `load_model` can read them; returns the directory."""
    tiny_model(family, seed, **changes).save_pretrained(directory)
    tiny_tokenizer().save_pretrained(directory)
    return directory


def random_windows(count: int = 12, length: int = 16, seed: int = 0) -> torch.Tensor:
    """Token ids, int64 (count, length), with something to learn: every token is near its neighbour."""
    generator = torch.Generator().manual_seed(seed)
    steps = torch.randint(-3, 4, (count, length), generator=generator)
    start = torch.randint(30, 90, (count, 1), generator=generator)
    return (start + steps.cumsum(1)).clamp(33, 126)


def tiny_text(paragraphs: int = 20, length: int = 400, seed: int = 0) -> str:
    """Characters that walk up and down the alphabet: text that a tiny model can learn something from."""
    ids = random_windows(paragraphs, length, seed)
    return "\n\n".join("".join(map(chr, row)) for row in ids.tolist())
