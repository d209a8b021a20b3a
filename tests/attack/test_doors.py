"""What Gradio's server has besides the page is not there, and every answer tells the browser how little it may do."""

import re
from pathlib import Path

import pytest
from starlette.routing import Mount, Route

from app.headers import HEADERS, POLICY
from app.reachable import is_reachable

# Of Gradio 6.31 what told the most, or did the most.
CLOSED = (
    "/monitoring", "/monitoring/summary", "/monitoring/key", "/config", "/config/", "/gradio_api/info", "/gradio_api/openapi.json",
    "/gradio_api/deep_link?session_hash=a", "/gradio_api/app_id", "/gradio_api/token", "/gradio_api/user", "/gradio_api/login_check",
    "/gradio_api/proxy=https://evil.hf.space/", "/gradio_api/file=/etc/passwd", "/gradio_api/file=https://evil.example/",
    "/gradio_api/file//etc/passwd", "/gradio_api/component_server", "/gradio_api/startup-events", "/gradio_api/queue/status",
    "/gradio_api/runs", "/gradio_api/run-history/records", "/gradio_api/dev/reload", "/gradio_api/stream/a", "/gradio_api/vibe-code",
    "/gradio_api/vibe-edit", "/gradio_api/custom_component/a/client/component/b", "/gradio_api/run/predict", "/gradio_api/api/predict",
    "/gradio_api/call/predict", "/gradio_api/call/v2/predict", "/gradio_api/process_recording", "/gradio_api/mcp", "/svelte/a", "/logout",
    "/pwa_icon", "/docs", "/redoc", "/openapi.json", "/gradio_api/profiling/traces", "/gradio_api/cancel", "/gradio_api/reset",
    "/gradio_api/upload_progress",
)  # fmt: skip


@pytest.mark.parametrize("path", CLOSED)
def test_what_the_page_does_not_use_is_not_there(page, path):
    for method in ("GET", "POST"):
        answer = page.request(method, path)
        assert answer.status_code == 404 and answer.text == "There is nothing here.", (method, path)


@pytest.mark.parametrize(
    "path",
    ["//monitoring", "/assets/../monitoring", "/assets/..%2fmonitoring", "/%6donitoring", "/monitoring/", "/download/../monitoring",
     "/static/../../gradio_api/info", "/assets/%2e%2e/%2e%2e/%2e%2e/routes.py", "/static/..%2f..%2froutes.py", "/%0amonitoring",
     "/gradio_api/queue/join/../../info", "/theme.css/../config", "/gradio_api/heartbeat/a/../../info"],
)  # fmt: skip
def test_a_path_that_winds_gets_no_further(page, path):
    answer = page.get(f"http://127.0.0.1:7860{path}")
    assert answer.status_code in (403, 404) and "def " not in answer.text and "api" not in answer.text


def gradio_in(application):
    """(routes of the site itself, Gradio's application), from within the middleware."""
    while not hasattr(application, "routes"):
        application = application.app
    (gradio,) = [route.app for route in application.routes if isinstance(route, Mount)]
    return application.routes, gradio


def paths_of(routes):
    for route in routes:
        if isinstance(route, Route):
            yield route.path
        elif hasattr(route, "original_router"):  # FastAPI keeps a router that was included as a whole
            yield from paths_of(route.original_router.routes)


def test_every_route_of_the_server_is_closed_but_those_that_are_listed(made_page):
    """Of this version of Gradio, and of any later one: whoever opens a route has to list it."""
    own, gradio = gradio_in(made_page())
    paths = {*paths_of(own), *paths_of(gradio.routes)}
    reachable = {
        path for path in paths for method in ("GET", "POST") if is_reachable(method, re.sub(r"\{[^}]*\}", "a", path))
    }
    assert len(paths) > 60
    assert reachable == {
        "/", "/assets/{path:path}", "/static/{path:path}", "/theme.css", "/favicon.ico", "/manifest.json", "/robots.txt", "/plotly.min.js",
        "/gradio_api/queue/join", "/gradio_api/queue/data", "/gradio_api/heartbeat/{session_hash}", "/gradio_api/upload",
        "/download/{run}.zip", "/download/{run}/{name}", "/download/{run}/of/{method}.zip", "/download/{run}/of/{method}/{name}",
        "/report/{run}.html", "/preset/{sweep}/{trial:int}.json", "/changed",
    }  # fmt: skip


@pytest.mark.parametrize("path", ["/", "/monitoring", "/theme.css", "/report/none.html", "/plotly.min.js"])
def test_every_answer_has_the_headers_refusals_too(page, path):
    for headers in ({}, {"Host": "evil.example"}):
        answer = page.get(path, headers=headers)
        assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS
        assert "server" not in answer.headers


def test_the_policy_names_no_other_site():
    assert POLICY["frame-ancestors"] == POLICY["object-src"] == "'none'" and POLICY["default-src"] == "'self'"
    for sources in POLICY.values():
        assert set(sources.split()) <= {"'self'", "'none'", "'unsafe-inline'", "'unsafe-eval'", "data:", "blob:"}
    assert {"unsafe" in sources for name, sources in POLICY.items() if name not in ("script-src", "style-src")} == {
        False
    }


def test_an_error_that_nobody_foresaw_tells_nothing(made_page):
    """What Python says of a bug may hold a path of the server."""
    _, gradio = gradio_in(made_page())
    assert gradio.get_blocks().show_error is False
    assert "show_error=True" not in "".join(path.read_text() for path in Path("app").rglob("*.py"))
