"""The documentation site: built without a warning, every link leads somewhere, nothing is fetched from another host."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import proxsparse

DOCS = Path("docs")


class Page(HTMLParser):
    """The ids of a page, its links, and what a browser fetches for it."""

    def __init__(self, path: Path):
        super().__init__()
        self.ids, self.links, self.fetched = set(), [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids.add(found.get("id"))
        if tag == "a":
            self.links.append(found.get("href") or "")
        self.fetched += [found[name] for name in ("src", "data") if name in found]
        if tag == "link" and found.get("rel") in ("stylesheet", "icon", "preload"):
            self.fetched.append(found["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """{path: page} of all pages, built with warnings as errors."""
    folder = tmp_path_factory.mktemp("site")
    command = [
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-E",
        "-q",
        "-b",
        "html",
        "-d",
        folder / "trees",
        DOCS,
        folder / "html",
    ]
    built = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=300)
    assert built.returncode == 0, built.stderr
    return {path: Page(path) for path in (folder / "html").rglob("*.html")}


def test_every_page_is_in_the_site(site):
    (home,) = (path for path in site if path.name == "index.html" and path.parent.name == "html")
    built = {path.relative_to(home.parent).with_suffix("") for path in site}
    written = {path.relative_to(DOCS).with_suffix("") for path in DOCS.rglob("*.md")}
    assert written <= built and len(written) > 15


def test_every_link_leads_somewhere(site):
    followed = 0
    for path, page in site.items():
        for link in page.links:
            address = urlsplit(link)
            if address.scheme or not (address.path or address.fragment):
                continue
            target = (path.parent / unquote(address.path)).resolve() if address.path else path
            assert target.exists(), f"{path.name} links to {link}"
            if address.fragment and target in site:
                assert unquote(address.fragment) in site[target].ids, f"{path.name} links to {link}"
            followed += 1
    assert followed > 300


def test_the_page_on_teaching_lists_every_lesson(site):
    (page,) = (path for path in site if path.name == "teach.html")
    text, lessons = page.read_text(encoding="utf-8"), sorted(Path("notebooks").glob("[0-9]*.ipynb"))
    assert lessons and all(re.search(rf"<td[^>]*><p>{lesson.name[:2]} ", text) for lesson in lessons)


MEASURED = """() => ({
    beyond: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    narrow: [...document.querySelectorAll("td")].filter((cell) => cell.textContent.length > 120 && cell.clientWidth < 130)
        .map((cell) => cell.textContent),
})"""


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1440])
def test_no_page_is_wider_than_the_window_and_paragraphs_in_tables_have_room(site, browser, width):
    page = browser.new_page(viewport={"width": width, "height": 900})
    for path in site:
        page.goto(path.as_uri())
        found = page.evaluate(MEASURED)
        assert found["beyond"] <= 0, path.name
        assert not found["narrow"], f"{path.name}: {found['narrow'][0]}"


def test_nothing_is_fetched_from_another_host(site):
    for path, page in site.items():
        assert page.fetched
        for address in page.fetched:
            assert not urlsplit(address).netloc, f"{path.name} fetches {address}"
    (styles,) = {path.parent / "_static" for path in site if (path.parent / "_static").is_dir()}
    for sheet in styles.rglob("*.css"):
        assert "url(http" not in sheet.read_text(encoding="utf-8") and "url(//" not in sheet.read_text(encoding="utf-8")


def test_the_reference_has_every_public_name_command_and_setting(site):
    from proxsparse.config import LearnConfig
    from proxsparse.settings import settings_of

    (python,) = (page for path, page in site.items() if path.name == "python.html" and path.parent.name == "reference")
    assert {f"proxsparse.{name}" for name in proxsparse.__all__} <= python.ids
    text = {path.name: path.read_text(encoding="utf-8") for path in site if path.parent.name == "reference"}
    for setting in settings_of(LearnConfig).values():
        for page in ("settings.html", "command-line.html"):
            assert re.search(rf"--{setting.flag}\b", text[page]), f"{page} lacks --{setting.flag}"
    (commands,) = (
        page for path, page in site.items() if path.name == "command-line.html" and path.parent.name == "reference"
    )
    assert {"learn", "compare", "sweep", "export", "verify", "bench", "app", "auth-add"} <= commands.ids
