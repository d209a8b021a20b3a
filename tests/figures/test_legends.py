"""Title, legend and chart stand one under the other, at the width of a lesson's picture and at that of a phone."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import plotly
import pytest

from proxsparse import figures

pytestmark = pytest.mark.browser

TEXTS = ("bundled-other", "wikitext.txt", "rust.txt", "shakespeare.txt")
METHODS = pd.DataFrame(
    {
        "method": ["dense", "admm", "wanda"], "perplexity": [43.0, 100.0, 202.0], "stderr": [1.5, 6.0, 13.0],
        "weights_changed": [False, True, False],
        **{f"perplexity on {text}": [25.0, 66.0, 124.0] for text in TEXTS},
        **{f"stderr on {text}": [2.0, 6.0, 12.0] for text in TEXTS},
    }
)  # fmt: skip
STEPS = pd.DataFrame({"step": [1, 2], "loss": [4.0, 3.5]})
PERPLEXITY = pd.DataFrame(
    [
        {"step": step, "mask": "learned", "scope": "live", "perplexity": 90.0, "windows": 4, "context": 512}
        for step in (0, 2)
    ]
)
JUDGED = pd.DataFrame(
    [{"text": text, "mask": mask, "step": 2, "perplexity": 60.0} for text in TEXTS for mask in ("learned", "dense")]
)
KEPT = np.tile([True, False, False, True], (8, 8))
FIGURES = {
    "perplexities": figures.perplexities(METHODS),
    "learning curve": figures.learning_curve(STEPS, PERPLEXITY, judged=JUDGED),
    "mask tile": figures.mask_tile(KEPT, 4, "against another mask", other=~KEPT, title="One mask and another"),
}
DRAWN = """async ([figure, width]) => {
    document.body.innerHTML = '<div id="figure"></div>';
    await Plotly.newPlot('figure', figure.data, {...figure.layout, width});
    return ['.g-gtitle', '.legend', '.nsewdrag'].map((part) => document.querySelector(part).getBoundingClientRect());
}"""


@pytest.fixture(scope="module")
def page(browser):
    page = browser.new_page()
    page.add_script_tag(path=Path(plotly.__file__).parent / "package_data" / "plotly.min.js")
    return page


@pytest.mark.parametrize("width", [820, 390])
@pytest.mark.parametrize("name", FIGURES)
def test_a_legend_of_many_lines_covers_neither_the_title_nor_the_chart(page, name, width):
    title, legend, chart = page.evaluate(DRAWN, [json.loads(FIGURES[name].to_json()), width])
    assert legend["height"] > 40, "more than one line"
    assert title["top"] >= 0 and title["bottom"] <= legend["top"]
    assert legend["bottom"] <= chart["top"] + 1 and chart["height"] > 50
