"""What only a GPU can show: that it learns what a CPU learns, alone and as a rank that gathers through NCCL."""

import json
from pathlib import Path

import pytest
import sharded_learner
import torch
from sharded_learner import STEPS, config, learned
from test_sharded import run_ranks
from tiny_models import random_windows, tiny_model

from proxsparse import Mask, MaskLearner, MaskSet

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
DEVICE = "cuda"
CLOSE = 1e-3  # relative: sums in float32 have another order there, and weights that nearly tie may be ranked otherwise
SAME = 0.99  # share of the mask
CASES = ("llama", "mixtral", "gpt2 soft", "llama recomputed", "mixtral offloaded")


def alone(case: str, device: str) -> tuple[dict, dict]:
    family, kind, _ = sharded_learner.case(case.removesuffix(" offloaded"))
    with MaskLearner(tiny_model(family).to(device), random_windows(), config(kind)) as learner:
        return learned(learner)


def unpacked(masks: dict[str, torch.Tensor]) -> MaskSet:
    return MaskSet({name: Mask(packed.cpu(), (len(packed), 8 * packed.shape[1])) for name, packed in masks.items()})


def share_of_bits(masks: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> float:
    """How many bits of all masks are the same. masks: {layer: packed}."""
    assert masks.keys() == others.keys()
    different = sum(unpacked(masks).flips(unpacked(others)).values())
    return 1 - different / sum(8 * packed.numel() for packed in masks.values())


def check(found: tuple[dict, dict], wanted: tuple[dict, dict]) -> None:
    assert found[0]["losses"] == pytest.approx(wanted[0]["losses"], rel=CLOSE)
    assert found[0]["regularizer"] == pytest.approx(wanted[0]["regularizer"], rel=10 * CLOSE)
    assert sum(found[0]["flips"]) > 10 * STEPS, "a run in which nothing moves shows nothing"
    assert share_of_bits(found[1], wanted[1]) > SAME


@pytest.mark.parametrize("case", ["llama", "mixtral", "gpt2 soft", "llama recomputed"])
def test_a_gpu_learns_what_a_cpu_learns(case):
    check(alone(case, DEVICE), alone(case, "cpu"))


def test_the_lean_plan_learns_there_what_the_full_one_learns():
    lean, full = alone("llama lean", DEVICE)[0], alone("llama in bf16", DEVICE)[0]
    assert lean["losses"] == pytest.approx(full["losses"], rel=0.02)
    assert sum(lean["flips"]) > 10 * STEPS


def test_one_rank_on_a_gpu_learns_what_a_cpu_learns(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK_DEVICE", DEVICE)
    [process] = run_ranks(tmp_path, 1, *CASES, "llama lean")
    assert process.returncode == 0, process.stdout[-3000:]
    found = json.loads(Path(tmp_path, "0-of-1.json").read_text())
    for case in CASES:
        rank = found[case]
        check(
            (rank, {name: torch.tensor(packed, dtype=torch.uint8) for name, packed in rank["masks"].items()}),
            alone(case, "cpu"),
        )
        assert not rank["held whole"]
    assert found["llama lean"]["losses"] == pytest.approx(alone("llama in bf16", "cpu")[0]["losses"], rel=0.05)
