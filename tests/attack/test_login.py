"""Guessing passwords, getting in without one, staying in after one was taken away."""

import asyncio
import time

import httpx
import pytest
from addresses import ADDRESSES
from starlette.testclient import TestClient

from app.login import FORM_BYTES, Login, _network
from app.throttle import FORGOTTEN, LONGEST, MOST, Throttle
from proxsparse.accounts import passwords
from proxsparse.accounts.user_file import UserFile

PASSWORD = "correct horse"
ADDRESS = "http://127.0.0.1:7860"


@pytest.fixture(scope="module", autouse=True)
def cheap():
    """scrypt as it is, at the price of a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passwords.HashedPassword.__init__, "__defaults__", (16, 8, 1))
        yield


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def users(tmp_path):
    users = UserFile(tmp_path / "users.json")
    users.add("ada", PASSWORD)
    users.add("bob", PASSWORD, "operator")
    return users


async def behind(scope, receive, send):
    """Stands for the page: tells under which name the login let somebody through."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["state"]["name"].encode()})


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def login(users, clock):
    return Login(behind, users, 7860, Throttle(clock))


def client(login, address="10.0.0.1"):
    return TestClient(login, base_url=ADDRESS, client=(address, 1), follow_redirects=False)


def attempt(client, name="ada", password=PASSWORD, query=""):
    return client.post(f"/login{query}", data={"name": name, "password": password})


def test_who_knows_the_password_gets_in_and_arrives_where_they_wanted(login):
    visitor = client(login)
    sent = visitor.get("/?run=first&screen=masks")
    assert sent.status_code == 303 and sent.headers["location"] == "./login?run=first&screen=masks"
    answer = attempt(visitor, query="?run=first&screen=masks")
    assert answer.status_code == 303 and answer.headers["location"] == "./?run=first&screen=masks"
    assert visitor.get("/").text == "ada"
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie and "Max-Age=43200" in cookie


@pytest.mark.parametrize(
    "query",
    ["?//evil.example", "?next=https://evil.example", "?@evil.example", "?\\evil.example", "?%0d%0aA:b"],
)
def test_the_way_on_leads_nowhere_else(login, query):
    answer = attempt(client(login), query=query)
    assert answer.headers["location"].startswith("./?") and answer.headers.get_list("set-cookie")[0].startswith(
        "proxsparse-7860="
    )
    assert len(answer.headers.get_list("set-cookie")) == 1


def test_over_https_the_cookie_is_sent_over_https_only(login):
    visitor = TestClient(login, base_url="https://example.org", client=("10.0.0.1", 1), follow_redirects=False)
    assert "Secure" in attempt(visitor).headers["set-cookie"]


def test_without_a_login_there_is_nothing_but_its_page(made_page, users):
    """Of the whole server: no asset, no event, no upload, no file, whatever else is reachable."""
    cookies = {"proxsparse-7860": "wrong", "access-token-x": "wrong"}
    with TestClient(made_page(users=users), base_url=ADDRESS, cookies=cookies, follow_redirects=False) as visitor:
        for path in ADDRESSES[1:]:
            for method in ("GET", "POST", "HEAD", "PUT"):
                assert visitor.request(method, path).status_code == 401, (method, path)
        assert visitor.get("/").headers["location"] == "./login" and visitor.post("/").status_code == 401
        page = visitor.get("/login")
        assert page.status_code == 200 and "gradio" not in page.text.lower()
        assert visitor.post("/login", headers={"Origin": "http://evil.example"}, data={}).status_code == 403
        assert attempt(visitor).status_code == 303
        assert "gradio_config" in visitor.get("/").text and '"username":"ada"' in visitor.get("/").text
        assert visitor.get("/download/example.zip").status_code == 404, "logged in, but the example has no export"
        assert visitor.get("/monitoring").status_code == 404


@pytest.mark.parametrize(
    "cookie", ["", "a", "None", "0" * 43, "ada", "../ada", "\x7f", "a" * 100_000, "proxsparse-7860"]
)
def test_a_made_up_cookie_opens_nothing(login, cookie):
    attempt(client(login))
    stranger = client(login)
    assert stranger.get("/x", headers={"Cookie": f"proxsparse-7860={cookie}"}).status_code == 401


def test_who_is_taken_out_or_changed_is_out_at_once(login, users):
    for change in (
        lambda: users.remove("ada"),
        lambda: users.add("ada", "another horse"),
        lambda: users.add("ada", PASSWORD, "operator"),
        lambda: users.path.unlink(),
    ):
        users.add("ada", PASSWORD)
        visitor = client(login)
        attempt(visitor)
        assert visitor.get("/x").status_code == 200
        change()
        assert visitor.get("/x").status_code == 401


def test_a_session_ends(login, monkeypatch):
    visitor = client(login)
    attempt(visitor)
    later = time.monotonic() + 12 * 60 * 60 + 1
    monkeypatch.setattr("app.login.time.monotonic", lambda: later)
    assert visitor.get("/x").status_code == 401


def test_sessions_take_no_more_memory_than_they_may(login, users, monkeypatch):
    monkeypatch.setattr("app.login.MOST_SESSIONS", 3)
    first = client(login)
    attempt(first)
    for _ in range(5):
        attempt(client(login))
    assert len(login._sessions) == 3 and first.get("/x").status_code == 401


