"""Who may download what."""

import pytest
from made_runs import made_run
from starlette.applications import Starlette
from starlette.testclient import TestClient

from app.downloads import routes
from app.operator import Operator
from proxsparse.report.page import MARK, MOST_BYTES


@pytest.fixture
def operator(tmp_path):
    run = made_run(tmp_path / "first", steps=2)
    (run.path / "export" / "model").mkdir(parents=True)
    (run.path / "export" / "model" / "config.json").write_text("{}")
    (run.path / "export" / "model" / "link").symlink_to("/etc/passwd")
    return Operator(tmp_path)


def server(operator, needs_login, **attributes):
    server = Starlette(routes=routes(operator, needs_login=needs_login))
    for name, value in attributes.items():
        setattr(server, name, value)
    return server


ADDRESSES = ("/download/first.zip", "/download/first/config.json", "/report/first.html")


@pytest.mark.parametrize("address", ADDRESSES)
def test_without_a_login_everybody_downloads(operator, address):
    assert TestClient(server(operator, False)).get(address).status_code == 200


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize(
    "attributes",
    [{}, {"auth": None}, {"cookie_id": "x"}, {"tokens": {"secret": "ada"}}, {"cookie_id": "x", "tokens": {}}],
)
def test_where_a_login_was_asked_for_nobody_downloads_without_one(operator, address, attributes):
    """Gradio's attributes are not documented: when one is renamed, downloads stay closed."""
    client = TestClient(server(operator, True, **attributes), cookies={"access-token-x": "wrong"})
    assert client.get(address).status_code == 401


@pytest.mark.parametrize("address", ADDRESSES)
def test_who_has_logged_in_downloads(operator, address):
    application = server(operator, True, cookie_id="x", tokens={"secret": "ada"})
    for name in ("access-token-x", "access-token-unsecure-x"):
        assert TestClient(application, cookies={name: "secret"}).get(address).status_code == 200


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
    assert TestClient(server(operator, False)).get(address).status_code == 404


@pytest.mark.parametrize("run", ["first", "example"])
def test_a_report_is_kept_by_the_browser_and_not_shown_as_a_page_of_this_site(operator, run):
    before = sorted((operator.runs / "first").rglob("*"))
    answer = TestClient(server(operator, False)).get(f"/report/{run}.html")
    assert answer.headers["content-disposition"] == f'attachment; filename="{run}.html"'
    assert MARK in answer.text and len(answer.content) < MOST_BYTES
    assert sorted((operator.runs / "first").rglob("*")) == before, "nothing is written"
