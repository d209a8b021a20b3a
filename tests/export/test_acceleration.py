"""What the sparse kernels take, what is said of the rest, and what `bench` prints with and without a GPU."""

import json

import pytest
import torch
from tiny_models import save_tiny_model, tiny_model, tiny_tokenizer

from proxsparse import Mask, MaskSet, accelerate, prunable_layers
from proxsparse.cli import main
from proxsparse.export import acceleration
from proxsparse.export import benchmark as benchmarking
from proxsparse.export.acceleration import Accelerator

HALF = torch.bfloat16
AMPERE, HOPPER, TURING = (8, 0), (9, 0), (7, 5)
has_kernels = torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)


def masks_of(model, n=2, m=4):
    return MaskSet({name: Mask.project(layer.matrix, n, m) for name, layer in prunable_layers(model, m).items()})


def masked(family="llama", n=2, m=4, dtype=HALF, **changes):
    model = tiny_model(family, **changes).to(dtype)
    masks_of(model, n, m).apply_(model)
    return model


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """The decisions of a GPU, with dense copies for sparse weights."""
    monkeypatch.setattr(Accelerator, "of", classmethod(lambda cls, device: cls("cuda", AMPERE)))
    monkeypatch.setattr(acceleration, "compress", lambda weight, accelerator: weight.clone())
    monkeypatch.setattr(benchmarking, "TIMED_SECONDS", 0.001)


@pytest.fixture(scope="module")
def sparse_directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("bench") / "sparse"
    masked().save_pretrained(directory)
    tiny_tokenizer().save_pretrained(directory)
    return str(directory)


@pytest.mark.parametrize(
    ("accelerator", "rows", "columns", "dtype", "words"),
    [
        (Accelerator("cuda", AMPERE), 16, 16, HALF, None),
        (Accelerator("cuda", HOPPER), 4096, 11008, torch.float16, None),
        (Accelerator("cuda", AMPERE, "CUTLASS"), 32, 64, HALF, None),
        (Accelerator("cpu"), 4096, 4096, HALF, "it is on cpu"),
        (Accelerator("cuda", TURING), 4096, 4096, torch.float16, "compute capability 7.5: 8.0 is needed"),
        (Accelerator("cuda", HOPPER, "CUTLASS"), 4096, 4096, HALF, "without cuSPARSELt"),
        (Accelerator("cuda", AMPERE), 4096, 4096, torch.float32, "float32: the kernels take float16 and bfloat16"),
        (Accelerator("cuda", AMPERE), 24, 64, HALF, "24 rows: cuSPARSELt demands a multiple of 16"),
        (Accelerator("cuda", AMPERE), 64, 24, HALF, "24 columns: cuSPARSELt demands a multiple of 16"),
        (Accelerator("cuda", AMPERE, "CUTLASS"), 48, 64, HALF, "48 rows: CUTLASS demands a multiple of 32"),
        (Accelerator("cuda", AMPERE, "CUTLASS"), 64, 32, HALF, "32 columns: CUTLASS demands a multiple of 64"),
    ],
)
def test_which_weights_the_kernels_take(accelerator, rows, columns, dtype, words):
    found = accelerator.obstacle_to(rows, columns, dtype)
    assert found is None if words is None else words in found


def test_on_a_cpu_nothing_changes_and_every_layer_says_why():
    model = masked()
    before = {name: (id(parameter), parameter.clone()) for name, parameter in model.named_parameters()}
    report = accelerate(model)
    for name, parameter in model.named_parameters():
        assert id(parameter) == before[name][0] and torch.equal(parameter, before[name][1])
    assert [layer["name"] for layer in report.layers] == list(prunable_layers(model))
    assert not report.accelerated and all("it is on cpu" in layer["reason"] for layer in report.layers)
    assert "None of the 14 layers is accelerated, and nothing was changed: 14 because it is on cpu" in report.summary
    assert json.loads(json.dumps(report.to_dict()))["layers"] == report.layers


