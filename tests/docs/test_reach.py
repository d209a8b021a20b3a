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
