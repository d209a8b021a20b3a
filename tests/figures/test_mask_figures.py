"""Figures of masks: what they draw is what the arrays and tables say."""

import itertools

import numpy as np
import pandas as pd
import pytest

from proxsparse import figures
from proxsparse.figures import tiles, whole_masks
from proxsparse.figures.look import layer_label

ROWS, COLUMNS, M = 6, 16, 4


@pytest.fixture
def weights():
    return np.random.default_rng(0).normal(size=(ROWS, COLUMNS))


@pytest.fixture
def kept(weights):
    order = np.abs(weights).reshape(ROWS, -1, M).argsort(-1).argsort(-1)
    return (order >= 2).reshape(ROWS, COLUMNS)


def test_a_pattern_is_written_as_the_positions_it_keeps(kept):
    assert tiles.pattern_name(0b0011, 4) == "●●○○" and tiles.pattern_name(0b1000, 4) == "○○○●"
    codes = tiles.pattern_codes(kept, M)
    for row, group in np.ndindex(codes.shape):
        name = tiles.pattern_name(int(codes[row, group]), M)
        assert [letter == "●" for letter in name] == kept[row, group * M : (group + 1) * M].tolist()


def test_the_colours_against_another_mask_count_what_both_keep(kept):
    other = np.roll(kept, 1, axis=1)
    figure = figures.mask_tile(kept, M, "against another mask", other=other, corner=(8, 32))
    cells = np.array(figure.data[0].z)
    for value, chosen in enumerate((~kept & ~other, ~kept & other, kept & ~other, kept & other)):
        assert ((cells == value) == chosen).all()
        assert f"({chosen.mean():.0%})" in figure.data[1 + value].name
    assert list(figure.data[0].x) == list(range(32, 48)) and list(figure.data[0].y) == list(range(8, 14))
    assert (np.array(figure.data[0].customdata)[0] == np.arange(32, 48) // 4).all()


def test_groups_have_borders_and_the_chosen_one_a_frame(kept):
    figure = figures.mask_tile(kept, M, corner=(8, 32), chosen=(9, 10))
    lines = [shape.x0 for shape in figure.layout.shapes if shape.type == "line"]
    assert lines == [31.5, 35.5, 39.5, 43.5, 47.5]
    frame = figure.layout.shapes[-1]
    assert (frame.type, frame.x0, frame.x1, frame.y0, frame.y1) == ("rect", 39.5, 43.5, 8.5, 9.5)


def test_soft_weights_are_drawn_as_they_are_and_what_is_dropped_is_crossed_out(kept, weights):
    figure = figures.mask_tile(kept, M, "soft weight", weights=weights)
    assert np.allclose(np.array(figure.data[0].z), weights)
    crossed = set(zip(figure.data[1].y, figure.data[1].x, strict=True))
    assert crossed == set(zip(*np.nonzero(~kept), strict=True))


def test_patterns_are_told_apart_group_by_group(kept):
    figure = figures.mask_tile(kept, M, "pattern")
    cells, codes = np.array(figure.data[0].z), tiles.pattern_codes(kept, M)
    for code in np.unique(codes):
        assert len(np.unique(cells[np.repeat(codes == code, M, axis=1)])) == 1


def test_a_group_moves_by_both_halves_and_its_regularizer_is_the_sum_of_products():
    rng = np.random.default_rng(1)
    rows = [
        (step, half, column, rng.normal())
        for step in range(4)
        for half in (("prox",) if step == 0 else ("gradient", "prox"))
        for column in range(4)
    ]
    tile = pd.DataFrame(rows, columns=["step", "half", "column", "weight"])
    flips = pd.DataFrame({"step": [2], "before": [0b0011], "after": [0b0101]})
    figure = figures.group_path(tile, flips, n=2)
    first = tile[tile["column"] == 0].assign(order=lambda t: t["step"] - 0.5 * (t["half"] == "gradient"))
    sizes = first.sort_values("order")["weight"].abs().to_list()
    assert list(figure.data[0].x) == [0, 0.5, None, 1, 1.5, None, 2, 2.5, None], "the gradient half goes first"
    assert list(figure.data[0].y)[:2] == sizes[:2]
    assert list(figure.data[1].x) == [0.5, 1, None, 1.5, 2, None, 2.5, 3, None] and figure.data[1].line.width > 2
    at_end = tile[(tile["step"] == 3) & (tile["half"] == "prox")]["weight"].abs().to_list()
    expected = sum(a * b * c for a, b, c in itertools.combinations(at_end, 3))
    assert figure.data[-1].name == "R of the group" and figure.data[-1].y[-1] == pytest.approx(expected)
    assert figure.layout.annotations[-1].text == "●●○○ → ●○●○"


@pytest.mark.parametrize("shape", [(10, 16), (576, 1536), (300, 260)])
def test_a_layer_is_shrunk_without_losing_a_difference(shape):
    differs = np.random.default_rng(2).random(shape) < 0.1
    kept = np.zeros(shape, dtype=bool)
    image, (height, width) = whole_masks._shrunk(differs)
    assert max(image.shape) <= whole_masks.MOST_PIXELS
    for row, column in ((0, 0), (image.shape[0] - 1, image.shape[1] - 1)):
        part = differs[row * height : (row + 1) * height, column * width : (column + 1) * width]
        assert image[row, column] == pytest.approx(part.mean())
    assert f"{differs.mean():.1%}" in figures.layer_picture(kept, differs, ("a", "b")).layout.title.text


def test_the_shares_of_the_patterns_add_up():
    names = ["1100", "1010", "0110", "1001", "0101", "0011"]
    shares = np.random.default_rng(3).dirichlet(np.ones(6), 5)
    table = pd.DataFrame({"step": range(5)} | dict(zip(names, shares.T, strict=True)) | {"agreement_start": 0.5})
    figure = figures.pattern_shares(table)
    assert np.sum([trace.y for trace in figure.data], axis=0) == pytest.approx([100] * 5)
    assert figure.data[0].name == "●●○○" and figure.data[0].y == pytest.approx(shares[:, 0] * 100)
    many = pd.DataFrame({"step": [0]} | {f"{code:08b}": [1 / 40] for code in range(40)})
    assert len(figures.pattern_shares(many).data) == whole_masks.NAMED_PATTERNS + 1
    assert figures.pattern_shares(many).data[-1].name == "28 other patterns"


def test_an_unknown_reference_has_no_curve():
    names = ("agreement_start", "agreement_magnitude", "agreement_wanda")
    table = pd.DataFrame({"step": [0, 1]} | dict(zip(names, ([1, 0.9], [0.7, 0.6], [np.nan, np.nan]), strict=True)))
    drawn = figures.agreement(table).data
    assert [trace.name for trace in drawn] == ["start", "magnitude"] and list(drawn[1].y) == [0.7, 0.6]
    drawn = figures.agreement(table.assign(agreement_wanda=table["agreement_start"])).data
    assert [trace.name for trace in drawn] == ["start, which is Wanda's", "magnitude"]


def test_the_map_names_the_layer_of_each_cell():
    layers = pd.DataFrame(
        [(f"blocks.{block}.{name}", block, name, 4, 4) for block in range(3) for name in ("q_proj", "down_proj")],
        columns=["name", "block", "projection", "rows", "columns"],
    )
    figure = figures.layer_map(layers, pd.Series({"blocks.1.down_proj": 0.25}), "differ", "")
    cells, names = np.array(figure.data[0].z), np.array(figure.data[0].customdata)
    assert names[1, 1] == "blocks.1.down_proj" and cells[1, 1] == 0.25 and np.isnan(cells).sum() == 5


def test_layers_that_differ_have_labels_that_differ():
    names = [
        f"model.layers.{block}.mlp.experts.{expert}.{end}"
        for block in (0, 1)
        for expert in (0, 1)
        for end in ("w1", "w2")
    ]
    assert layer_label(names[3]) == "block 0, mlp.experts.1.w2"
    assert len({layer_label(name) for name in names}) == len(names)
    assert layer_label("0.mlp") == "block 0, mlp" and layer_label("lm_head") == "lm_head"


def test_experts_of_one_place_are_averaged():
    layers = pd.DataFrame(
        [("b.0.e0", "e", 0), ("b.0.e1", "e", 0), ("b.1.q", "q", 1)], columns=["name", "projection", "block"]
    )
    placed = whole_masks.by_place(layers, pd.Series({"b.0.e0": 0.2, "b.0.e1": 0.4, "b.1.q": 0.5}))
    assert placed.loc["e", 0] == pytest.approx(0.3) and placed.loc["q", 1] == 0.5 and np.isnan(placed.loc["q", 0])
    assert whole_masks.by_place(layers).loc["e", 0] == "b.0.e0"


@pytest.mark.parametrize(
    ("shape", "between"),
    [((2, 8), (1, 1)), ((12, 12), (1, 1)), ((16, 32), (4, 4)), ((6, 4), (1, 1)), ((8, 96), (1, 8))],
)
def test_labels_of_a_tile_stand_at_weights_and_at_the_borders_of_groups(shape, between):
    tile = figures.mask_tile(np.zeros(shape, dtype=bool), 4)
    assert (tile.layout.yaxis.dtick, tile.layout.xaxis.dtick) == between
