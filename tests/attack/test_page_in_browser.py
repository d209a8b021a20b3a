"""The page in a real browser: it works under its policy without a complaint, and text that others wrote stays text."""

import json
import subprocess
import sys
from urllib.parse import quote

import pytest
from made_runs import made_run
from playwright.sync_api import expect

from proxsparse.files import append_record, read_json, write_json

pytestmark = pytest.mark.browser
MARKUP = "<b class=owned>x</b><img class=owned src=http://127.0.0.1:9/x.png onerror=document.title='owned'><form class=owned action=http://evil.example>"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A server with a run in which every text that somebody else may have written is markup."""
    runs = tmp_path_factory.mktemp("runs")
    run = made_run(runs / "first", steps=5, model=MARKUP, corpus=MARKUP)
    state = read_json(run.path / "state.json")
    write_json(
        run.path / "state.json", state | {"status": "failed", "error": MARKUP, "doing": MARKUP, "device": MARKUP}
    )
    layers = read_json(run.path / "layers.json")
    layers["corpus"]["name"] = MARKUP
    layers["skipped"] = {MARKUP: MARKUP}
    write_json(run.path / "layers.json", layers)
    append_record(run.path / "events.jsonl", {"time": 1.0, "step": 1, "event": MARKUP, "error": MARKUP})
    made_run(runs / "second", steps=3)
    (runs / MARKUP.replace("/", " ")[:120]).mkdir()
    (runs / MARKUP.replace("/", " ")[:120] / "run.json").write_text(json.dumps({"version": MARKUP}))
    process = subprocess.Popen(
        [sys.executable, "app.py", "--port", "0", "--runs", str(runs)], stdout=subprocess.PIPE, text=True
    )
    yield process.stdout.readline().split()[2], runs
    process.terminate()
    process.wait(20)


@pytest.fixture
def page(browser):
    page = browser.new_page(viewport={"width": 1440, "height": 1000})
    page.complaints, page.asked = [], []
    page.on("console", lambda message: page.complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("request", lambda request: page.asked.append(request.url))
    yield page
    page.close()


def see_everything(page):
    for name in page.get_by_role("tab").all_inner_texts():
        page.get_by_role("tab", name=name, exact=True).click()
        page.wait_for_timeout(1500)


def test_all_of_it_works_under_the_policy_without_a_complaint(page, site, tmp_path):
    page.goto(f"{site[0]}/?run=second")
    expect(page.locator("#chart-curve .scatterlayer .trace").first).to_be_attached()
    see_everything(page)
    page.get_by_role("tab").first.click()
    with page.expect_download() as saved:  # a picture is made in the page
        page.locator("#chart-curve").get_by_role("button", name="PNG", exact=True).click()
    assert saved.value.path().stat().st_size > 1000
    text = tmp_path / "text.txt"
    text.write_text("some words to learn from\n" * 200_000)
    page.locator("input[type=file]").first.set_input_files(text)
    page.wait_for_function("document.querySelector('#corpus input').value.startsWith('text-')")
    page.locator("#setting-steps input").first.fill("x")
    page.locator("#run").click()
    expect(page.locator(".toast-body")).to_contain_text("steps is 'x'")
    assert page.complaints == []
    assert [url for url in page.asked if not url.startswith((site[0], "data:", "blob:"))] == []


@pytest.mark.parametrize("query", ["run", "screen", "layer", "preset"])
def test_markup_in_an_address_is_text(page, site, query):
    page.goto(f"{site[0]}/?{query}={quote(MARKUP)}")
    expect(page.locator("#banner")).not_to_be_empty()
    page.wait_for_timeout(1500)
    if query in ("run", "screen"):
        expect(page.locator(".toast-body").first).to_contain_text("<b class=owned>")
    assert page.locator(".owned").count() == 0 and page.title() != "owned" and page.complaints == []


def test_markup_in_a_run_is_text(page, site):
    page.goto(f"{site[0]}/?run=first")
    expect(page.locator("#banner")).to_contain_text("<b class=owned>")
    see_everything(page)
    assert page.locator(".owned").count() == 0 and page.title() != "owned" and page.complaints == []
    assert not [url for url in page.asked if "127.0.0.1:9" in url or "evil.example" in url]


def test_another_site_cannot_use_it_not_even_from_this_machine(browser, site):
    """A page of another origin: its form, its fetch, its picture and its frame all fail."""
    port = site[0].rpartition(":")[2]
    foreign = browser.new_page()
    foreign.route("http://evil.example/**", lambda route: route.fulfill(
        content_type="text/html", body=f"<iframe src='{site[0]}/'></iframe><img src='{site[0]}/report/second.html'>"
        f"<form method=post enctype=multipart/form-data action='{site[0]}/gradio_api/upload'><button>go</button></form>"))  # fmt: skip
    answers = {}
    foreign.on("response", lambda response: answers.setdefault(response.url, response.status))
    foreign.goto("http://evil.example/")
    found = foreign.evaluate(
        f"fetch('{site[0]}/theme.css', {{credentials: 'include'}}).then(() => 'read', () => 'refused')"
    )
    assert found == "refused"
    foreign.wait_for_timeout(2000)
    foreign.get_by_role("button", name="go").click(no_wait_after=True)
    foreign.wait_for_timeout(3000)
    refused = {url: status for url, status in answers.items() if port in url}
    assert set(refused.values()) <= {403}, "where the browser itself did not refuse already"
    foreign.close()
