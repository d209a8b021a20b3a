"""What a page of another site can do to a server on this machine: nothing. Its name may point here, and its forms may be sent here."""

import asyncio
from pathlib import Path

import pytest
from addresses import ADDRESSES

from app.guard import Guard, Served, origin_of
from proxsparse import ProxSparseError

OWN = "127.0.0.1:7860"
HERE, EVERYWHERE, THERE = Served("127.0.0.1"), Served("0.0.0.0"), Served("192.168.1.5")
PROXIED = Served("127.0.0.1", (origin_of("https://Example.org/"), origin_of("http://gpu-box:7860")))
POSTS = ("/gradio_api/queue/join", "/gradio_api/upload", "/login", "/")


@pytest.mark.parametrize(
    ("served", "hosts"),
    [
        (HERE, ["127.0.0.1:7860", "localhost:7860", "LOCALHOST:7860", "[::1]:7860", "localhost", "127.0.0.1:9000", "127.1.2.3"]),
        (Served("localhost"), ["127.0.0.1:7860", "localhost:7860", "[::1]:7860"]),
        (Served("::1"), ["[::1]:7860", "localhost:7860"]),
        (EVERYWHERE, ["10.0.0.7:7860", "192.168.1.5", "8.8.8.8:80", "[2001:db8::1]:7860", "localhost:7860", "127.0.0.1:7860"]),
        (THERE, ["192.168.1.5:7860", "192.168.1.5"]),
        (PROXIED, ["example.org", "EXAMPLE.org:443", "gpu-box:7860", "127.0.0.1:7860", "localhost"]),
        (Served("gpu-box"), ["gpu-box:7860"]),
    ],
)  # fmt: skip
def test_it_answers_under_its_own_addresses(served, hosts):
    assert [host for host in hosts if not served.is_called(host)] == []


REBOUND = [
    "evil.example:7860", "evil.example", "127.0.0.1.evil.example:7860", "localhost.evil.example", "evil.localhost", "localhost.",
    "127.0.0.1@evil.example", "evil.example@127.0.0.1", "127.0.0.1:7860,evil.example", "evil.example#127.0.0.1", "127.0.0.1 evil.example",
    "127.1", "2130706433", "0x7f.1", "0177.0.0.1", "127.0.0.1:99999999", "127.0.0.1:", "[::1", "::1", "[localhost]", "", " ", "*", "..",
    "127.0.0.1\tevil.example", "lοcalhost", "example.org.evil.example", "xn--localhost", "user:pw@localhost",
]  # fmt: skip


@pytest.mark.parametrize("host", REBOUND)
def test_another_name_that_points_here_is_not_answered(host):
    for served in (HERE, EVERYWHERE, THERE, PROXIED, Served("::")):
        assert not served.is_called(host), served


@pytest.mark.parametrize("host", ["10.0.0.7:7860", "0.0.0.0:7860", "[::]:7860", "192.168.1.5"])
def test_for_this_machine_only_means_so(host):
    assert not HERE.is_called(host)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://127.0.0.1:7860", OWN), ("http://localhost:9000", "localhost:9000"), ("https://example.org", OWN),
        ("https://example.org", "example.org"), ("http://gpu-box:7860", "gpu-box:7860"), ("http://[::1]:7860", "[::1]:7860"),
    ],
)  # fmt: skip
def test_own_pages_may_send(origin, host):
    assert PROXIED.is_own(origin, host)


FOREIGN = [
    "http://evil.example", "https://127.0.0.1.evil.example:7860", "null", "", "http://127.0.0.1:3000", "http://localhost:7860", "http://127.0.0.1",
    "https://example.org.evil.example", "https://evil.example/https://example.org", "http://example.org", "https://example.org:8443",
    "file://", "chrome-extension://abc", "ftp://127.0.0.1:7860", "http://127.0.0.1:7860@evil.example", "http://evil.example, http://127.0.0.1:7860",
    "http://127.0.0.1:7860/", "127.0.0.1:7860", "http://[::1]:7860",
]  # fmt: skip


@pytest.mark.parametrize("origin", FOREIGN)
def test_pages_of_others_may_not(origin):
    assert not PROXIED.is_own(origin, OWN)


