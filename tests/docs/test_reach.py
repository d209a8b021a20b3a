"""A reader finds every page in two clicks, and the answers to usual questions in one."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path.cwd()
FAQ = ROOT / "docs/explain/faq.md"


def linked(page):
    """The pages that a page links to, whatever the place in them."""
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
    return {(page.parent / link).resolve() for link in links if link.endswith(".md")}


def clicks(start):
    """{page: least number of clicks} from a page, by the links in the text: without a sidebar, as a code host shows it."""
    found, edge = {start: 0}, {start}
    while edge:
        edge = {page for one in edge for page in linked(one)} - found.keys()
        found |= dict.fromkeys(edge, max(found.values()) + 1)
    return found


@pytest.mark.parametrize("start", ["README.md", "docs/index.md"])
def test_every_page_is_two_clicks_away_and_the_questions_one(start):
    away = clicks(ROOT / start)
    pages = set((ROOT / "docs").rglob("*.md")) - {ROOT / "docs/index.md"}
    assert {str(page.relative_to(ROOT)): away.get(page) for page in pages if away.get(page, 9) > 2} == {}
    assert away[FAQ] == 1


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them: punctuation goes, spaces become hyphens."""
    headings = re.findall(
        r"^#+ (.*)$",
        re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE),
        re.MULTILINE,
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_can_be_read_on_a_code_host(page):
    """Links to headings lead to one, formulas have no command that GitHub refuses, and what the site's build fills in is announced."""
    text = page.read_text(encoding="utf-8")
    for path, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)#([^)\s]+)\)", text):
        assert anchor in anchors(page.parent / path if path else page), f"{path}#{anchor}"
    assert r"\operatorname" not in text
    if re.search(r"^<!-- \w|^```\{(?:eval-rst|toctree)", text, re.MULTILINE):
        assert re.search(r"^> Read as a file ", text, re.MULTILINE)


def test_every_answer_is_a_short_one_that_leads_on():
    answers = re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", FAQ.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert len(answers) >= 12
    for question, answer in answers:
        assert len(answer.split()) < 120, question
        assert re.search(r"\]\(\S+\.md|`(verify|--\w+|proxsparse \w+)|```", answer), question


def test_the_account_to_be_replaced_stands_where_the_command_replaces_it():
    """The lessons are made from pyproject.toml. Once it is replaced it stands nowhere."""
    (command,) = re.findall(r"^sed .*$", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.MULTILINE)
    named = set(re.findall(r"[\w./-]+\.(?:toml|txt)", command))
    tracked = subprocess.run(["git", "grep", "-l", "YOUR_ACCOUNT/"], capture_output=True, text=True, check=False)
    if tracked.returncode:
        pytest.skip("no git here")
    files = {
        name for name in tracked.stdout.split() if not name.endswith((".ipynb", "CONTRIBUTING.md", "test_reach.py"))
    }
    assert files in (named, set()) and command.endswith("&& make lessons")
