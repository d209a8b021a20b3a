"""What is said of an export before it is written, against what is written."""

import math

import pytest
import torch
from tiny_models import save_tiny_model
from waiting import until

from proxsparse import LearnConfig, LearnJob, Mask, MaskSet, Run, export_model, load_model, prunable_layers
from proxsparse.export.estimate import bound, sizes_of
from proxsparse.export.write import extent_of
from proxsparse.runs.readers.exporting import card_ahead, sizes_ahead, speed_ahead

HEADERS = 32_768  # what files may hold beside the tensors: their names, shapes and places


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (4, 8)])
@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral"])
@pytest.mark.parametrize("format", ["dense", "compact"])
def test_the_size_is_known_before_anything_is_written(family, n, m, format, tmp_path):
    model = save_tiny_model(tmp_path / "model", family, tie_word_embeddings=family != "mixtral")
    lm = load_model(str(model), "cpu", torch.bfloat16)
    layers = prunable_layers(lm.model, m)
    masks = MaskSet({name: Mask.project(layer.matrix, n, m) for name, layer in layers.items()})
    extent = extent_of(lm.model, layers)
    shapes = [(layer.out_features, layer.in_features, 2) for layer in layers.values()]
    expected = sizes_of(shapes, extent.bytes, extent.dtype, n, m, format)
    report = export_model(lm, masks, tmp_path / "sparse", format=format)
    assert report["size"] == expected, "the export counts the same from its tensors"
    written = sum(file["bytes"] for file in report["files"] if file["name"].endswith(".safetensors"))
    if format == "dense":  # whose masks lie beside it and are not counted
        written -= (tmp_path / "sparse" / "masks.safetensors").stat().st_size
    assert 0 <= written - expected["stored_bytes"] <= HEADERS


def test_two_of_four_in_16_bits_take_nine_sixteenths():
    found = sizes_of([(576, 1536, 2), (192, 576, 2)], 10_000_000, "bfloat16", 2, 4, "compact")
    assert found["masked_ratio"] == 9 / 16
    assert sizes_of([(8, 16, 4)], 1000, "float32", 1, 4, "compact")["masked_ratio"] == 1 / 4 + 1 / 32


def test_the_bound_is_amdahl_s():
    assert bound(100, 0) == {"share": 1.0, "speedup": 2.0}
    assert bound(50, 50)["speedup"] == pytest.approx(4 / 3)


def test_the_multiply_adds_outside_are_those_of_the_head(tmp_path):
    for family in ("llama", "gpt2"):
        model = load_model(str(save_tiny_model(tmp_path / family, family)), "cpu").model
        head = model.get_output_embeddings().weight
        assert extent_of(model, prunable_layers(model)).outside == head.numel()


def test_a_run_says_what_its_export_will_be(tiny_directory, text_file, tmp_path):
    job = LearnJob(
        str(tiny_directory), str(text_file), length=16, context=32, windows=2, evaluate_on=(),
        learn=LearnConfig(steps=2, metric_windows=2, distill=0.0),
    )  # fmt: skip
    run = Run.create(job, tmp_path / "run")
    assert sizes_ahead(run) == {} and speed_ahead(run) is None and card_ahead(run, "dense") is None
    run.start()
    until(lambda: run.state()["status"] == "done" and not run.is_alive(), 120)
    lm = load_model(str(tiny_directory), "cpu")
    masks = MaskSet.load(run.masks()[2])
    report = export_model(lm, masks, tmp_path / "sparse", format="compact")
    assert sizes_ahead(run)["compact"] == report["size"]
    speed = speed_ahead(run)
    assert 0 < speed["share"] < 1 and math.isclose(speed["speedup"], 1 / (1 - speed["share"] / 2))
    card = str(card_ahead(run, "compact"))
    assert report["size"]["summary"] in card and "The proof stands here once" in card and str(tmp_path) not in card
    assert card_ahead(run, "compact").data.eval_results
