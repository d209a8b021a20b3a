"""Whatever a served explorer is sent, it tells nothing and goes on serving: a short `fuzz.py`, which sends more."""

import random

import fuzz
import pytest


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    with open(folder / "log", "w") as log:
        site, process, secrets, runs = fuzz.served(folder, log)
        try:
            yield fuzz.attack(site, 60, random.Random(1), secrets)
            assert fuzz.PAGE.search(site.ask("GET", "/").text) and process.poll() is None, "it still serves"
        finally:
            fuzz.end(process, runs)


@pytest.mark.parametrize("kind", fuzz.KINDS)
def test_no_answer_tells_more_than_it_should(results, kind):
    (found,) = [each for each in results if each.kind == kind]
    assert found.sent == 10 and found.tells == []


@pytest.mark.parametrize(
    "text",
    ['Traceback (most recent call last):', 'File "/usr/lib/x.py", line 3, in f', "KeyError: 'run'", "in /home/op/runs/.uploads"],
)  # fmt: skip
def test_what_would_tell_too_much_is_seen(text):
    assert fuzz.told(fuzz.Answer(200, f'{{"error": "{text}"}}'), ("/home/op/runs",)) != []
