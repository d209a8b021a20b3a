"""What can be downloaded; who may, tests/attack/test_login.py asks."""

import re

import pytest
from made_runs import made_comparison, made_run
from starlette.applications import Starlette
from starlette.testclient import TestClient

from app.downloads import routes
from app.operator import Operator
from app.reachable import is_reachable
from proxsparse.report.page import MARK, MOST_BYTES


@pytest.fixture
def operator(tmp_path):
    run = made_run(tmp_path / "first", steps=2)
    (run.path / "export" / "model").mkdir(parents=True)
    (run.path / "export" / "model" / "config.json").write_text("{}")
    (run.path / "export" / "model" / "link").symlink_to("/etc/passwd")
    return Operator(tmp_path)


@pytest.fixture
def compared(tmp_path):
    run = made_comparison(tmp_path / "compared", ("magnitude", "wanda"))
    (run.path / "exports" / "wanda" / "model").mkdir(parents=True)
    (run.path / "exports" / "wanda" / "model" / "config.json").write_text("{}")
    (run.path / "secret").write_text("secret")
    return Operator(tmp_path)


def test_the_exports_of_methods_are_downloaded_and_nothing_beside_them(compared):
    for address in ("/download/compared/of/wanda.zip", "/download/compared/of/wanda/config.json"):
        assert client(compared).get(address).status_code == 200
    for address in (
        "/download/compared/of/magnitude.zip", "/download/compared/of/magnitude/config.json", "/download/compared/of/..%2f..%2f/secret",
        "/download/compared/of/../secret", "/download/compared/of/%2e%2e/config.json", "/download/compared/of/.wanda/config.json",
        "/download/compared/of/wanda/..%2f..%2f..%2fsecret", "/download/none/of/wanda.zip", "/download/compared.zip",
    ):  # fmt: skip
        assert client(compared).get(address).status_code == 404


def client(operator):
    return TestClient(Starlette(routes=routes(operator)))


@pytest.mark.parametrize("address", ["/download/first.zip", "/download/first/config.json", "/report/first.html"])
def test_exports_and_reports_are_downloaded(operator, address):
    assert client(operator).get(address).status_code == 200


@pytest.mark.parametrize(
    "address",
    [
        "/download/first/link",
        "/download/first/..%2f..%2frun.json",
        "/download/none.zip",
        "/report/none.html",
        "/report/..%2ffirst.html",
    ],
)
def test_nothing_else_is_sent(operator, address):
    assert client(operator).get(address).status_code == 404


def test_what_can_be_downloaded_can_be_reached(operator):
    for route in routes(operator):
        assert is_reachable("GET", re.sub(r"\{[^}]*\}", "1", route.path)), route.path


@pytest.mark.parametrize("run", ["first", "example"])
def test_a_report_is_kept_by_the_browser_and_not_shown_as_a_page_of_this_site(operator, run):
    before = sorted((operator.runs / "first").rglob("*"))
    answer = client(operator).get(f"/report/{run}.html")
    assert answer.headers["content-disposition"] == f'attachment; filename="{run}.html"'
    assert MARK in answer.text and len(answer.content) < MOST_BYTES
    assert sorted((operator.runs / "first").rglob("*")) == before, "nothing is written"
