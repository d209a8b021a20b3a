"""The GPU pass against the exact operator and the eager pass: on a GPU, or else by Triton's interpreter on the CPU."""

import os
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec

import pytest
import torch
from brute_force import KINDS, STRENGTHS, objective, random_groups
from counting import GIVEN, check, chosen

from proxsparse import Mask, ProxSparseError, prox, regularizer
from proxsparse.proximal.counts import Counts
from proxsparse.proximal.operator import _eager_pass

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if find_spec("triton") is None:
    pytest.skip("Triton is not installed.", allow_module_level=True)
if DEVICE == "cpu" and tuple(map(int, version("triton").split(".")[:2])) < (3, 7):
    pytest.skip("Triton's interpreter goes with today's NumPy from 3.7 on.", allow_module_level=True)
with pytest.MonkeyPatch.context() as patch:  # Triton asks when it is imported, and again when a kernel is first run
    if DEVICE == "cpu":
        patch.setenv("TRITON_INTERPRET", "1")
    from proxsparse.proximal import triton_kernel as proximal_cuda

# The interpreter computes by NumPy, which tells of candidates that are not numbers.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def run(v, lam, scale=None, previous=None, start=None, original=None, seed=None):
    return proximal_cuda.prox_and_count_cuda_(v, lam, scale, previous, start, original, seed)


def generator(seed):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(autouse=True)
def interpreter(monkeypatch):
    if DEVICE == "cpu":
        monkeypatch.setenv("TRITON_INTERPRET", "1")


@pytest.fixture
def wide(monkeypatch):
    """More groups in a tile: the interpreter takes as long for a tile of any size."""
    if DEVICE == "cpu":
        monkeypatch.setattr(proximal_cuda, "LANES", type(proximal_cuda.LANES)(4096))


@pytest.mark.parametrize("lam", [0, *STRENGTHS, 1e8])
def test_the_objective_is_that_of_the_exact_operator(lam, wide):
    extreme = torch.tensor([0, 1e-44, 1e-38, 1e-20, 1.0, 1e20, 3e38])
    extreme = torch.cartesian_prod(extreme, extreme, extreme, extreme)[::5]
    competing = torch.rand(4000, 4, generator=generator(1))  # where supports of two, three and four win side by side
    competing *= (0.2 + 1.3 * torch.rand(4000, 1, generator=generator(2))) / competing.amax(1, keepdim=True)
    v = torch.cat([random_groups(kind) for kind in KINDS]).float()
    v = torch.cat([v, v.bfloat16().float(), competing / max(lam, 1e-6), extreme])
    w = v.to(DEVICE, copy=True).view(1, -1)
    counts = run(w, lam)
    w, v = w.cpu().view(-1, 4).double(), v.double()
    size = (v**2).sum(1)
    assert (objective(w, v, lam) - objective(prox(v, lam), v, lam) <= 1e-6 * size).all()
    assert (w.abs() <= v.abs() * (1 + 1e-6)).all() and (w * v >= 0).all()
    assert counts.mask.dense("cpu").equal(Mask.project(v.view(1, -1)).dense())
    nonzeros = (w != 0).sum(1)
    assert counts.read().nonzeros == (*(int((nonzeros == k).sum()) for k in (4, 3, 2)), int((nonzeros <= 1).sum()))


