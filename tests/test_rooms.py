"""The walls between the rooms of the library, read from its imports."""

import ast
import importlib.util
import inspect
from pathlib import Path

import pytest

import proxsparse

# Every room uses only what stands above it in this list; modules of one room may use each other, without a circle.
ROOMS = (
    "errors", "bundled", "files", "settings", "config", "accounts", "progress", "memory", "text", "layers", "masks", "proximal",
    "models", "learning",
    "methods", "evaluation", "export", "planning", "reordering", "figures", "runs", "report", "cli",
)  # fmt: skip
LIBRARY = Path(proxsparse.__file__).parent


def modules_in(package: Path) -> dict[str, Path]:
    """{dotted name: file}, from the folder that holds the package."""
    return {
        ".".join(path.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted(package.rglob("*.py"))
    }


MODULES = modules_in(LIBRARY) | modules_in(LIBRARY.parent / "app")
ENTRANCES = ("proxsparse", "proxsparse.__main__")  # they import names on first use, from everywhere


def imported_by(path: Path) -> set[str]:
    """The modules of this project that a file imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            for alias in node.names:
                if (node.module, alias.name) == ("proxsparse", "__version__"):
                    continue
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in MODULES else node.module)
    return {name for name in found if name.split(".")[0] in ("proxsparse", "app")}


def room_of(module: str) -> str:
    return module.split(".")[1]


ALL_IMPORTS = {module: imported_by(path) for module, path in MODULES.items() if module not in ENTRANCES}
IMPORTS = {module: imported for module, imported in ALL_IMPORTS.items() if module.startswith("proxsparse.")}


@pytest.mark.parametrize("module", IMPORTS)
def test_a_room_uses_only_what_stands_above_it(module):
    own = ROOMS.index(room_of(module))
    for other in IMPORTS[module]:
        assert other.split(".")[0] == "proxsparse", f"{module} imports {other}"
        assert other != "proxsparse", f"{module} imports the package itself: name the module"
        assert ROOMS.index(room_of(other)) <= own, f"{module} imports {other}, which stands below it"


def test_no_circle():
    finished, open_ = set(), []

    def visit(module):
        assert module not in open_, " -> ".join([*open_[open_.index(module) :], module])
        if module in finished or module not in ALL_IMPORTS:
            return
        open_.append(module)
        for other in sorted(ALL_IMPORTS[module]):
            visit(other)
        open_.pop()
        finished.add(module)

    for module in ALL_IMPORTS:
        visit(module)


def test_few_modules_lie_flat_and_every_room_is_listed():
    flat = [path.stem for path in LIBRARY.glob("*.py")]
    assert len(flat) <= 9, flat
    assert {room_of(module) for module in IMPORTS} <= set(ROOMS)


def test_no_module_at_the_top_has_the_name_of_a_public_function():
    for name in proxsparse.__all__:
        if inspect.isfunction(getattr(proxsparse, name)):
            assert importlib.util.find_spec(f"proxsparse.{name}") is None, name


def test_type_checkers_see_the_same_names_as_programs():
    stub = ast.parse((LIBRARY / "__init__.pyi").read_text(encoding="utf-8"))
    homes = {alias.name: node.module for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert homes.pop("figures") == "proxsparse"
    assert homes == {name: f"proxsparse.{home}" for name, home in proxsparse._HOME.items()}
