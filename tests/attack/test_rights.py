"""Who may do what: each action of the page, by its owner, by another visitor, by an operator, without logins, and on a page that
only shows."""

import functools
import shutil

import pytest
from made_runs import made_comparison, made_run, set_state

from app.operator import Operator
from app.settings_form import values_of
from app.shell import Shell
from app.visitors import Rights, acting_as
from proxsparse import LearnJob, ProxSparseError, Run
from proxsparse.accounts.user_file import UserFile
from proxsparse.config import SweepPlan
from proxsparse.files import read_json, write_json
from proxsparse.runs import requests

CHANGING = (
    "pause", "stop", "step", "set", "delay", "rename", "delete", "export", "stop comparison", "add to comparison", "export method",
)  # fmt: skip
STARTING = ("start", "start sweep", "start comparison", "learn from method", "fork", "upload", "ask")


@pytest.fixture(scope="module")
def users(tmp_path_factory):
    file = UserFile(tmp_path_factory.mktemp("users") / "users.json")
    for name, role in (("ada", "visitor"), ("bob", "visitor"), ("olga", "operator")):
        file.add(name, "correct horse", role)
    return file


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """A folder with a run of ada's and one of nobody's, and a comparison of each."""
    root = tmp_path_factory.mktemp("fresh") / "runs"
    for name, owner in (("adas", {"owner": "ada"}), ("nobodys", {})):
        run = made_run(root / name, steps=3)
        write_json(run.path / "run.json", read_json(run.path / "run.json") | owner)
        set_state(run, "stopped", 3)
        (run.path / "checkpoints").mkdir()
        (run.path / "checkpoints" / "step-000003.safetensors").write_bytes(b"")
        compared = made_comparison(root / f"{name}-compared", ("magnitude",), status="stopped")
        write_json(compared.path / "run.json", read_json(compared.path / "run.json") | owner)
    return root


@pytest.fixture(scope="module")
def shell_of(tmp_path_factory):
    """(rights) -> the screens, built once for each: all over one folder, whose runs are made anew for every test."""
    root = tmp_path_factory.mktemp("served") / "runs"

    @functools.cache
    def built(rights):
        shell = Shell(Operator(root, rights=rights))
        shell.build()
        return shell

    return root, built


@pytest.fixture
def page(fresh, shell_of, tmp_path, monkeypatch):
    """The screens over fresh runs; what would start a process only says so."""
    root, built = shell_of
    shutil.copytree(fresh, root)
    done = []
    for place in ("proxsparse.runs.run.launch.start", "proxsparse.runs.run.commands.send", "app.screens.export.start_export",
                  "app.screens.compare_row.start_export", "app.screens.compare_add.add_to_comparison",
                  "app.screens.runs.rename", "app.screens.runs.delete", "proxsparse.runs.readers.probe.launch.start"):  # fmt: skip
        monkeypatch.setattr(place, lambda *arguments, place=place, **options: done.append(place))
    monkeypatch.setattr("proxsparse.runs.readers.probe.Probe._left", lambda self, request: done.append("asked"))

    def text():
        """An uploaded file, which is moved when it is kept."""
        (tmp_path / "text.txt").write_text("words " * 100)
        return str(tmp_path / "text.txt")

    def made(rights):
        screens = {screen.name: screen for screen in built(rights).screens}
        learn, ask, listed, export, sweep, compare = (
            screens[name] for name in ("learn", "try", "runs", "export", "sweep", "compare")
        )
        compared = ["embedded", "bundled", "", [], ["magnitude"], [], "", []]
        compared += [field.value for field in compare.form.fields]
        form = values_of(LearnJob())
        swept = ["0.1", "0.001", "grid", "none", "", "1", "16", "embedded", "bundled", "8", *form]
        return done, {
            **{name: lambda id, name=name: learn.send(name, id) for name in ("pause", "stop", "step")},
            "set": lambda id: learn.set_strength(id, 0.1), "delay": lambda id: learn.set_delay(id, 1.0),
            "rename": lambda id: listed.renamed(id, "other", id) if not done else None, "delete": lambda id: listed.deleted(id, id),
            "export": lambda id: export.export(id, "dense"), "start": lambda id: learn.start("embedded", "bundled", [], *form),
            "fork": lambda id: learn.branches.fork(id, "3", [], *values_of(Run(root / id).job())),
            "start sweep": lambda id: sweep.start(*swept), "start comparison": lambda id: compare.begin(*compared),
            "stop comparison": lambda id: compare.send("stop", f"{id}-compared"),
            "add to comparison": lambda id: compare.adding.grow(f"{id}-compared", ["wanda"], [], "", []),
            "export method": lambda id: compare.row.export_it(f"{id}-compared", "magnitude", "dense"),
            "learn from method": lambda id: compare.row.learn_from(f"{id}-compared", "magnitude"),
            "upload": lambda id: learn.form.keep_text(text()), "ask": lambda id: ask.asked_prompt(id, "A", "last", 3),
        }  # fmt: skip

    yield made
    shutil.rmtree(root)


