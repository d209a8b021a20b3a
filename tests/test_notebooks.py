"""Every lesson runs from top to bottom, unattended."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

LESSONS = sorted(Path("notebooks").glob("*.ipynb"))


@pytest.mark.embedded
@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_runs(lesson, monkeypatch):
    monkeypatch.setenv("LESSON_STEPS", "3")
    notebook = nbformat.read(lesson, as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells), "lessons are kept without outputs"
    folder = {"metadata": {"path": str(lesson.parent)}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=folder).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    figures = [output for output in outputs if "application/vnd.plotly.v1+json" in output.get("data", {})]
    assert len(figures) >= 3, "the figures are drawn"


def test_there_are_lessons():
    assert [path.name for path in LESSONS] == ["03_learn_a_mask.ipynb"]
