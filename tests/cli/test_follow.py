"""What is printed when a worker ends: what one waited for stands last, where a terminal shows it."""

from types import SimpleNamespace

import pytest
from made_runs import made_comparison, set_state

from proxsparse import Comparison
from proxsparse.cli.follow import follow

ENDED = SimpleNamespace(poll=lambda: 0)  # its worker


@pytest.fixture
def run(tmp_path):
    run = made_comparison(tmp_path / "compared", prompts=tuple(f"Prompt {number}" for number in range(9)))
    set_state(run, "done", 6, steps=6, elapsed=3.0)
    return run


def cells(line):
    return [cell.strip() for cell in line.split("|")[1:-1]]


def test_a_comparison_ends_with_its_table(run, capsys):
    assert follow(run, ENDED) == 0
    *_, head, _, dense, wanda, magnitude, proxsparse = lines = capsys.readouterr().out.splitlines()[:-3]
    assert cells(head) == ["method", "perplexity", "over ours", "on other.txt", "weights"]
    table = Comparison(run).table().set_index("method")
    shown = {cells(line)[0]: cells(line) for line in (dense, wanda, magnitude, proxsparse)}
    assert set(shown) == set(table.index)
    for name, row in table.iterrows():
        assert shown[name][1] == f"{row['perplexity']:.1f} ± {row['stderr']:.1f}"
        assert shown[name][3] == f"{row['perplexity on other.txt']:.1f} ± {row['stderr on other.txt']:.1f}"
    assert max(map(len, lines[-6:])) <= 80, "a terminal of 80 columns holds a row"
    assert not any("and so on" in line for line in lines), "completions are in table.md"
    assert "and so on" in Comparison(run).markdown()


@pytest.mark.parametrize(("measured", "has_table"), [(1, True), (-1, False)])
def test_what_a_comparison_that_failed_has_measured_is_shown(measured, has_table, tmp_path, capsys):
    run = made_comparison(tmp_path / "compared", measured=measured)
    set_state(run, "failed", 2, error="The disk is full.")
    assert follow(run, ENDED) == 2
    said = capsys.readouterr()
    assert "The disk is full." in said.err
    assert ("| magnitude |" in said.out) == ("| method " in said.out) == has_table
