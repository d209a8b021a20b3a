"""The explorer in a real browser, with real workers behind it."""

import io
import json
import urllib.error
import urllib.request
import zipfile
from urllib.parse import parse_qs, urlsplit

import pytest
from explorer import served
from playwright.sync_api import expect
from waiting import until

from app.main import main
from proxsparse import Run, list_runs, load_compact, load_model, verify
from proxsparse.accounts.user_file import UserFile
from proxsparse.runs.disk import RUN_GB, RUNS_GB

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def site(tmp_path_factory, tiny_directory, text_file):
    runs = tmp_path_factory.mktemp("site") / "runs"
    with served(runs, "--allow", str(tiny_directory.parent), "--allow", str(text_file.parent)) as address:
        yield address, runs


@pytest.fixture
def page(browser, site):
    page = browser.new_page(viewport={"width": 1440, "height": 1000})
    page.foreign, page.problems = [], []
    page.on("request", lambda request: page.foreign.append(request.url) if not is_own(request.url, site[0]) else None)
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.goto(site[0])
    expect(page.locator("#banner")).not_to_be_empty()
    expect(page.locator("#differs")).to_contain_text("the preset Quick")  # the form is filled
    yield page
    assert page.foreign == [], "the page talks to nobody else"
    assert page.problems == []
    page.close()


def is_own(url, address):
    return url.startswith((address, address.replace("http", "ws"), "data:", "blob:"))


def fill(page, name, value):
    page.locator(f"#setting-{name} input, #setting-{name} textarea").first.fill(str(value))


def choose(page, name, option):
    page.locator(f"#{name} input").click()
    page.get_by_role("option", name=option, exact=True).click()


def open_all_settings(page):
    for title in ("Text and measurement", "Optimizer", "Regularizer and metric", "Machine"):
        page.get_by_role("button", name=title).click()


def start_over(page, model="embedded", text="bundled"):
    """The form as on a first visit, whatever run is shown."""
    choose(page, "preset", "Quick")
    expect(page.locator("#setting-steps input, #setting-steps textarea").first).to_have_value("80")
    page.locator("#model input, #model textarea").first.fill(str(model))
    page.locator("#corpus input").fill(str(text))
    page.locator("#corpus input").press("Enter")


def set_up_tiny(page, model, text, steps=4000, **more):
    start_over(page, model, text)
    open_all_settings(page)
    values = {
        "steps": steps, "length": 16, "context": 32, "windows": 6, "live_windows": 2, "evaluate_every": 10,
        "metric_windows": 2, "checkpoint_every": 0, "learning_rate": 0.005,
    }  # fmt: skip
    for name, value in (values | more).items():
        fill(page, name, value)


def click(page, name):
    button = page.locator(f"#{name}")
    expect(button).to_be_enabled()
    button.click()


def new_run(page, site):
    """Press Run, and wait until the page shows the new run instead of the one before."""
    earlier = len(list_runs(site[1]))
    click(page, "run")
    until(lambda: len(list_runs(site[1])) > earlier)
    run = list_runs(site[1])[0]
    expect(page.locator("#banner")).to_contain_text(run.id)
    return run


def current_run(page, site):
    page.wait_for_url("**/?run=*", timeout=120_000)
    return Run(site[1] / parse_qs(urlsplit(page.url).query)["run"][0])


def x_range(page, chart):
    return page.evaluate(f"document.querySelector('#{chart} .live-plot').layout.xaxis.range")