@pytest.mark.parametrize(
    ("family", "words"), [("gpt2", "stored as (in, out)"), ("mixtral", "expert in a three-dimensional parameter")]
)
def test_layouts_that_stay_dense(family, words, as_on_a_gpu):
    report = accelerate(masked(family))
    reasons = {layer["name"]: layer["reason"] for layer in report.layers}
    assert all(words in reason for name, reason in reasons.items() if "attn" not in name or family == "gpt2")
    assert len(report.accelerated) == {"gpt2": 0, "mixtral": 8}[family]
    routers = {name for name, reason in report.skipped.items() if "router" in reason}
    assert len(routers) == {"gpt2": 0, "mixtral": 2}[family]


def test_only_layers_that_are_two_four_are_taken(as_on_a_gpu):
    model = masked()
    layers = prunable_layers(model)
    masks = masks_of(model)
    full, unmasked, sparser = "model.layers.0.mlp.up_proj", "model.layers.1.mlp.up_proj", "model.layers.1.mlp.down_proj"
    layers[full].matrix[0, :3] = 1
    MaskSet({sparser: Mask.project(layers[sparser].matrix, 1, 4)}).apply_(model)
    del masks[unmasked]
    weights = {name: layer.parameter for name, layer in layers.items()}
    outputs = model(torch.arange(30, 50)[None]).logits
    report = accelerate(model, masks)
    reasons = {layer["name"]: layer["reason"] for layer in report.layers if not layer["accelerated"]}
    assert reasons.keys() == {full, unmasked} and reasons[unmasked] == "it has no mask"
    assert "nonzero where its mask drops" in reasons[full]
    assert "12 of 14 layers run as 2:4 with cuSPARSELt, the others stay dense: 1 because" in report.summary
    now = prunable_layers(model)
    assert {name for name in now if now[name].parameter is weights[name]} == {full, unmasked}
    assert not now[sparser].parameter.requires_grad and torch.equal(model(torch.arange(30, 50)[None]).logits, outputs)
    again = {layer["name"]: layer["reason"] for layer in accelerate(model).layers}
    assert again[full] == "1 of its 512 groups are not 2:4" and again[unmasked] == ""


def test_float32_and_a_refusal_of_torch_are_named(as_on_a_gpu, monkeypatch):
    assert "its weights are float32" in accelerate(masked(dtype=torch.float32)).summary

    def refuse(weight, accelerator):
        raise RuntimeError("architecture mismatch\nand more")

    monkeypatch.setattr(acceleration, "compress", refuse)
    model = masked()
    assert "torch refuses it (architecture mismatch)" in accelerate(model).summary
    assert model.model.layers[0].mlp.up_proj.weight.requires_grad


@pytest.mark.filterwarnings("ignore:The PyTorch API of SparseSemiStructuredTensor")
def test_a_sparse_weight_of_torch_is_recognised(as_on_a_gpu):
    from torch.sparse import SparseSemiStructuredTensorCUTLASS
    from torch.sparse._semi_structured_conversions import sparse_semi_structured_from_dense_cutlass

    model = masked()
    linear = model.model.layers[0].mlp.down_proj
    packed, places = sparse_semi_structured_from_dense_cutlass(linear.weight.data)
    sparse = SparseSemiStructuredTensorCUTLASS(linear.weight.shape, packed, places, None, None, None)
    linear.weight = torch.nn.Parameter(sparse, requires_grad=False)
    reasons = {layer["name"]: layer["reason"] for layer in accelerate(model).layers}
    assert reasons["model.layers.0.mlp.down_proj"] == "it is sparse already"


