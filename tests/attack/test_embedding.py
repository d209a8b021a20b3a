"""The page in a frame of another site: nowhere, unless the operator names the site, and then only where nothing can be changed."""

import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from playwright.sync_api import expect
from starlette.testclient import TestClient

from app.guard import Served
from app.headers import HEADERS
from app.main import main

NAMED = "http://hub.example"
FRAME = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}


@pytest.fixture(scope="module")
def embedded(made_page):
    with TestClient(made_page(Served("127.0.0.1", (), (NAMED,))), base_url="http://127.0.0.1:7860") as client:
        yield client


def test_a_frame_is_for_the_sites_that_the_operator_names(embedded):
    answer = embedded.get("/", headers=FRAME)
    assert answer.status_code == 200 and "x-frame-options" not in answer.headers
    policy = answer.headers["content-security-policy"]
    assert policy == HEADERS["Content-Security-Policy"].replace("ancestors 'none'", f"ancestors {NAMED}")
    others = HEADERS.keys() - {"X-Frame-Options", "Content-Security-Policy"}
    assert all(answer.headers[name] == HEADERS[name] for name in others)


def test_a_site_that_may_show_the_page_may_do_nothing_else(embedded):
    for changed in ({"Sec-Fetch-Dest": "object"}, {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}):
        assert embedded.get("/report/example.html", headers=FRAME | changed).status_code == 403
    assert embedded.get("/", headers=FRAME | {"Origin": NAMED}).status_code == 403
    assert embedded.post("/gradio_api/queue/join", headers=FRAME, json={}).status_code == 403


def test_what_can_be_changed_is_not_embedded(capsys):
    assert main(["--embed-in", NAMED]) == 2
    assert "give --read-only as well" in capsys.readouterr().err
    assert main(["--read-only", "--embed-in", "https://*.example; script-src *"]) == 2
    assert "--embed-in is 'https://*.example; script-src *'" in capsys.readouterr().err


class Framing(BaseHTTPRequestHandler):
    """A site whose page shows the address after its own in a frame. It is called localhost, which is another site than 127.0.0.1."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(f"<iframe src='{self.path[1:]}' width=900 height=700></iframe>".encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def two_sites():
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), Framing) for _ in range(2)]
    for server in servers:
        Thread(target=server.serve_forever, daemon=True).start()
    yield [f"http://localhost:{server.server_port}" for server in servers]
    for server in servers:
        server.shutdown()


@pytest.mark.browser
def test_a_page_is_in_a_frame_of_the_named_site_only(browser, tmp_path, two_sites):
    named, other = two_sites
    command = [sys.executable, "app.py", "--port", "0", "--runs", str(tmp_path), "--read-only", "--embed-in", named]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    page = browser.new_page()
    try:
        address = process.stdout.readline().split()[2]
        page.goto(f"{named}/{address}/?run=example")
        expect(page.frame_locator("iframe").locator("#run")).to_be_visible()
        with page.expect_console_message(lambda message: "frame-ancestors" in message.text):
            page.goto(f"{other}/{address}/?run=example")
        assert page.frame_locator("iframe").locator("#run").count() == 0
    finally:
        page.close()
        process.terminate()
        process.wait(20)