def test_a_run_is_driven_from_the_page(page, site, tiny_directory, text_file, browser, tmp_path):
    set_up_tiny(page, tiny_directory, text_file)
    click(page, "run")
    banner = page.locator("#banner")
    expect(banner).to_contain_text("running")
    run = current_run(page, site)
    expect(page.locator("#tiles")).to_contain_text("groups already 2:4")
    expect(page.locator("#chart-composition .scatterlayer .trace")).to_have_count(4)

    # A zoomed chart stays zoomed, and stays the same chart, while new steps arrive.
    page.evaluate("""() => { const plot = document.querySelector('#chart-composition .live-plot');
        window.kept = plot.querySelector('svg'); Plotly.relayout(plot, {'xaxis.range': [1, 5]}); }""")
    before = run.state()["step"]
    until(lambda: run.state()["step"] > before + 5)
    page.wait_for_timeout(2500)
    assert x_range(page, "chart-composition") == [1, 5]
    assert page.evaluate("window.kept.isConnected")

    # λ1 changes while the run goes on.
    number = page.locator("#lambda-now input[type=number]")
    number.fill("0.1")
    number.press("Enter")
    page.locator("#lambda-now input[type=range]").focus()
    page.locator("#lambda-now input[type=range]").press("ArrowRight")
    page.locator("#lambda-now input[type=range]").dispatch_event("pointerup")
    until(lambda: run.state()["lambda1"] > 0.09)
    until(lambda: run.table("steps")["lambda1"].iloc[-1] > 0.09)

    click(page, "pause")
    expect(banner).to_contain_text("paused")
    if run.state()["phase"] == "prox":
        click(page, "prox")
    until(lambda: run.state()["phase"] == "gradient" and not run.commands())
    at = run.state()["step"]
    click(page, "step")
    until(lambda: run.state()["step"] == at + 1)
    click(page, "gradient")
    until(lambda: run.state()["phase"] == "prox")
    expect(page.locator("#gradient")).to_be_disabled()
    click(page, "prox")
    until(lambda: run.state()["step"] == at + 2)
    expect(banner).to_contain_text(f"step {at + 2} of")

    # A reloaded page, and another window, show the same run.
    page.reload()
    expect(page.locator("#banner")).to_contain_text(run.id)
    expect(page.locator("#banner")).to_contain_text("paused")
    second = browser.new_page()
    second.goto(page.url)
    expect(second.locator("#banner")).to_contain_text(f"step {at + 2} of")
    second.close()

    # The heatmap goes back to an earlier step and stays there.
    page.locator("#scrubber input[type=number]").fill("3")
    page.locator("#scrubber input[type=number]").press("Enter")
    expect(page.locator("#chart-heatmap .chart-title")).to_contain_text("at step 3")
    page.locator("#quantity").get_by_label("drift").check()
    expect(page.locator("#chart-heatmap .chart-title")).to_contain_text("drift at step 3")

    click(page, "resume")
    expect(banner).to_contain_text("running")
    click(page, "stop")
    expect(banner).to_contain_text("stopped")
    assert max(run.checkpoints()) == run.state()["step"]

    # Fork it, with few steps left, to the end.
    open_all_settings(page)
    fill(page, "steps", run.state()["step"] + 3)
    click(page, "fork")
    expect(banner).to_contain_text("done", timeout=180_000)
    fork = current_run(page, site)
    assert fork.id != run.id and fork.header()["parent"]["run"] == run.id
    result = page.locator("#result")
    for words in ("dense", "magnitude 2:4 mask", "learned 2:4 mask", "held-out windows of 32 tokens"):
        expect(result).to_contain_text(words)

    # Export, and take it home.
    page.get_by_role("tab", name="Export").click()
    click(page, "export")
    report = page.locator("#export-report")
    expect(report).to_contain_text("proven")
    expect(report).to_contain_text("every kept weight equals")
    expect(report).to_contain_text("neither smaller nor faster")
    with page.expect_download(timeout=120_000) as downloading:
        page.locator("a.download").click()
    archive = tmp_path / "model.zip"
    downloading.value.save_as(archive)
    with zipfile.ZipFile(archive) as packed:
        assert packed.testzip() is None
        packed.extractall(tmp_path)
    assert verify(tmp_path / fork.id).ok
    load_model(str(tmp_path / fork.id))
    with page.expect_download(timeout=120_000) as downloading:
        page.get_by_role("link", name="provenance.json").click()
    assert json.loads(downloading.value.path().read_text())["run"] == fork.id


def refused(page, words):
    """Press Run: it says so in one sentence, which is then put away."""
    page.locator("#run").click()
    toast = page.locator(".toast-body")
    expect(toast).to_contain_text(words)
    page.locator(".toast-close").click()
    expect(toast).to_have_count(0)