def allowed(call, id, done):
    before = len(done)
    try:
        call(id)
    except ProxSparseError as error:
        assert "belongs to" in str(error) or "only shows runs" in str(error), str(error)
        return False
    except AttributeError:  # of what a start that only says so returns
        assert len(done) > before
    return True


@pytest.mark.parametrize("id", ["adas", "nobodys"])
@pytest.mark.parametrize("action", CHANGING + STARTING)
@pytest.mark.parametrize("name", ["ada", "bob", "olga", None, "mallory"])
def test_a_run_is_changed_by_its_owner_and_by_operators(page, users, name, action, id):
    done, actions = page(Rights(users))
    with acting_as(name):
        expected = action in STARTING or name == "olga" or (name == "ada" and id == "adas")
        assert allowed(actions[action], id, done) is expected


@pytest.mark.parametrize("action", CHANGING + STARTING)
def test_without_logins_everybody_may_do_everything(page, action):
    done, actions = page(Rights())
    for id in ("adas", "nobodys"):
        assert allowed(actions[action], id, done)


@pytest.mark.parametrize("name", [None, "ada", "olga"])
@pytest.mark.parametrize("action", CHANGING + STARTING)
def test_a_page_that_only_shows_starts_and_changes_nothing(page, users, action, name):
    done, actions = page(Rights(users, read_only=True))
    with acting_as(name):
        assert not allowed(actions[action], "adas", done)
    assert done == []


def test_what_is_started_belongs_to_who_started_it(page, users, shell_of):
    _, actions = page(Rights(users))
    with acting_as("bob"):
        actions["start"]("adas")
        actions["fork"]("adas")
        actions["start sweep"]("adas")
        actions["start comparison"]("adas")
        actions["learn from method"]("adas")
    made = [
        Run(path.parent)
        for path in shell_of[0].glob("*/run.json")
        if not path.parent.name.startswith(("adas", "nobodys"))
    ]
    assert [run.header()["owner"] for run in made] == ["bob"] * 5


@pytest.mark.parametrize("command", ["pause", "resume", "stop"])
@pytest.mark.parametrize(("name", "may"), [("ada", True), ("bob", False), ("olga", True), (None, False)])
def test_a_sweep_is_steered_by_its_owner_and_by_operators(users, tmp_path, monkeypatch, command, name, may):
    content = {"sweep": LearnJob().to_dict(), "plan": SweepPlan().to_dict()}
    Run.create_kind("sweep", content, tmp_path / "adas", "ada")
    done = []
    for place in ("proxsparse.runs.run.launch.start", "proxsparse.runs.run.commands.send"):
        monkeypatch.setattr(place, lambda *arguments, **options: done.append(arguments))
    sweep = next(each for each in Shell(Operator(tmp_path, rights=Rights(users))).screens if each.name == "sweep")
    with acting_as(name):
        assert allowed(lambda id: sweep.send(command, id), "adas", done) is may is bool(done)


def test_a_page_says_what_its_visitor_may_do(users):
    assert "may start, change and delete runs" in Rights().told(None)
    assert "nothing is started" in Rights(read_only=True).told(None)
    assert "an operator" in Rights(users).told("olga") and "ada" in Rights(users).told("ada")
    assert "<script>" not in Rights(users).told("<script>")


def test_every_handler_that_acts_is_tried_here():
    """The commands of the page, and the kinds of requests: a new one has to be added above."""
    from app.screens.learn import COMMANDS

    assert set(COMMANDS) == {"pause", "resume", "step", "gradient", "prox", "stop"}  # all of them by `send`
    assert set(requests.KINDS) == {"prompt", "ranking", "what-if"}  # all of them by `asked_probe`
