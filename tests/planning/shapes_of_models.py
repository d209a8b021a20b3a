"""Configurations of models that nobody loads here, as their config.json has them."""

import json

LLAMA_2_7B = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 4096,
    "vocab_size": 32000, "rms_norm_eps": 1e-05, "tie_word_embeddings": False, "dtype": "bfloat16",
}  # fmt: skip
LLAMA_3_1_70B = LLAMA_2_7B | {
    "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64,
    "num_key_value_heads": 8, "max_position_embeddings": 131072, "vocab_size": 128256, "rope_theta": 500000.0,
}  # fmt: skip
MIDDLE = LLAMA_2_7B | {  # 52 M prunable weights: fixed costs of a process do not matter beside them
    "hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 8,
    "vocab_size": 4000,
}  # fmt: skip


def write_config(directory, config):
    """The directory, with a config.json and nothing else."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config))
    return directory
