"""The documentation site: `make docs` builds it into docs/_build, from the pages here, the parser, the settings and the docstrings."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_extensions"), str(HERE.parent)]  # the pages describe this checkout, whatever is installed

from proxsparse import __version__  # noqa: E402

project, author, release = "ProxSparse Explorer", "The ProxSparse Explorer authors", __version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "docstrings",
    "filled_in",
    "mathml",
    "pictures",
    "table_columns",
    "table_numbers",
]
exclude_patterns = ["_build"]

myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3  # as GitHub names them: a link to a heading works in both places

smartquotes = False  # what is quoted may be typed
default_role = "code"
autodoc_typehints = "none"  # numpydoc sections say the types
autodoc_preserve_defaults = True
napoleon_google_docstring = False
napoleon_use_rtype = False

html_theme = "furo"  # system fonts, dark and light, nothing from another host
html_title = project
html_static_path, html_css_files = ["_static"], ["site.css"]
html_math_renderer = "mathml"
html_copy_source = html_show_sourcelink = False
html_show_search_summary = False  # a page that was opened from disk may not fetch others
html_show_copyright = False
html_use_index = html_domain_indices = False  # no page leads there
copybutton_exclude = ".linenos, .gp, .go"