@pytest.mark.parametrize("origin", FOREIGN)
@pytest.mark.parametrize("path", POSTS)
def test_a_foreign_post_is_refused_in_one_sentence(page, origin, path):
    answer = page.post(path, headers={"Origin": origin}, files={"files": ("a.txt", b"text")})
    assert answer.status_code == 403 and answer.text.count("\n") == 0 and answer.text.endswith(".")
    assert answer.headers["content-type"].startswith("text/plain")
    assert not [name for name in answer.headers if name.startswith("access-control-")]


def stored(folder):
    return {path for path in folder.rglob("*") if path.is_file()}


def test_a_foreign_upload_is_not_stored_and_an_own_one_is(page):
    from gradio.utils import get_upload_folder

    folder = Path(get_upload_folder())
    before = stored(folder)
    for headers in ({"Origin": "http://evil.example"}, {"Host": "evil.example:7860"}, {"Sec-Fetch-Site": "cross-site"}):
        assert page.post("/gradio_api/upload", headers=headers, files={"files": ("a.txt", b"x")}).status_code == 403
    assert stored(folder) == before
    own = page.post("/gradio_api/upload", headers={"Origin": f"http://{OWN}"}, files={"files": ("a.txt", b"own")})
    assert own.status_code == 200 and len(own.json()) == 1


@pytest.mark.parametrize(
    "path", ["/", "/gradio_api/queue/data", "/download/example.zip", "/report/example.html", "/assets/x.js"]
)
@pytest.mark.parametrize("host", ["evil.example:7860", "evil.example", "10.0.0.7:7860"])
def test_a_rebound_name_reads_nothing(page, path, host):
    answer = page.get(path, headers={"Host": host})
    assert answer.status_code == 403 and repr(host) in answer.text


def test_a_forwarded_name_is_held_to_the_same(page):
    for value in ("evil.example", "127.0.0.1, evil.example"):
        assert page.get("/", headers={"X-Forwarded-Host": value}).status_code == 403
    assert page.get("/", headers={"X-Forwarded-Host": "localhost"}).status_code == 200
    assert "evil.example" not in page.get("/", headers={"X-Gradio-Server": "http://evil.example"}).text


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize(
    ("mode", "dest"),
    [
        ("no-cors", "image"),
        ("no-cors", "script"),
        ("navigate", "iframe"),
        ("navigate", "object"),
        ("cors", "empty"),
        ("websocket", ""),
    ],
)
def test_a_foreign_page_embeds_nothing(page, site, mode, dest):
    """A picture of another page whose address is that of a report would cost seconds of a core each."""
    headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode, "Sec-Fetch-Dest": dest}
    for path in ("/", "/report/example.html", "/theme.css"):
        assert page.get(path, headers=headers).status_code == 403


def test_a_link_from_elsewhere_may_be_followed_but_not_a_form(page):
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert page.get("/?run=example", headers=headers).status_code == 200
    assert page.post("/gradio_api/queue/join", headers=headers, json={}).status_code == 403


def test_no_answer_tells_another_site_that_it_may_read(page):
    preflight = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    for path in ("/", *POSTS):
        assert page.options(path, headers=preflight).status_code == 403
    own = page.get("/", headers={"Origin": f"http://{OWN}"})
    assert own.status_code == 200 and not [name for name in own.headers if name.startswith("access-control-")]


def test_everything_goes_through_the_guard(page):
    """Whatever is reachable, with whichever method, is refused to a foreign page."""
    for path in ADDRESSES:
        for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
            assert page.request(method, path, headers={"Origin": "http://evil.example"}).status_code == 403, (
                method,
                path,
            )


@pytest.mark.parametrize(
    "address",
    ["", "example.org", "*", "null", "https://", "https://*.example.org", "ftp://example.org", "https://example.org/path",
     "https://user@example.org", "https://example.org:port", "https://a b", "javascript://x/y"],
)  # fmt: skip
def test_only_whole_addresses_are_allowed_besides(address):
    with pytest.raises(ProxSparseError, match="--allow-origin"):
        origin_of(address)


def test_a_websocket_is_closed_and_goes_no_further():
    async def inner(*_):
        raise AssertionError("reached")

    asyncio.run(Guard(inner, HERE)({"type": "websocket", "headers": []}, None, None))