def test_bad_settings_are_one_sentence_on_the_page(page, site):
    count = len(list_runs(site[1]))
    open_all_settings(page)
    for setting, good, bad, words in (
        ("lambda1", "0.2", "much", "lambda1 is 'much': give a number."),
        ("lambda1", "0.2", "-1", "lambda1 is -1: give 0 or more."),
        ("learning_rate", "0.001", "0", "learning-rate is 0: give a number above 0."),
        ("steps", "80", "", "steps is empty"),
    ):
        fill(page, setting, bad)
        refused(page, words)
        fill(page, setting, good)
    assert len(list_runs(site[1])) == count


def test_a_browser_cannot_name_files_that_were_not_allowed(page, site):
    count = len(list_runs(site[1]))
    for model, corpus, words in (
        ("/etc", "bundled", "not in a folder that may be read here"),
        ("../../etc", "bundled", "not in a folder that may be read here"),
        ("not a model", "bundled", "There is no model"),
        ("tests", "bundled", "not in a folder that may be read here"),
        ("embedded", "/etc/passwd", "not in a folder that may be read here"),
        ("embedded", "pyproject.toml", "not in a folder that may be read here"),
    ):
        page.locator("#model input, #model textarea").first.fill(model)
        page.locator("#corpus input").fill(corpus)
        page.locator("#corpus input").press("Enter")
        refused(page, words)
    assert len(list_runs(site[1])) == count


def test_a_run_that_fails_says_why_and_the_app_goes_on(page, site, tiny_directory, text_file):
    set_up_tiny(page, tiny_directory, text_file, length=1000)
    click(page, "run")
    expect(page.locator("#banner .failure")).to_contain_text("the model reads at most 64")
    expect(page.locator("#run")).to_be_enabled()


def test_uploads_are_texts(page, tmp_path, text_file):
    page.locator("#upload input[type=file], input[type=file]").first.set_input_files(text_file)
    page.wait_for_function("document.querySelector('#corpus input').value.startsWith('text-')", timeout=120_000)
    binary = tmp_path / "binary.txt"
    binary.write_bytes(bytes(range(256)))
    page.locator("#upload input[type=file], input[type=file]").first.set_input_files(binary)
    expect(page.locator(".toast-body")).to_contain_text("is not text")


def test_presets_fill_the_form(page):
    open_all_settings(page)
    choose(page, "setting-pattern", "4:8")
    choose(page, "preset", "Paper: Llama-2-7B")
    for name, value in (("steps", "400"), ("lambda1", "0.25"), ("length", "4096"), ("learning_rate", "0.0001")):
        expect(page.locator(f"#setting-{name} input, #setting-{name} textarea").first).to_have_value(value)
    expect(page.locator("#setting-metric input")).to_have_value("weight")
    expect(page.locator("#setting-pattern input")).to_have_value("2:4")


def test_another_pattern_is_learned_and_exported_in_both_formats(page, site, tiny_directory, text_file, tmp_path):
    set_up_tiny(page, tiny_directory, text_file, steps=3)
    choose(page, "setting-pattern", "1:4")
    run = new_run(page, site)
    expect(page.locator("#banner")).to_contain_text("done", timeout=180_000)
    assert run.job().learn.pattern == "1:4"
    for place, words in (
        ("banner", "metric activation, 1:4"), ("tiles", "groups already 1:4"), ("result", "learned 1:4 mask"),
    ):  # fmt: skip
        expect(page.locator(f"#{place}")).to_contain_text(words)
    page.get_by_role("tab", name="Export").click()
    click(page, "export")
    report = page.locator("#export-report")
    expect(report).to_contain_text("groups of 14 layers are 1:4")
    expect(report).to_contain_text("A 1:4 mask is 2:4 as well")
    expect(report).to_contain_text("neither smaller nor faster")

    # The same without its zeros.
    page.get_by_label("Compact, without them: smaller on disk").check()
    click(page, "export")
    expect(report).to_contain_text("A compact checkpoint")
    expect(report).to_contain_text("masked layers alone take 28.1%")  # a quarter of float32, and a bit a weight
    expect(page.locator("#export-code")).to_contain_text(f'load_compact("{run.id}")')
    with page.expect_download(timeout=120_000) as downloading:
        page.locator("a.download").click()
    with zipfile.ZipFile(downloading.value.path()) as packed:
        packed.extractall(tmp_path)
    assert verify(tmp_path / run.id).ok
    load_compact(tmp_path / run.id, "cpu")


