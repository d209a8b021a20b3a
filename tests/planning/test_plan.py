"""Whether a model fits on GPUs, from its configuration alone."""

import json
from dataclasses import replace

import pytest
import torch
from planning.shapes_of_models import LLAMA_2_7B, LLAMA_3_1_70B, MIDDLE, write_config
from tiny_models import CONFIGS, LLAMA_LIKE, save_tiny_model

from proxsparse import prunable_layers
from proxsparse.cli import main
from proxsparse.learning.update import MASKS, learning_bytes
from proxsparse.models.without_weights import load_without_weights
from proxsparse.planning.memory import Load, row, ways_out
from proxsparse.planning.shapes import Shapes
from proxsparse.planning.step_time import step_flops

TOKENS = ("--length", "4096", "--batch", "1")


def shapes_of(directory) -> Shapes:
    model = load_without_weights(str(directory))
    return Shapes("model", model, prunable_layers(model))


def planned(capsys, *arguments) -> dict:
    assert main(["plan", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture(scope="module")
def seven(tmp_path_factory):
    return shapes_of(write_config(tmp_path_factory.mktemp("seven"), LLAMA_2_7B))


def test_llama_2_7b_fits_one_card_of_80_gb_in_the_lean_plan_and_eight_in_the_full_one(tmp_path, capsys):
    found = planned(
        capsys, write_config(tmp_path, LLAMA_2_7B), "--gpus", 8, "--gpu-memory", 80, *TOKENS, "--tflops", 400
    )
    assert found["model"]["prunable"] == 32 * (4 * 4096**2 + 3 * 4096 * 11008) and found["model"]["layers"] == 224
    rows = {(each["memory"], each["loss_at"], each["gpus"]): each for each in found["rows"]}
    assert set(rows) == {
        (*each, 1) for each in (("full", "masked"), ("full", "soft"), ("lean", "masked"), ("lean", "soft"))
    } | {(memory, at, 8) for memory in ("full", "lean") for at in ("masked", "soft")}
    assert [
        rows["full", "masked", 1]["fits"],
        rows["lean", "masked", 1]["fits"],
        rows["full", "masked", 8]["fits"],
    ] == ["no", "yes", "yes"]
    assert "--memory lean" in rows["full", "masked", 1]["instead"]
    assert f"{rows['lean', 'masked', 1]['total'] / 1e9:.1f}" == "58.0", "as docs/explain/memory.md says"
    full, lean = found["step"]
    tokens, passes = 4096, 4  # forward, twice that for backward, and the teacher's
    matrices = found["model"]["parameters"] - 32000 * 4096
    assert full["flops"] == 2 * passes * matrices * tokens and lean["flops"] / full["flops"] == 5 / 4
    assert full["seconds"] == pytest.approx(full["flops"] / 400e12)
    assert found["kernels"]["layers"] == 224 and 1.9 < found["kernels"]["bound"]["speedup"] < 2


def test_llama_3_1_70b_is_planned_and_told_what_would_fit(tmp_path, capsys):
    config = write_config(tmp_path, LLAMA_3_1_70B) / "config.json"
    assert main(["plan", str(config), "--gpus", "8", "--gpu-memory", "80", "--loss-at", "masked", *TOKENS]) == 0
    said = capsys.readouterr().out
    assert "70.55 G parameters, of them 68.45 G prunable in 560 layers" in said
    assert "does not fit: full, loss at masked, GPUs 8" in said
    more = "--gpus 49 --length 1024 or --recompute --gpus 23 or --memory lean --gpus 15"
    assert f"GPUs 1; what would: {more}\n" in said, "as docs/explain/memory.md says"
    assert "GPUs 8; what would: --recompute --offload or --gpus 49 --length 1024\n" in said
    assert "lean, loss at masked, GPUs 8; what would: --offload or --gpus 15\n" in said
    assert "this is arithmetic, nothing was measured" in said
    each = ("--gpus", 23, "--gpu-memory", 80, "--loss-at", "masked", "--memory", "full", *TOKENS)
    kept, again = (planned(capsys, config, *each, *more)["rows"][-1] for more in ((), ("--recompute",)))
    activations = [round(found["parts"]["activations"] / 1e9) for found in (kept, again)]
    assert activations == [148, 12], "as docs/explain/memory.md says"
    assert kept["fits"] == "no" and again["fits"] != "no"
    eight = ("--gpus", 8, "--gpu-memory", 80, "--loss-at", "masked", "--memory", "lean", "--offload", *TOKENS)
    offloaded = planned(capsys, config, *eight)["rows"][-1]
    told = [round(size / 1e9) for size in (offloaded["total"], 8 * offloaded["host"])]
    assert told == [31, 839], "as docs/how-to/several-gpus.md says"


def test_flags_that_are_proposed_are_named_as_learn_names_them(capsys):
    from proxsparse.cli.main import build_parser
    from proxsparse.cli.plan import GPUS_IN_LEARN, _in_learn

    _in_learn([{"instead": ["--batch 1", "--recompute"]}, {"instead": []}])
    assert capsys.readouterr().out == ""
    _in_learn([{"instead": ["--memory lean --gpus 2"]}])
    assert capsys.readouterr().out == f"{GPUS_IN_LEARN}\n"
    learned = build_parser().parse_args(["learn", "--memory", "lean", "--launch", "2"])
    assert (learned.memory, learned.launch) == ("lean", 2)


@pytest.mark.parametrize("memory", ["full", "lean"])
@pytest.mark.parametrize("loss_at", ["masked", "soft"])
def test_a_weight_takes_the_bytes_that_the_learner_declares(seven, memory, loss_at):
    found = row(seven, memory, loss_at, 1, Load(1, 4096, teacher=False))
    assert found.bytes_a_weight == 2 + learning_bytes(memory, loss_at) + MASKS
    kinds = ("originals", "soft", "gradients", "moments", "masked", "masks")
    assert sum(found.parts[kind] for kind in kinds) == pytest.approx(found.bytes_a_weight * seven.prunable)
    assert found.total < sum(found.parts.values()) and not found.least


def test_several_gpus_share_what_belongs_to_weights_and_nothing_of_the_windows(seven):
    load = Load(1, 4096, teacher=True)
    one, eight = (row(seven, "full", "masked", gpus, load).parts for gpus in (1, 8))
    for part in ("originals", "soft", "gradients", "moments", "masked", "masks"):
        assert eight[part] == one[part] // 8
    assert eight["other"] == 4 * (32 * 2 * 4096) // 8, "the norms of the blocks"
    assert (eight["activations"], eight["logits"]) == (one["activations"], one["logits"])
    block = 4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096
    assert one["whole"] == 0 and eight["whole"] == 2 * 4 * block + 4 * (2 * 32000 * 4096 + 4096)


def test_several_gpus_that_share_the_lean_plan_hold_masked_weights_and_gradients_too(seven):
    load = Load(1, 4096, teacher=True)
    lean, full = (row(seven, memory, "soft", 8, replace(load, recompute=True)) for memory in ("lean", "full"))
    assert lean.bytes_a_weight == 2 + learning_bytes("lean", "soft", shared=True) + MASKS == 12 + MASKS
    each = seven.prunable // 8
    sizes = {"originals": 2, "soft": 2, "gradients": 2, "moments": 4, "masked": 2}
    assert {name: lean.parts[name] for name in sizes} == {name: size * each for name, size in sizes.items()}
    same = ("masks", "other", "activations", "logits", "whole")
    assert {name: lean.parts[name] for name in same} == {name: full.parts[name] for name in same}


def test_gpus_that_offload_hold_nothing_of_what_belongs_to_a_weight(seven):
    load = Load(8, 4096, teacher=True, recompute=True)
    kept, left = (row(seven, "full", "masked", 8, replace(load, offload=choice)) for choice in (False, True))
    of_weights = ("originals", "soft", "gradients", "moments", "masked", "masks", "other")
    assert left.host == sum(kept.parts[name] for name in of_weights) and kept.host == 0
    assert not any(left.parts[name] for name in of_weights)
    assert {name for name, size in left.parts.items() if size != kept.parts[name]} == set(of_weights)
    assert left.total < kept.total and row(seven, "full", "masked", 1, replace(load, offload=True)).host == 0


def test_windows_are_dealt_out_to_the_gpus(seven):
    parts = row(seven, "full", "masked", 4, Load(6, 4096, teacher=True)).parts
    assert parts == row(seven, "full", "masked", 4, Load(8, 4096, teacher=True)).parts, "two for the busiest"
    assert parts["activations"] == row(seven, "full", "masked", 1, Load(2, 4096, teacher=True)).parts["activations"]


def test_what_is_proposed_fits_and_one_gpu_fewer_does_not(seven):
    load, room = Load(16, 4096, teacher=True), 80e9
    found = row(seven, "full", "masked", 4, load)
    assert found.total > room
    ways = list(ways_out(seven, found, load, room))
    assert ways[:2] == ["--recompute", "--memory lean"]
    assert row(seven, "full", "masked", 4, Load(16, 4096, teacher=True, recompute=True)).total <= room
    assert row(seven, "lean", "masked", 4, load).total <= room
    batch = int(ways[2].removeprefix("--batch "))
    for count, fits in ((batch, True), (batch + 1, False)):
        assert (row(seven, "full", "masked", 4, Load(count, 4096, teacher=True)).total <= room) == fits
    gpus = int(ways[3].split()[1])
    rest = ways[3].split()[2:]
    batch = int(rest[rest.index("--batch") + 1]) if "--batch" in rest else 16
    for count, fits in ((gpus, True), (gpus - 1, False)):
        assert (row(seven, "full", "masked", count, Load(batch, 4096, teacher=True)).total <= room) == fits


def test_recomputed_blocks_leave_their_inputs_of_the_activations(seven):
    load = Load(8, 4096, teacher=True)
    kept, again = (row(seven, "full", "masked", 8, replace(load, recompute=choice)) for choice in (False, True))
    lean = row(seven, "lean", "masked", 1, Load(1, 4096, teacher=True))
    inputs = 32 * 4096 * 4096 * 2  # of all blocks, in bf16
    assert inputs < again.parts["activations"] < 0.2 * kept.parts["activations"]
    assert again.parts["activations"] == pytest.approx(lean.parts["activations"], rel=0.1)
    assert {name for name, size in again.parts.items() if size != kept.parts[name]} == {"activations"}
    assert again.total < kept.total
    for recompute, passes in ((False, 4), (True, 5)):  # forward, twice that for backward, the teacher's, and once more
        flops = step_flops(seven, "full", replace(load, recompute=recompute), 1)
        assert flops == passes * step_flops(seven, "full", replace(load, teacher=False), 1) / 3


@pytest.mark.parametrize("loss_at", ["masked", "soft"])
@pytest.mark.parametrize(("memory", "recompute"), [("full", False), ("full", True), ("lean", False)])
def test_a_deep_model_follows_from_shallow_ones(memory, recompute, loss_at, tmp_path):
    shapes = shapes_of(write_config(tmp_path, MIDDLE | {"num_hidden_layers": 8}))
    how = ((2, 512), memory, loss_at, torch.bfloat16, recompute)
    expected = shapes.pass_bytes(*how)
    shapes._passes.clear()
    shapes._shallow = None  # all blocks are run
    found = shapes.pass_bytes(*how)
    assert expected.kept == pytest.approx(found.kept, rel=1e-3)
    assert expected.further == pytest.approx(found.further, rel=1e-3)


def test_more_windows_take_more_in_proportion(tmp_path):
    shapes = shapes_of(write_config(tmp_path, MIDDLE))
    large, small = Load(8, 1024, teacher=False), Load(2, 1024, teacher=False)
    for memory in ("full", "lean"):
        whole, part = row(shapes, memory, "masked", 1, small), row(shapes, memory, "masked", 1, large, share=1 / 4)
        assert part.parts["activations"] == pytest.approx(whole.parts["activations"], rel=0.02)
        assert part.total == pytest.approx(whole.total, rel=0.02)


@pytest.mark.parametrize("family", CONFIGS)
def test_every_family_of_the_tests_is_planned_with_and_without_gpus(family, tmp_path, capsys):
    save_tiny_model(tmp_path, family)
    found = planned(capsys, tmp_path, "--gpu-memory", 1, "--gpus", 2, "--length", 32)
    assert {each["fits"] for each in found["rows"]} == {"yes"} and all(
        each["parts"]["activations"] for each in found["rows"]
    )


def test_float32_has_the_full_plan_alone_and_masked_weights_of_four_bytes(tmp_path, capsys):
    directory = write_config(tmp_path, MIDDLE | {"dtype": "float32"})
    found = planned(capsys, directory, "--gpu-memory", 80, "--precision", "fp32")
    assert {each["memory"] for each in found["rows"]} == {"full"}
    masked = next(each for each in found["rows"] if each["loss_at"] == "masked")
    assert masked["bytes_a_weight"] == 4 + 4 + 4 + 8 + 4 + MASKS
    assert masked["parts"]["other"] == 4 * (found["model"]["parameters"] - found["model"]["prunable"])


def test_a_pattern_that_no_kernel_runs_gains_nothing(tmp_path, capsys):
    found = planned(capsys, write_config(tmp_path, MIDDLE), "--gpu-memory", 80, "--n", 4, "--m", 8)
    assert found["kernels"]["bound"] is None and found["kernels"]["layers"] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere/at/all", "--gpu-memory", "80"], "There is no directory 'nowhere/at/all'"),
        (["missing.json", "--gpu-memory", "80"], "There is no file"),
        (["CONFIG", "--gpu-memory", "80", "--gpus", "0"], "gpus is 0: give 1 or more."),
        (["CONFIG", "--gpu-memory", "-80"], "gpu-memory is -80: give a number above 0."),
        (["CONFIG", "--gpu-memory", "nan"], "gpu-memory is nan: give a number above 0."),
        (["CONFIG", "--gpu-memory", "80", "--tflops", "0"], "tflops is 0: give a number above 0."),
        (["CONFIG", "--gpu-memory", "80", "--batch", "0"], "batch is 0"),
        (["CONFIG"], "--gpu-memory"),
        (
            ["CONFIG", "--gpu-memory", "80", "--memory", "lean", "--precision", "fp32"],
            "The lean plan multiplies in bf16",
        ),
    ],
)
def test_bad_input_is_one_sentence(arguments, said, tmp_path, capsys):
    config = str(write_config(tmp_path, LLAMA_LIKE | {"model_type": "llama"}) / "config.json")
    assert main(["plan", *(config if word == "CONFIG" else word for word in arguments)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and said in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "no_such_model"}, "no causal language model that transformers knows"),
        (LLAMA_2_7B | {"num_hidden_layers": 300_000}, "asks for 300,000 layers"),
        ({"model_type": "t5"}, "is an encoder-decoder"),
    ],
)
def test_a_configuration_that_cannot_be_planned_is_one_sentence(config, said, tmp_path, capsys):
    assert main(["plan", str(write_config(tmp_path, config)), "--gpu-memory", "80"]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
