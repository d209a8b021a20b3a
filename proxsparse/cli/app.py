"""`app`: start the explorer.

Nothing of the library imports the explorer: this command puts the folder in which it lies first on Python's path and
runs it. So its modules have the names that they have in the repository (`from app import …`), and a wheel does not
install a package under a name as general as `app`.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec

from proxsparse.bundled import ROOT
from proxsparse.errors import ProxSparseError

NEEDED = ("gradio", "plotly", "zipstream")


def app(options: list[str]) -> int:
    """Serve the explorer until interrupted; returns its exit code. options: the explorer's own, see `app/main.py`."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise ProxSparseError(
            f"The explorer needs packages that are not installed ({', '.join(missing)}): pip install 'proxsparse[app]'."
        )
    sys.path.insert(0, str(ROOT))
    return import_module("app.main").main(options)