@pytest.mark.skipif(has_kernels, reason="this machine would measure")
def test_without_a_gpu_bench_prints_arithmetic_and_says_so(sparse_directory, capsys):
    assert main(["bench", sparse_directory, "--context", "16", "--new-tokens", "4"]) == 0
    said = capsys.readouterr().out
    assert "64 × 32      4         4,096         2,304  56.25%          2,048         1,024" in said
    assert "Nothing was measured: " in said.splitlines()[-1] and "arithmetic and no timing" in said
    assert main(["bench", sparse_directory, "--context", "16", "--new-tokens", "4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert not found["measured"] and found["layers"] == [] and found["equal"] is None
    assert {(shape["rows"], shape["columns"], shape["layers"]) for shape in found["shapes"]} == {
        (32, 32, 4), (16, 32, 4), (64, 32, 4), (32, 64, 2)
    }  # fmt: skip


def test_bench_measures_every_shape_and_says_where_sparse_is_slower(sparse_directory, as_on_a_gpu, monkeypatch, capsys):
    times = iter([1e-3, 2e-3, 1e-3, 0.5e-3] * 4)
    monkeypatch.setattr(benchmarking, "median_seconds", lambda inputs, weight: next(times))
    arguments = ["bench", sparse_directory, "--rows", "1", "8", "--context", "16", "--new-tokens", "3"]
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum("0.50×" in line and "slower" in line for line in lines) == 4
    assert sum("2.00×" in line and "faster" in line for line in lines) == 4
    assert any(line.strip().startswith("prefill       16") for line in lines) and any(
        "decode" in line for line in lines
    )
    assert "tolerance 0.031 of the largest output" in "".join(lines)
    assert "Sparse is slower in 4 of 8 lines (32 × 32 with 1 row, " in lines[-1]
    assert "every output equals the dense one within the tolerance (largest error of a layer 0)" in lines[-1]


def test_bench_finds_outputs_that_differ(sparse_directory, as_on_a_gpu, monkeypatch, capsys):
    monkeypatch.setattr(acceleration, "compress", lambda weight, accelerator: weight * 1.25)
    arguments = ["bench", sparse_directory, "--rows", "2", "--context", "16", "--new-tokens", "2", "--json"]
    assert main(arguments) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["measured"] and found["equal"] is False and "do not use this" in found["summary"]
    assert all(entry["error"] == pytest.approx(0.25, abs=0.02) for entry in found["layers"])
    assert max(entry["error"] for entry in found["end_to_end"]) > found["tolerance"]["model"]


def test_where_no_layer_can_be_taken_bench_names_the_reason(tmp_path, as_on_a_gpu, capsys):
    masked("gpt2", dtype=torch.float32).save_pretrained(tmp_path / "gpt2")
    tiny_tokenizer().save_pretrained(tmp_path / "gpt2")
    assert main(["bench", str(tmp_path / "gpt2"), "--context", "8", "--new-tokens", "2"]) == 0
    said = capsys.readouterr().out
    assert "bfloat16 (rounded from float32" in said and "stays dense: it is a Conv1D" in said
    assert said.splitlines()[-1].startswith("Nothing was measured: no layer can be accelerated (it is a Conv1D")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("{dense}",), "is not 2:4 (256 of 256 groups of model.layers.0.self_attn.q_proj keep more than 2 weights"),
        (("{four_of_eight}",), "wrote for a run with 2:4, 1:2 or 1:4 masks"),
        (("{sparse}", "--rows", "0"), "rows is 0: give 1 or more"),
        (("{sparse}", "--rows", "x"), "invalid int value: 'x'"),
        (("{sparse}", "--new-tokens", "-1"), "new-tokens is -1"),
        (("{sparse}", "--context", "64"), "the model reads at most 64 tokens together"),
        (("{sparse}", "--device", "tpu"), "device is 'tpu'"),
        (("./nothing",), "There is no directory './nothing'"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(arguments, words, sparse_directory, tmp_path, capsys):
    short = [] if "--context" in arguments else ["--context", "16", "--new-tokens", "4"]
    places = {
        "sparse": sparse_directory,
        "dense": save_tiny_model(tmp_path / "dense"),
        "four_of_eight": tmp_path / "4-8",
    }
    if "{four_of_eight}" in arguments:
        masked(n=4, m=8).save_pretrained(tmp_path / "4-8")
        tiny_tokenizer().save_pretrained(tmp_path / "4-8")
    name, *rest = (argument.format(**places) for argument in arguments)
    assert main(["bench", name, *short, *rest]) == 2
    error = capsys.readouterr().err
    assert words in error and "Traceback" not in error


@pytest.mark.skipif(not has_kernels, reason="needs a CUDA GPU of compute capability 8.0 or above")
def test_the_kernels_give_what_the_zeros_give():
    model = masked(hidden_size=128, intermediate_size=256, head_dim=32).cuda()  # shapes that both backends take
    ids = torch.arange(30, 62, device="cuda")[None]
    with torch.no_grad():
        expected = model(ids).logits
        report = accelerate(model)
        assert len(report.accelerated) == 14, report.summary
        found = model(ids).logits
    tolerance = benchmarking.MODEL_TOLERANCE * torch.finfo(HALF).eps
    assert benchmarking.largest_difference(found, expected) <= tolerance
    assert "sparse already" in accelerate(model).summary
