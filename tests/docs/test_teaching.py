"""The plans of docs/how-to/teach.md are those of the lessons: sections, exercises, and the numbers of the instructor's edition."""

import re
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest

PAGE = Path("docs/how-to/teach.md").read_text(encoding="utf-8")
PLANS = dict(re.findall(r"^### (\d\d), [^\n]*\n(.*?)(?=^##)", PAGE, re.DOTALL | re.MULTILINE))
LESSONS = {path.name[:2]: nbformat.read(path, as_version=4) for path in sorted(Path("notebooks").glob("[0-9]*.ipynb"))}
NUMBER = re.compile(r"\d[\d,.]*\d(?:e-\d+)?")  # of two digits or more
every_plan = pytest.mark.parametrize("lesson", LESSONS)


def rows(lesson):
    """(first minute, last minute, sections, what to do) of a plan."""
    found = re.findall(r"^\| (\d+)–(\d+) \| ([^|]*) \| ([^|]*) \|$", PLANS[lesson], re.MULTILINE)
    return [(int(first), int(last), sections.split("; "), to_do) for first, last, sections, to_do in found]


def headings(lesson):
    return re.findall(r"^#+ (.*)$", "\n".join(cell.source for cell in LESSONS[lesson].cells), re.MULTILINE)


def shown(lesson):
    """All that a reader of the instructor's edition sees, without the marks of bold print."""
    texts = []
    for cell in LESSONS[lesson].cells:
        texts.append(cell.source)
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            texts += [output.get("text", ""), data.get("text/plain", ""), data.get("text/html", "")]
    return "\n".join(texts).replace("**", "")


def test_every_lesson_has_a_plan():
    assert PLANS.keys() == LESSONS.keys()


@every_plan
def test_a_plan_takes_fifty_minutes_without_a_gap(lesson):
    times = [row[:2] for row in rows(lesson)]
    assert times[0][0] == 0 and times[-1][1] == 50
    assert all(end == begin for (_, end), (begin, _) in pairwise(times))


@every_plan
def test_a_plan_names_sections_of_its_lesson_in_their_order(lesson):
    found = headings(lesson)
    places = []
    for section in (section for row in rows(lesson) for section in row[2]):
        begins = [index for index, heading in enumerate(found) if heading.lower().startswith(section.lower())]
        assert begins, section
        places.append(begins[0])
    assert places == sorted(places)


@every_plan
def test_a_plan_has_every_exercise(lesson):
    wanted = {heading.split()[1].rstrip(":,") for heading in headings(lesson) if heading.startswith("Exercise ")}
    named = re.findall(r"xercises? (\d)(?: and (\d))?", "".join(" ".join(row[2]) + row[3] for row in rows(lesson)))
    assert {number for numbers in named for number in numbers if number} == wanted


def questions(lesson):
    """Each with its answer."""
    return re.findall(r"^- (.*?)(?=^- |\Z)", PLANS[lesson], re.DOTALL | re.MULTILINE)


@every_plan
def test_questions_have_answers_and_their_numbers_are_in_the_lesson(lesson):
    asked = questions(lesson)
    assert len(asked) >= 3 and all("→" in each for each in asked)
    assert NUMBER.findall(" ".join(asked))
    assert set(NUMBER.findall(" ".join(asked))) <= set(NUMBER.findall(shown(lesson)))