def test_it_fits_a_telephone(browser, site):
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto(site[0])
    expect(page.locator("#run")).to_be_visible()
    page.wait_for_timeout(2000)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.close()


@pytest.mark.parametrize(
    "path", ["download/../app.py", "download/nothing.zip", "download/nothing/config.json", "download/..%2f..%2fapp.py"]
)
def test_nothing_else_can_be_downloaded(site, path):
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{site[0]}/{path}")
    assert caught.value.code in (401, 403, 404)


def test_with_a_login_downloads_need_it_too(tmp_path, browser):
    UserFile(tmp_path / "users.json").add("ada", "correct horse")
    with served(tmp_path / "runs", "--auth-file", str(tmp_path / "users.json")) as address:
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{address}/download/example.zip")
        assert caught.value.code == 401
        page = browser.new_page()
        page.goto(f"{address}/?screen=masks&run=example")
        page.get_by_label("Name").fill("ada")
        page.get_by_label("Password").fill("wrong horse")
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("alert")).to_have_text("The name or the password is wrong.")
        page.get_by_label("Name").fill("ada")
        page.get_by_label("Password").fill("correct horse")
        page.get_by_role("button", name="Log in").click()
        expect(page.locator("#masks-facts")).not_to_be_empty()  # the screen that was asked for
        page.get_by_role("tab", name="Learn").click()
        expect(page.locator("#run")).to_be_visible()
        expect(page.locator("#banner")).to_contain_text("A recorded example")
        expect(page.locator("#chart-curve .scatterlayer .trace").first).to_be_attached()
        for name in ("pause", "resume", "step", "stop", "fork"):
            expect(page.locator(f"#{name}")).to_be_disabled()
        answer = page.request.get(f"{address}/download/example.zip")
        assert answer.status == 404, "logged in, but the example has no export"
        page.close()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--auth-file", "/no/such"), "which holds no users"), (("--auth", "ada:secret"), "--auth-file FILE"),
        (("--allow", "/no/such"), "no folder"), (("--por", "1"), "--por 1"), (("--allow-origin", "example.org"), "'example.org'"),
        (("--root-path", "https://example.org"), "such as /explorer"), (("--port", "99999"), "another --port"),
        (("--host", "256.1.1.1"), "another --port"),
    ],
)  # fmt: skip
def test_bad_options_are_one_sentence(tmp_path, arguments, words, monkeypatch, capsys):
    for name in (RUN_GB, RUNS_GB):
        monkeypatch.setenv(name, "0")  # which options change for this whole process
    assert main(["--runs", str(tmp_path), *arguments]) == 2
    said = capsys.readouterr().err
    assert words in said and "Traceback" not in said


@pytest.mark.embedded
def test_the_real_model_from_run_to_download(page, site):
    """What the README promises, on the embedded model and corpus, with three steps instead of eighty."""
    start_over(page)
    open_all_settings(page)
    for name, value in (
        ("steps", 3),
        ("windows", 4),
        ("live_windows", 1),
        ("metric_windows", 2),
        ("evaluate_every", 0),
    ):
        fill(page, name, value)
    run = new_run(page, site)
    expect(page.locator("#banner")).to_contain_text("done", timeout=300_000)
    final = run.table("perplexity").query("scope == 'final'").set_index("mask")["perplexity"]
    assert final["dense"] < final["learned"] < final["magnitude"], "three steps beat magnitude by far"
    page.get_by_role("tab", name="Export").click()
    click(page, "export")
    expect(page.locator("#export-report")).to_contain_text("all 26,542,080 groups of 210 layers are 2:4")
    with urllib.request.urlopen(f"{site[0]}/download/{run.id}.zip") as answer:
        size = int(answer.headers["Content-Length"])
        data = answer.read()
    assert len(data) == size
    assert "model.safetensors" in " ".join(zipfile.ZipFile(io.BytesIO(data)).namelist())
