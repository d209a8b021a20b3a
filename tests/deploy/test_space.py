"""deploy/space, started as a Hugging Face Space starts it: its files alone in a folder, the library from a wheel."""

import re
import socket
import subprocess
import tomllib
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from playwright.sync_api import expect
from waiting import until

SPACE = Path("deploy/space")
DECLARED = tomllib.loads(Path("pyproject.toml").read_text())["project"]
HOST = "org-name.hf.space"
PROXIED = {"Host": HOST, "X-Forwarded-Host": HOST, "X-Forwarded-Proto": "https"}


@pytest.fixture
def ask(installed, elsewhere):
    """(path, headers) -> (status, headers, text) of the Space, which is started in an empty folder."""
    for file in SPACE.iterdir():
        (elsewhere["cwd"] / file.name).write_bytes(file.read_bytes())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = elsewhere["env"] | {"SPACE_HOST": HOST, "GRADIO_SERVER_PORT": str(port)}

    def ask(path="", headers=PROXIED, data=None):
        request = urllib.request.Request(f"http://127.0.0.1:{port}/{path}", data, headers)
        try:
            answer = urllib.request.urlopen(request, timeout=20)
        except urllib.error.HTTPError as refusal:
            answer = refusal
        return answer.status, answer.headers, answer.read().decode()

    def answers():
        assert process.poll() is None, "the Space ended"
        try:
            return ask()[0] == 200
        except OSError:
            return False

    process = subprocess.Popen([installed / "python", "app.py"], **elsewhere | {"env": environment})
    try:
        until(answers)
        ask.address = f"http://127.0.0.1:{port}"
        yield ask
    finally:
        process.terminate()
        process.wait(20)


def test_it_knows_where_it_is(ask):
    status, headers, page = ask()
    assert status == 200 and f'"root":"https://{HOST}"' in page
    assert "frame-ancestors https://huggingface.co" in headers["Content-Security-Policy"]


@pytest.mark.browser
def test_it_shows_the_example_first_and_starts_nothing(ask, browser, elsewhere):
    page = browser.new_page()
    page.goto(ask.address)
    expect(page.get_by_text("A recorded example")).to_be_visible()
    page.locator("#run").click()
    expect(page.locator(".toast-body")).to_contain_text("This page only shows runs")
    page.close()
    assert list((elsewhere["cwd"] / "runs").iterdir()) == []


def test_it_lies_in_a_frame_of_the_hub_and_is_called_by_its_own_name_alone(ask):
    frame = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}
    assert ask("", PROXIED | frame)[0] == 200
    assert ask("", PROXIED | {"Origin": "https://huggingface.co"})[0] == 403
    assert ask("", {"Host": "other.hf.space"})[0] == 403


def test_its_card_starts_it_with_the_gradio_that_the_page_needs():
    _, front, about = (SPACE / "README.md").read_text(encoding="utf-8").split("---", 2)
    card = yaml.safe_load(front)
    assert card["sdk"] == "gradio" and (SPACE / card["app_file"]).is_file() and about.strip()
    assert card["license"] == DECLARED["license"].lower()
    (bound,) = (found for found in map(Requirement, DECLARED["optional-dependencies"]["app"]) if found.name == "gradio")
    assert card["sdk_version"] in bound.specifier
    assert f"Programming Language :: Python :: {card['python_version']}" in DECLARED["classifiers"]
    assert len(card["short_description"]) <= 60


def test_what_it_installs_is_this_library_from_where_it_is_published():
    lines = (SPACE / "requirements.txt").read_text(encoding="utf-8").splitlines()
    (wanted,) = (Requirement(line) for line in lines if not line.startswith(("#", "--")))
    assert wanted.name == DECLARED["name"] and wanted.extras <= DECLARED["optional-dependencies"].keys()
    assert wanted.url == f"git+{DECLARED['urls']['Repository']}"


def test_the_page_shows_the_command_that_it_starts():
    page, started = Path("docs/start/space.md").read_text(encoding="utf-8"), (SPACE / "app.py").read_text()
    (shown,) = re.findall(r"^proxsparse app (.*)$", page.replace("\\\n", ""), re.MULTILINE)
    assert set(re.findall(r"--[\w-]+", shown)) == set(re.findall(r'"(--[\w-]+)"', started))
