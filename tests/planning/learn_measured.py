"""Two steps of a model with random weights, in a process of its own: prints by how many bytes its memory grew at most.

python learn_measured.py CONFIG MEMORY LOSS_AT BATCH LENGTH
"""

import json
import re
import sys
from pathlib import Path

import torch
from transformers import LlamaConfig
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from proxsparse import LearnConfig, MaskLearner
from proxsparse.memory import begin_peak, peak_bytes

CPU = torch.device("cpu")


def learn(config: LlamaConfig, memory: str, loss_at: str, batch: int, length: int) -> None:
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
    settings = LearnConfig(
        steps=2,
        batch=batch,
        metric="weight",
        memory=memory,
        loss_at=loss_at,
        distill=0.0,
        precision="bf16",
        learning_rate=1e-4,
    )
    for _ in MaskLearner(model, torch.randint(config.vocab_size, (2 * batch, length)), settings):
        pass


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(0)
    values = json.loads(Path(sys.argv[1]).read_text())
    small = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 4}
    learn(LlamaConfig(**values | small), *sys.argv[2:4], 1, 16)  # libraries are loaded, kernels compiled
    begin_peak(CPU)
    before = int(re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024
    learn(LlamaConfig(**values), *sys.argv[2:4], *map(int, sys.argv[4:6]))
    print(peak_bytes(CPU) - before)