def test_a_damaged_file_lets_nobody_in_and_tells_nothing(login, users, capsys):
    visitor = client(login)
    attempt(visitor)
    users.path.write_text("{")
    for answer in (visitor.get("/x"), attempt(visitor)):
        assert answer.status_code == 503 and "users.json" not in answer.text
    assert "damaged" in capsys.readouterr().err


def test_wrong_guesses_wait_longer_and_longer(login, clock):
    guesser, begun, looked_at = client(login), clock.now, 0
    while clock.now < begun + 60 * 60:
        answer = attempt(guesser, password="wrong horse")
        looked_at += answer.status_code == 401
        if answer.status_code == 429:
            assert int(answer.headers["retry-after"]) <= LONGEST and "try again in" in answer.text
        clock.now += 10
    assert looked_at <= 3 + 10 + 60 * 60 / LONGEST, "in an hour"


def test_a_name_is_guarded_from_everywhere_and_an_address_under_every_name(login, clock):
    looked_at = sum(attempt(client(login, f"10.0.1.{n}"), password="wrong horse").status_code == 401 for n in range(50))
    assert looked_at == 3, "one name, fifty addresses"
    looked_at = sum(attempt(client(login, "10.0.2.1"), f"user{n}").status_code == 401 for n in range(50))
    assert looked_at == 3, "one address, fifty names, known or not"


def test_who_logged_in_from_there_before_is_not_kept_out_by_others(login, clock):
    home = client(login, "10.0.0.9")
    assert attempt(home).status_code == 303
    for n in range(20):
        attempt(client(login, f"10.0.1.{n}"), password="wrong horse")
    assert attempt(client(login, "10.0.1.99")).status_code == 429
    assert attempt(home).status_code == 303


def test_a_right_guess_in_between_does_not_pay_for_wrong_ones(login, clock):
    """Somebody with a login of their own logs in between guesses at another's."""
    looked_at = 0
    for n in range(60):
        attempt(client(login), "bob")
        looked_at += attempt(client(login), f"ada{n}", "wrong horse").status_code == 401
    assert looked_at == 3


def test_a_thousand_guesses_at_once_are_a_few(login):
    async def all_at_once():
        transport = httpx.ASGITransport(login, client=("10.0.0.1", 1))
        async with httpx.AsyncClient(transport=transport, base_url=ADDRESS) as guesser:
            data = {"name": "ada", "password": "wrong horse"}
            return await asyncio.gather(*(guesser.post("/login", data=data) for _ in range(1000)))

    codes = [answer.status_code for answer in asyncio.run(all_at_once())]
    assert codes.count(401) <= 3 and set(codes) <= {401, 429, 503}


def test_the_answer_does_not_say_whether_a_name_is_known(login):
    known, unknown = (
        attempt(client(login, f"10.9.0.{n}"), name, "wrong horse") for n, name in enumerate(("ada", "eve"))
    )
    assert (known.status_code, known.text) == (unknown.status_code, unknown.text)


def test_an_ipv6_visitor_has_one_address():
    assert _network("2001:db8::1") == _network("2001:db8::ffff:1") != _network("2001:db8:0:1::1")
    assert _network("10.0.0.1") != _network("10.0.0.2") and _network("testclient") == "testclient"


def test_the_throttle_forgets_what_is_old_and_what_was_guessed_least():
    clock = Clock()
    throttle = Throttle(clock)
    for _ in range(5):
        assert throttle.wait("ada") in (0.0, 1.0)
        clock.now += 2
    for n in range(MOST + 50):
        throttle.wait(n)
    assert len(throttle._guesses) <= MOST and throttle.wait("ada") > 0, "many other names do not push this one out"
    clock.now += FORGOTTEN
    assert throttle.wait("ada") == 0


FORM = "application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", FORM), (b"name=ada", FORM), (b"name=ada&password=a&password=b", FORM), (b"&".join([b"name=ada"] * 100), FORM),
        (b"name=ada&password=\xff", FORM), (b"name=ada&password=" + b"x" * FORM_BYTES, FORM),
        (b"name=ada&password=" + b"x" * 1025, FORM), (b"name=" + b"a" * 65 + b"&password=a", FORM),
        (b"name=ada&password=correct+horse", "text/plain"), (b'{"name": "ada", "password": "correct horse"}', "application/json"),
        (b'--b\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\nx\r\n--b--', "multipart/form-data; boundary=b"),
    ],
)  # fmt: skip
def test_what_is_no_form_of_the_page_is_refused_unread(login, content, kind):
    answer = client(login).post("/login", content=content, headers={"Content-Type": kind})
    assert answer.status_code == 400 and not login._sessions


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS"])
def test_the_login_is_read_or_posted(login, method):
    assert client(login).request(method, "/login").status_code == 405


@pytest.mark.parametrize("way", [("--auth", "ada:secret"), ("--auth",), ("--auth-file", "/no/such")])
def test_a_password_on_the_command_line_is_refused_with_the_way_out(way, capsys, monkeypatch):
    from app.main import main

    assert main([*way]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "proxsparse auth add NAME --file FILE" in said and "secret" not in said


def test_so_is_one_in_the_environment(capsys, monkeypatch):
    from app.main import main

    monkeypatch.setenv("PROXSPARSE_AUTH", "ada:secret")
    assert main([]) == 2
    said = capsys.readouterr().err
    assert "$PROXSPARSE_AUTH is no longer taken" in said and "--auth-file FILE" in said and "secret" not in said
