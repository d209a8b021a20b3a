"""A Llama-2-7B-shaped model with random 2:4 weights, dense and then on the sparse tensor cores: each layer shape, prefill and decoding.

python benchmarks/sparse.py [--blocks 32] [--context 2048] [--rows 1 16 256 4096] [--json FILE]

What `proxsparse bench` measures of a model on disk, without one: no download, for the time of a kernel depends on the shape alone.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from large import random_llama
from proximal import machine, print_table

from proxsparse import Mask, prunable_layers
from proxsparse.export.acceleration import Accelerator
from proxsparse.export.benchmark import shapes_on_paper, time_layers, time_model
from proxsparse.models.language_model import LanguageModel


@torch.no_grad()
def random_two_four(hidden: int, blocks: int, context: int) -> LanguageModel:
    """On the GPU, bf16, masked by magnitude."""
    model = random_llama(hidden, blocks, context, "cuda")
    for layer in prunable_layers(model).values():
        layer.matrix.mul_(Mask.project(layer.matrix).dense())
    return LanguageModel(model, None, "random", "random", context)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=4096)
    parser.add_argument("--blocks", type=int, default=32)
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--new-tokens", type=int, default=16)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 16, 256, 4096])
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    accelerator = Accelerator.of(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    if unusable := accelerator.obstacle():
        parser.error(f"nothing was measured: {unusable}")
    lm = random_two_four(arguments.hidden, arguments.blocks, arguments.context + arguments.new_tokens)
    layers = time_layers(lm.model, accelerator, arguments.rows, shapes_on_paper(lm.model, accelerator))
    whole = time_model(lm, arguments.context, arguments.new_tokens)
    rows = [{"what": f"{entry['rows']} × {entry['columns']}"} | figures(entry) for entry in layers]
    rows += [{"what": entry["part"]} | figures(entry) for entry in whole]
    about = machine("cuda") | {"kernels": accelerator.backend}
    print(", ".join(about.values()))
    print_table(rows)
    if arguments.json:
        arguments.json.write_text(json.dumps(about | {"rows": rows}, indent=1, ensure_ascii=False) + "\n")


def figures(entry: dict) -> dict:
    return {
        "tokens": entry["tokens"], "dense, ms": round(entry["dense_seconds"] * 1e3, 4),
        "sparse, ms": round(entry["sparse_seconds"] * 1e3, 4), "dense / sparse": round(entry["speedup"], 3),
        "largest difference": float(f"{entry['error']:.2g}"),
    }  # fmt: skip


if __name__ == "__main__":
    main()
