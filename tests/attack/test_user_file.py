"""The file of users: no password in it, nobody else reads it, and nothing that is written into it by hand does harm."""

import io
import json
import os
import stat
import sys
import threading

import pytest

from proxsparse import ProxSparseError
from proxsparse.accounts import passwords
from proxsparse.accounts.user_file import UserFile
from proxsparse.cli import main

PASSWORD = "correct horse"


@pytest.fixture(autouse=True)
def cheap(monkeypatch):
    """scrypt as it is, at the price of a test."""
    monkeypatch.setattr(passwords.HashedPassword.__init__, "__defaults__", (16, 8, 1))


@pytest.fixture
def file(tmp_path):
    return tmp_path / "users.json"


def test_the_costs_are_those_that_owasp_lists():
    assert (passwords.COST, passwords.BLOCK, passwords.PARALLEL) == (2**15, 8, 3)


def test_a_password_is_in_no_file_and_equal_ones_look_different(file):
    UserFile(file).add("ada", PASSWORD)
    UserFile(file).add("bob", PASSWORD, "operator")
    assert PASSWORD not in file.read_text()
    ada, bob = UserFile(file).users().values()
    assert ada.password.salt != bob.password.salt and ada.password.hash != bob.password.hash
    assert UserFile(file).check("ada", PASSWORD).role == "visitor" and UserFile(file).role_of("bob") == "operator"
    assert UserFile(file).check("ada", PASSWORD + " ") is None and UserFile(file).check("eve", PASSWORD) is None


def test_an_unknown_name_costs_as_much_as_a_known_one(file, monkeypatch):
    UserFile(file).add("ada", PASSWORD)
    asked, scrypt = [], passwords.hashlib.scrypt
    monkeypatch.setattr(passwords.hashlib, "scrypt", lambda *a, **k: (asked.append(k["n"]), scrypt(*a, **k))[1])
    for name in ("ada", "eve"):
        UserFile(file).check(name, "wrong horse")
    assert len(asked) == 2 and asked[0] == asked[1]


def test_nobody_else_can_read_it_not_for_a_moment(file, monkeypatch):
    """Looked at after every change of a name or mode that the writing makes, with a umask that forbids nothing."""
    seen = []

    def look(*_):
        for path in file.parent.rglob("*users*"):
            private = any(not parent.stat().st_mode & 0o077 for parent in path.parents if parent != file.parent)
            if path.is_file():
                seen.append(private or not path.stat().st_mode & 0o077)

    def watched(name):
        function = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, **k: (look(), function(*a, **k), look())[1])

    for name in ("replace", "chmod", "fsync"):
        watched(name)
    before = os.umask(0)
    try:
        for name in ("ada", "bob"):
            UserFile(file).add(name, PASSWORD)
    finally:
        os.umask(before)
    assert seen and all(seen)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and [*file.parent.iterdir()] == [file]


def test_who_is_taken_out_is_out_at_once(file):
    reader = UserFile(file)
    UserFile(file).add("ada", PASSWORD)
    assert reader.role_of("ada") == "visitor"
    UserFile(file).remove("ada")
    assert reader.role_of("ada") is None and reader.check("ada", PASSWORD) is None


@pytest.mark.parametrize("name", ["", " ", "a b", "../x", "-x", "<b>", "a\n", "a\x00", "é", "x" * 65])
def test_names_that_may_be_misread_are_refused(file, name):
    with pytest.raises(ProxSparseError, match="cannot be used"):
        UserFile(file).add(name, PASSWORD)
    assert not file.exists()


@pytest.mark.parametrize("password", ["", "short", "x" * 1025])
def test_a_refused_password_is_not_repeated(file, password):
    with pytest.raises(ProxSparseError, match=f"has {len(password)} characters") as caught:
        UserFile(file).add("ada", password)
    assert not password or password not in str(caught.value)


def bad(**changes):
    user = {"role": "visitor", "password": {"salt": "00" * 32, "hash": "00" * 32, "n": 16, "r": 8, "p": 1}}
    user["password"] |= {name: value for name, value in changes.items() if name != "role"}
    return {"version": 1, "users": {"ada": user | {"role": changes.get("role", "visitor")}}}


@pytest.mark.parametrize(
    "content",
    [
        [], {}, {"version": 1}, {"version": 2, "users": {}}, {"version": 1, "users": []}, {"version": 1, "users": {"ada": 1}},
        bad(n=2**30), bad(r=2**20), bad(p=10**6), bad(n=0), bad(n="16"), bad(n=17), bad(n=1), bad(p=True), bad(more=1), bad(salt=""),
        bad(hash=""), bad(hash="xy"), bad(salt=None), bad(role="god"),
    ],
)  # fmt: skip
def test_a_damaged_file_lets_nobody_in(file, content):
    file.write_text(json.dumps(content))
    for ask in (lambda users: users.check("ada", PASSWORD), lambda users: users.role_of("ada")):
        with pytest.raises(ProxSparseError):
            ask(UserFile(file))


def test_two_readers_at_once_agree(file):
    users, found = UserFile(file), []
    users.add("ada", PASSWORD)
    threads = [threading.Thread(target=lambda: found.append(users.check("ada", PASSWORD))) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(found) == 8 and all(found)


def test_the_command_reads_the_password_from_stdin_and_never_prints_it(file, monkeypatch, capsys):
    def call(*arguments, typed=""):
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        return main(["auth", *arguments, "--file", str(file)]), capsys.readouterr()

    assert call("add", "ada", "--operator", typed=PASSWORD + "\n")[0] == 0
    code, said = call("list", "--json")
    assert code == 0 and json.loads(said.out) == {"ada": "operator"}
    code, said = call("add", "bob", typed="short\n")
    assert code == 2 and "5 characters" in said.err and "short" not in said.err
    assert call("remove", "bob")[0] == 2 and call("remove", "ada")[0] == 0
    code, said = call("add", "bob", "--password", PASSWORD)
    assert code == 2, "a password is not taken from the command line"
