"""Where the things lie that travel with the library: `assets/` (corpus and recorded example run) and `app/`.

In a clone of the repository they lie at its top. A wheel carries copies of them in this folder, side by side in the
same way (`force-include` in pyproject.toml), so that one root serves both.
"""

from pathlib import Path

_HERE = Path(__file__).resolve().parent
ROOT = _HERE if (_HERE / "assets").is_dir() else _HERE.parent.parent