@pytest.mark.parametrize(
    ("columns", "dtype", "original_dtype", "metric", "transposed", "lam"),
    [
        (4, torch.float32, torch.bfloat16, None, False, 0.3),
        (12, torch.float32, torch.float32, "row", False, 0.1),
        (44, torch.float32, torch.bfloat16, "matrix", False, 0.6),
        (1028, torch.float32, torch.float32, None, False, 1e-6),
        (2120, torch.float32, torch.float16, "row", False, 2.0),
        (4, torch.bfloat16, torch.bfloat16, "row", False, 0.05),
        (1028, torch.bfloat16, torch.bfloat16, "matrix", False, 0.3),
        (64, torch.bfloat16, torch.float32, None, False, 40.0),
        (44, torch.float16, torch.float16, None, False, 0.4),
        (44, torch.float32, torch.bfloat16, "matrix", True, 0.3),
        (12, torch.bfloat16, torch.bfloat16, None, True, 0.7),
        (260, torch.float16, torch.float32, "row", True, 0.01),
    ],
)
def test_it_agrees_with_the_eager_pass_and_counts_the_result(columns, dtype, original_dtype, metric, transposed, lam):
    """With the tiles that a GPU has: rows of one tile, of several, of a part of one, and with a byte of one group."""
    rows, g = 5 if columns < 1000 else 2, generator(columns)
    v = torch.randn(rows, columns, generator=g)
    v[: rows // 2] = v[: rows // 2].round()
    v = v.to(dtype)
    v = v.t().contiguous().t() if transposed else v
    scale = {None: None, "row": torch.rand(columns, generator=g), "matrix": torch.rand(rows, columns, generator=g)}
    scale = None if metric is None else scale[metric] + 0.2
    start = Mask.project(torch.randn(rows, columns, generator=g))
    previous = Mask.project(v, scale=scale)
    original = torch.randn(columns, rows, generator=g).t().to(original_dtype)
    fast, slow = v.to(DEVICE, copy=True), v.clone()
    on_device = [Mask(mask.packed.to(DEVICE), mask.shape) for mask in (previous, start)]
    counts = run(fast, lam, None if scale is None else scale.to(DEVICE), *on_device, original.to(DEVICE))
    eager = _eager_pass(slow, lam, 2, 4, scale, previous, start, original, None)
    assert fast.stride() == v.stride()
    fast = fast.cpu()
    torch.testing.assert_close(fast, slow, rtol=max(1e-4, torch.finfo(dtype).eps), atol=1e-5)
    assert counts.mask.packed.cpu().equal(eager.mask.packed)
    sums, expected = counts.read(), eager.read()
    assert sums.nonzeros == expected.nonzeros and sum(sums.nonzeros) == v.numel() // 4
    assert (sums.flips, sums.flips_from_start) == (expected.flips, expected.flips_from_start)
    assert sums.flips == 0 < sums.flips_from_start
    assert sums.regularizer == pytest.approx(expected.regularizer, rel=1e-4, abs=1e-5)
    if dtype == torch.float32:
        assert sums.regularizer == pytest.approx(regularizer(fast, scale=scale).item(), rel=1e-4, abs=1e-4)
    drift = (fast.float() - original.float()).square().sum().item()
    assert sums.squared_drift == pytest.approx(drift, rel=1e-5)


@pytest.mark.parametrize("given", GIVEN, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_what_is_given_is_counted_and_what_is_not_is_zero(given, dtype):
    previous, start, original = chosen(given, rows=4)
    v = torch.randn(4, 44, generator=generator(12)).to(dtype).to(DEVICE)
    on_device = [None if mask is None else Mask(mask.packed.to(DEVICE), mask.shape) for mask in (previous, start)]
    counts = run(v, 0.3, None, *on_device, None if original is None else original.to(DEVICE))
    check(Counts(Mask(counts.mask.packed.cpu(), counts.mask.shape), counts.sums), v.cpu(), previous, start, original)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("metric", [False, True])
def test_what_needs_no_change_keeps_its_bits(dtype, metric, wide):
    v = torch.randn(2, 512, generator=generator(3)).to(dtype)
    scale = torch.rand(512, generator=generator(4)).to(DEVICE) + 0.5 if metric else None
    w = v.to(DEVICE, copy=True)
    run(w, 0.0, scale)
    assert w.cpu().equal(v)
    v.view(-1, 4)[:, [0, 2]] = 0
    w = v.to(DEVICE, copy=True)
    for lam in (1e-6, 0.3, 1e8):
        counts = run(w, lam, scale)
        assert w.cpu().equal(v), "groups that are 2:4"
        assert counts.read()[:2] == (0, 0)
    w.view(-1, 4)[:, 1] = -0.0
    run(w, 0.3, scale)
    assert not w.cpu().view(-1, 4)[:, :3].float().view(torch.int32).any(), "a zero stays a zero, without a sign"


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_weight_that_is_not_finite_is_told(bad):
    v = torch.ones(3, 12, device=DEVICE)
    v[2, 11] = bad
    with pytest.raises(ProxSparseError, match="not a finite number"):
        run(v, 0.1).read()


def test_ties_in_the_metric_go_to_the_lower_index(wide):
    w = torch.rand(1, 2048, generator=generator(7)).repeat_interleave(2, 1)
    scale = torch.rand(1, 2048, generator=generator(8)).repeat_interleave(2, 1) + 0.5
    for order in ([0, 1, 2, 3], [0, 2, 1, 3], [0, 2, 3, 1]):
        v, s = (x.view(-1, 4)[:, order].reshape(1, -1).contiguous() for x in (w, scale))
        moved = v.to(DEVICE, copy=True)
        counts = run(moved, 1.0, s.to(DEVICE))
        mask = Mask.project(v, scale=s).dense()
        assert counts.mask.dense("cpu").equal(mask)
        two = (moved.cpu() != 0).view(-1, 4).sum(1) == 2
        assert two.any() and ((moved.cpu() != 0) == mask).view(-1, 4)[two].all()


def test_rounding_to_bf16_is_right_in_the_mean(wide):
    v = torch.randn(1, 4096, generator=generator(9)).bfloat16()
    exact, original = prox(v.float(), 0.3), v.float().to(DEVICE)
    draws, drifts = [], []
    for seed in (1, 1, 2, 3, 4, 5, 6, 2**31 - 1):
        w = v.to(DEVICE, copy=True)
        drifts.append(run(w, 0.3, original=original, seed=seed).read().squared_drift)
        draws.append(w.cpu().float())
    assert draws[0].equal(draws[1]) and not draws[1].equal(draws[2])
    assert drifts[0] == pytest.approx((draws[0] - v.float()).square().sum().item(), rel=1e-5)
    error = (torch.stack(draws[1:]) - exact) / exact.abs().clamp(min=1e-30)
    error = error[:, exact != 0]
    assert error.abs().max() <= 2**-7, "one of the two neighbours"
    assert 0.2 < ((error > 0).sum() / (error != 0).sum()).item() < 0.8
    assert abs(error.mean().item()) < 4 * 2**-8 / error.numel() ** 0.5
    single = v.float().to(DEVICE)
    run(single, 0.3, seed=1)
    torch.testing.assert_close(single.cpu(), exact, rtol=1e-4, atol=1e-5)


COMPILE = """
import pathlib, re, subprocess, sys, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from proxsparse.proximal.triton_kernel import _kernel

cubin = pathlib.Path(sys.argv[1], "kernel.cubin")
cuobjdump = pathlib.Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
names = _kernel.arg_names
for capability in (80, 90):
    for weight, original, scale in ("*bf16", None, None), ("*bf16", "*bf16", None), ("*fp32", "*bf16", "*fp32"):
        constants = {"weight_column": 1, "scale_column": 1, "original_column": 1, "PAIRS": 32, "seed": None}
        types = {"lam": "fp32", "inverse": "fp32", "partial": "*fp32", "packed": "*u8", "previous": "*u8", "start": "*u8"}
        for name, kind in ("weight", weight), ("original", original), ("scale", scale):
            types |= {name: kind} if kind else {}
            constants |= {} if kind else {name: None}
        types = {name: "constexpr" if name in constants else types.get(name, "i32") for name in names}
        kernel = triton.compile(
            ASTSource(
                fn=_kernel,
                signature=types,
                constexprs={(names.index(name),): value for name, value in constants.items()},
                attrs={(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if types[name][0] in "*i"},
            ),
            target=GPUTarget("cuda", capability, 32),
            options={"num_warps": 1, "enable_fp_fusion": True},
        )
        cubin.write_bytes(kernel.asm["cubin"])
        usage = subprocess.run([cuobjdump, "-res-usage", cubin], capture_output=True, text=True, check=True).stdout
        numbers = re.search(r"REG:(\\d+) STACK:(\\d+) SHARED:\\d+ LOCAL:(\\d+)", usage).groups()
        print(*numbers, kernel.asm["ptx"].count("ld.global.v4"))
"""


def test_it_compiles_for_gpus_without_spills_and_with_wide_loads(tmp_path):
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", COMPILE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    lines = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    for registers, stack, local, _ in lines:
        assert registers <= 160 and stack == local == 0
    assert [loads for *_, loads in lines] == 2 * [1, 2, 5], "all of weights, original and metric, 16 bytes at a time"
