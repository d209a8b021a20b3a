"""Several ranks learn what one process learns: the same losses to float32's rounding, and the very same masks."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import sharded_learner
import sharded_memory
from safetensors.torch import save_file
from sharded_learner import STEPS, config, learned
from tiny_models import random_windows, save_tiny_model, tiny_model

import proxsparse
from proxsparse import LearnConfig, MaskLearner, ProxSparseError
from proxsparse.layers.ranks import Ranks

ROUNDING = 1e-6  # relative; sums over ranks have another order than those of one process
FOUR_FAMILIES = ("llama", "gpt2", "mixtral", "opt")  # tied and untied heads, Conv1D, experts in one parameter
HALVED = ("llama", "gpt2", "mixtral")
STREAMED = (
    "gpt2 streamed",
    "mixtral streamed",
)  # a head tied to the embeddings; experts that lie in files in another form
RECOMPUTED = ("llama recomputed", "mixtral recomputed")
OFFLOADED = ("llama offloaded", "mixtral offloaded")
CASES = {
    1: ("llama",),
    2: (*FOUR_FAMILIES, "llama soft", "gpt2 soft", "llama accumulated", *STREAMED, *RECOMPUTED, *OFFLOADED),
    3: ("llama", "mixtral"),  # uneven rows, and a rank without any expert
    4: (*FOUR_FAMILIES, "llama soft", "mixtral accumulated"),
}
IN_BF16 = {
    2: ("llama in bf16", "llama lean", "llama lean first half", "llama lean second half", "mixtral lean"),
    4: ("llama lean",),
}


def run_ranks(
    directory: Path, count: int, *cases: str, script: str = sharded_learner.__file__
) -> list[subprocess.CompletedProcess]:
    """Start a script once a rank, and wait for all."""
    tests = Path(__file__).parents[1]
    paths = [str(Path(proxsparse.__file__).parents[1]), str(tests)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, script, str(directory)]
    started = [
        subprocess.Popen(
            [*command, str(index), str(count), *cases],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for index in range(count)
    ]  # fmt: skip
    return [
        subprocess.CompletedProcess(process.args, process.wait(), output)
        for process in started
        for output in [process.communicate(timeout=600)[0]]
    ]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("ranks")
    for case in STREAMED:
        family = sharded_learner.case(case)[0]
        save_tiny_model(path / family, family)
    return path


@pytest.fixture(scope="module")
def on_ranks(directory):
    """count → what each rank found, by case."""

    @cache
    def found(count: int) -> list[dict]:
        cases = [*CASES[count], *IN_BF16.get(count, ())]
        if count == 2:  # which go on where four ended
            found(4)
            begun_by_one(directory)
            cases += [*(f"{family} second half" for family in HALVED), "mixtral second half of one"]
        if count == 4:
            cases += [f"{family} first half" for family in HALVED]
        for process in run_ranks(directory, count, *cases):
            assert process.returncode == 0, process.stdout[-3000:]
        return [json.loads((directory / f"{index}-of-{count}.json").read_text()) for index in range(count)]

    return found


def begun_by_one(directory: Path) -> None:
    """What a run of one process leaves after half of the steps: a file."""
    with MaskLearner(tiny_model("mixtral"), random_windows(), config("masked")) as learner:
        learned(learner, STEPS // 2)
        tensors, rest = learner.state_dict()
        about = {"learner": json.dumps(rest)}
        save_file(
            {name: tensor.contiguous() for name, tensor in tensors.items()},
            directory / "mixtral after half of one",
            about,
        )


@cache
def alone(case: str) -> tuple[dict, dict]:
    family, kind, _ = sharded_learner.case(re.sub(" (recomputed|offloaded)", "", case))  # which change nothing
    with MaskLearner(tiny_model(family), random_windows(), config(kind)) as learner:
        return learned(learner)


@pytest.mark.parametrize(("count", "case"), [(count, case) for count, cases in CASES.items() for case in cases])
def test_ranks_learn_what_one_process_learns(on_ranks, count, case):
    numbers, masks = alone(case)
    assert sum(numbers["flips"]) > 10 * STEPS, "a run in which nothing moves shows nothing"
    for rank in on_ranks(count):
        found = rank[case]
        for name in ("losses", "norms", "regularizer", "drift"):
            assert found[name] == pytest.approx(numbers[name], rel=ROUNDING), name
        assert found["flips"] == numbers["flips"]
        assert found["layers"] == numbers["layers"], "counted layer by layer"
    assert on_ranks(count)[0][case]["masks"] == {name: packed.tolist() for name, packed in masks.items()}
    assert not any(rank[case]["masks"] for rank in on_ranks(count)[1:]), "rank 0 alone has the masks of all rows"


@pytest.mark.parametrize("count", [2, 4])
def test_the_dense_model_is_as_it_came(on_ranks, count):
    assert all(found["dense is as before"] for rank in on_ranks(count) for found in rank.values())


def test_no_rank_goes_on_holding_a_layer_whole(on_ranks):
    assert not any(found["held whole"] for rank in on_ranks(2) for found in rank.values())


@pytest.mark.parametrize("case", RECOMPUTED)
def test_blocks_that_are_computed_again_keep_no_activations(on_ranks, case):
    for rank in on_ranks(2):
        assert 0 < rank[case]["kept"] < 0.3 * rank[sharded_learner.case(case)[0]]["kept"]


def test_what_is_offloaded_is_left_to_the_host(on_ranks):
    """On the CPU that is where it lies anyway; what FSDP does then is done here as well."""
    for rank in on_ranks(2):
        assert {case for case, found in rank.items() if found["offloaded"]} == set(OFFLOADED)


def test_a_process_that_is_alone_offloads_nothing():
    with pytest.raises(ProxSparseError, match="offload is for several processes that share a model"):
        MaskLearner(tiny_model(), random_windows(), LearnConfig(steps=2, offload=True))


def test_a_rank_holds_its_part_and_one_block_of_a_model_that_lies_in_files(tmp_path):
    save_tiny_model(tmp_path / "model", num_hidden_layers=8)
    for process in run_ranks(tmp_path, 2, script=sharded_memory.__file__):
        assert process.returncode == 0, process.stdout[-3000:]
    for index in range(2):
        found = json.loads((tmp_path / f"{index}-of-2.json").read_text())
        block, blocks = found["blocks"][0], sum(found["blocks"])
        outside = found["whole"] - blocks
        assert found["loaded"] < block, "of the model only buffers"
        # A rank's own rows and its shards are half a block each: as much as a block for every one that is shared out.
        little = block / 10
        for shared_out, moment in enumerate(found["moments"][:-1]):
            assert moment <= shared_out * block + block + little, "its part, and one block"
        assert found["held"] <= blocks + outside + little
        assert found["rows"] <= blocks / 2


@pytest.mark.parametrize("family", HALVED)
def test_another_number_of_ranks_goes_on(on_ranks, directory, family):
    """Four ranks begin; two go on, and so does a process that is alone."""
    numbers, masks = alone(family)
    first, second = on_ranks(4)[0][f"{family} first half"], on_ranks(2)[0][f"{family} second half"]
    for name in ("losses", "norms", "regularizer", "drift"):
        assert first[name] + second[name] == pytest.approx(numbers[name], rel=ROUNDING), name
    assert first["flips"] + second["flips"] == numbers["flips"]
    wanted = {name: packed.tolist() for name, packed in masks.items()}
    assert second["masks"] == wanted
    state = sharded_learner.load_state(directory / f"{family} after half")
    with MaskLearner(tiny_model(family), random_windows(), config("masked"), state=state) as learner:
        found, packed = learned(learner, STEPS // 2)
    assert found["flips"] == numbers["flips"][STEPS // 2 :]
    assert {name: mask.tolist() for name, mask in packed.items()} == wanted


def test_ranks_go_on_where_one_process_ended(on_ranks):
    numbers, masks = alone("mixtral")
    for rank in on_ranks(2):
        assert rank["mixtral second half of one"]["flips"] == numbers["flips"][STEPS // 2 :]
    assert on_ranks(2)[0]["mixtral second half of one"]["masks"] == {
        name: packed.tolist() for name, packed in masks.items()
    }


def test_ranks_read_no_more_of_what_learns_than_they_hold(on_ranks):
    for rank in on_ranks(2):
        assert [rank[f"{family} second half"]["shares read"] for family in HALVED] == [[0.5]] * len(HALVED)


def test_each_rank_writes_what_it_holds(on_ranks, directory):
    """The four parts of a checkpoint are as large as each other, to a tenth; a rank's may lie in several files."""
    on_ranks(4)
    for family in HALVED:
        files = (directory / f"{family} after half").glob("*.safetensors")
        sizes = Counter()
        for file in files:
            sizes[file.name.split("-")[1]] += file.stat().st_size
        assert len(sizes) == 4 and max(sizes.values()) < 1.1 * min(sizes.values()), family
    assert len(list((directory / "mixtral after half").glob("shard-00001-*"))) > 1


@pytest.mark.parametrize(("count", "case"), [(2, "llama lean"), (4, "llama lean"), (2, "mixtral lean")])
def test_lean_ranks_round_the_step_of_the_full_plan(on_ranks, count, case):
    """By their definition: to one of two neighbours in bf16, in the mean exactly, and to the farther one as often as that takes."""
    for rank in on_ranks(count):
        found = rank[case]["rounding"]
        if case != "mixtral lean":  # whose experts have gradients in float32, which are rounded as well
            assert found["most"] <= 1
        assert abs(found["mean"]) < 0.02
        assert found["above half"] == pytest.approx(found["chance of above half"], abs=0.03)
        assert found["above half"] > 0.1, "rounding to the nearest would have none"
        assert rank[case]["share held"] == 1 / 2, "of what the full plan learns, and its moments"
        assert rank[case]["dense is as before"] and not rank[case]["held whole"]


def test_lean_ranks_learn_as_the_full_plan_does(on_ranks):
    full = on_ranks(2)[0]["llama in bf16"]
    assert sum(full["flips"]) > 10 * STEPS
    for found in (on_ranks(2)[0]["llama lean"], on_ranks(4)[0]["llama lean"]):
        assert found["losses"] == pytest.approx(full["losses"], rel=0.002)
        assert found["norms"] == pytest.approx(full["norms"], rel=0.05), "clipped by the norm of the whole gradient"
        same = [
            np.unpackbits(np.array(mask, np.uint8)) == np.unpackbits(np.array(full["masks"][name], np.uint8))
            for name, mask in found["masks"].items()
        ]
        assert np.concatenate(same).mean() > 0.95
    assert on_ranks(2)[0]["llama lean"]["kept"] < 0.35 * full["kept"], "blocks are computed again"


def test_lean_ranks_that_go_on_round_as_if_nothing_had_been(on_ranks):
    whole, first, second = (on_ranks(2)[0][f"llama lean{half}"] for half in ("", " first half", " second half"))
    for name in ("losses", "norms", "flips"):
        assert first[name] + second[name] == whole[name], name
    assert second["masks"] == whole["masks"] and second["shares read"] == [0.5]


def test_no_two_ranks_round_alike():
    seeds = [Ranks(index, 4).own_seed(seed) for seed in range(100) for index in range(4)]
    assert len(set(seeds)) == len(seeds)


def test_columns_that_cannot_be_shared_evenly_are_refused_in_one_sentence(tmp_path):
    for process in run_ranks(tmp_path, 3, "gpt2"):
        assert process.returncode != 0
        assert "has 32 outputs" in process.stdout or "has 128 outputs" in process.stdout
        assert "use a number of ranks that divides" in process.stdout
