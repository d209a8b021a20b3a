"""Sends a served explorer what no page sends, and looks whether an answer tells more than it should.

    python tests/attack/fuzz.py --requests 500 --seed 0

No answer may hold a traceback, the name of an exception, or a path of the server; and in the end the page is still there. Prints a table;
exit code 1 where one of this was so. `unforeseen` counts answers without a sentence (the server said only that something went wrong):
they tell nothing, but each is a value that somebody should have thought of.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import socket
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlencode, urlsplit

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

from counted import counted
from explorer import serve
from made_runs import made_run, set_state
from tiny_models import save_tiny_model, tiny_text

from proxsparse import list_runs

SECONDS = 20  # that an answer may take
LONG, DEEP = "x" * 20_000, json.loads("[" * 60 + "]" * 60)
TEXTS = (
    "", " ", "\0", "a\0b", "\ud800", "\u202etxt.exe", "９", "१e", "nan", "-inf", "1e400", "9" * 5000, "0x10",
    "<script>alert(1)</script>", "'\"><img src=x onerror=alert(1)>", "../../../etc/passwd", "/etc/passwd",
    "~root/.ssh", "~nosuchuser/x", "file:///etc/passwd", "a" * 300, LONG, "%2e%2e%2f", "${HOME}", "{0}", "{{7*7}}",
    "$(id)", "; ls", "none", "example", "run", "run:1:2", "1,2,3", "\n\r\n", "\u0000e9", "org/model",
    "https://evil.example/x", "\\\\evil\\share", "COM1", ".", "..", "-", "--help", "True", "null", "[]", "{}", "0:4",
    "4:0", ":", "2:4:8",
)  # fmt: skip
FILE = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}, "orig_name": "a.txt"}
OTHERS = (
    None, True, False, 0, -1, 1, 3, 2**31, 2**63, 10**30, -1e308, 1e308, 0.1, [], {}, [None], ["", None],
    [[1, 2], [3]], DEEP, {"a": {"b": []}}, FILE, [FILE], {"__type__": "update", "value": 1}, {"path": None},
    {"url": "https://evil.example/", "path": "x"}, [LONG] * 3, ["run"] * 200,
)  # fmt: skip
PATHS = (
    "/", "/download/{}.zip", "/download/{}/{}", "/download/{}/of/{}.zip", "/download/{}/of/{}/{}",
    "/report/{}.html", "/assets/{}", "/static/{}",
    "/gradio_api/heartbeat/{}", "/{}", "/theme.css?{}", "/gradio_api/queue/data?session_hash={}",
    "/gradio_api/file={}", "/login?{}",
)  # fmt: skip
HEADERS = (
    "Cookie", "Accept", "Accept-Language", "Range", "If-None-Match", "If-Modified-Since", "Content-Type",
    "X-Forwarded-For", "X-Forwarded-Proto", "X-Gradio-Server", "X-Gradio-User", "Referer", "Authorization",
    "User-Agent", "Transfer-Encoding", "Content-Length", "Expect", "Upgrade", "Connection", "Sec-Fetch-Site",
    "Origin", "X-Forwarded-Host", "Forwarded", "TE", "Host",
)  # fmt: skip


# One server


class Site:
    """A served explorer, spoken to byte by byte."""

    def __init__(self, address: str, model: Path):
        self.model = str(model)
        self.place = urlsplit(address).hostname, urlsplit(address).port
        page = self.ask("GET", "/").text
        self.config = json.loads(re.search(r"window\.gradio_config = (\{.*?\});</script>", page, re.DOTALL)[1])
        self.values = {each["id"]: each.get("props", {}).get("value") for each in self.config["components"]}
        self.names = {each["id"]: each.get("props", {}).get("elem_id") for each in self.config["components"]}
        self.events = [each for each in self.config["dependencies"] if each.get("backend_fn")]

    def inputs_of(self, event: dict, chance: random.Random) -> list:
        """What the page would send: a run is shown, and one of the screens."""
        known = {
            "run-id": "run", "runs-chosen": "run", "filling": "[0, {}]", "asked": "[0, {}]", "model": self.model, "steps": "4",
            "screen-name": chance.choice(("learn", "masks", "regularizer", "try", "runs", "export")),
        }  # fmt: skip
        return [known.get(self.names.get(id), self.values.get(id)) for id in event["inputs"]]

    def ask(self, method: str, path: str, body: bytes = b"", headers: tuple[tuple[str, str], ...] = ()) -> Answer:
        """What the server says; headers in place of those of the same name that a browser would send."""
        given = {name.lower() for name, _ in headers}
        usual = [("Host", f"{self.place[0]}:{self.place[1]}"), ("Connection", "close")]
        usual += [("Content-Length", str(len(body)))] if method == "POST" else []
        lines = [
            f"{name}: {value}" for name, value in (*headers, *(each for each in usual if each[0].lower() not in given))
        ]
        head = "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode("utf-8", "surrogatepass")
        waits = given & {
            "content-length",
            "transfer-encoding",
            "expect",
            "connection",
        }  # the server may wait for what never comes
        received, deadline = b"", time.monotonic() + (0.5 if waits else SECONDS)
        with socket.create_connection(self.place, SECONDS) as connection:
            try:
                connection.sendall(head + body)
                while (left := deadline - time.monotonic()) > 0:
                    connection.settimeout(left)
                    part = connection.recv(1 << 16)
                    if not part:
                        break
                    received += part
            except (ConnectionError, TimeoutError):
                pass  # it closes without reading what is too much; what it said until then counts
        head, _, text = received.partition(b"\r\n\r\n")
        status = re.match(rb"HTTP/1\.1 (\d{3})", head)
        late = not waits and time.monotonic() >= deadline and b"data: ALIVE" not in received  # a heartbeat has no end
        return Answer(int(status[1]) if status else 0, (head + b"\n\n" + text).decode("utf-8", "replace"), late)

    def send(self, event: dict, data, session: str, query: str = "", **more) -> Answer:
        """What comes of an event of the page."""
        asked = {
            "fn_index": event["id"],
            "data": data,
            "session_hash": session,
            "trigger_id": None,
            "event_data": None,
        } | more
        body = json.dumps(asked).encode()
        joined = self.ask("POST", f"/gradio_api/queue/join{query}", body, (("Content-Type", "application/json"),))
        if joined.status != 200:
            return joined
        return self.ask("GET", f"/gradio_api/queue/data?session_hash={quote(session, safe='')}")


@dataclass
class Answer:
    status: int
    text: str
    late: bool = False  # not whole after SECONDS

    @property
    def is_unforeseen(self) -> bool:
        """Whether it says that something went wrong, and not what."""
        return self.status >= 500 or bool(
            re.search(r'"success":\s*false', self.text) and re.search(r'"error":\s*null', self.text)
        )


# What is sent


def value(chance: random.Random):
    if chance.random() < 0.2:
        return "".join(
            chr(chance.choice((chance.randrange(32), chance.randrange(0x20, 0x7F), chance.randrange(0xD7FF))))
            for _ in range(20)
        )
    return chance.choice(chance.choice((TEXTS, OTHERS)))


def text(chance: random.Random) -> str:
    return chance.choice(TEXTS).encode("utf-8", "surrogatepass").decode("latin-1")[:6000]


def form(site: Site, chance: random.Random, session: str) -> Answer:
    """An event of the page, with one to three of its values replaced."""
    event = chance.choice(site.events)
    data = site.inputs_of(event, chance)
    for index in chance.sample(range(len(data)), min(len(data), chance.randint(1, 3))):
        data[index] = value(chance)
    return site.send(event, data, session)


def address(site: Site, chance: random.Random, session: str) -> Answer:
    """The page opened at an address: its parameters arrive with the first event."""
    opened = next(each for each in site.events if any(target[1] == "load" for target in each["targets"]))
    names = (
        "run",
        "screen",
        "step",
        "layer",
        "compare",
        "beside",
        "chosen",
        "quantity",
        "row",
        "group",
        "to",
        "base",
        "asked",
        "format",
        "tour",
        "<b>",
    )
    query = urlencode({name: text(chance) for name in chance.sample(names, chance.randint(1, 5))}, errors="replace")
    return site.send(opened, [], session, f"?{query[:6000]}")


def join(site: Site, chance: random.Random, session: str) -> Answer:
    """A body that is none, or one whose fields are others than those of the page."""
    event = chance.choice(site.events)
    whole = {"fn_index": event["id"], "data": site.inputs_of(event, chance), "session_hash": session}
    if chance.random() < 0.3:
        whole_one, other = json.dumps(whole).encode(), json.dumps(value(chance)).encode()
        body = chance.choice(
            (b"", b"{", b"null", b"[]", b"\xff\xfe", b"[" * 50_000, other, whole_one[:-7], b'{"data": NaN}')
        )
        kind = chance.choice(
            ("application/json", "text/plain", "multipart/form-data", "application/x-www-form-urlencoded", "")
        )
        return site.ask("POST", "/gradio_api/queue/join", body, (("Content-Type", kind),))
    name = chance.choice(
        (
            "fn_index",
            "data",
            "session_hash",
            "trigger_id",
            "event_data",
            "event_id",
            "batched",
            "simple_format",
            "oauth_token",
            "request",
        )
    )
    whole[name] = chance.choice((value(chance), chance.randrange(-5, 400)))
    answer = site.ask(
        "POST", "/gradio_api/queue/join", json.dumps(whole).encode(), (("Content-Type", "application/json"),)
    )
    if answer.status == 200 and isinstance(whole["session_hash"], str):
        return site.ask(
            "GET",
            f"/gradio_api/queue/data?session_hash={quote(whole['session_hash'].encode('utf-8', 'replace'), safe='')}",
        )
    return answer


def upload(site: Site, chance: random.Random, session: str) -> Answer:
    """A file of any name and content, then the event that keeps it, with that file or another."""
    name, boundary = text(chance), chance.choice(("x", "x", "x", "\x01", ""))
    content = chance.choice(
        (b"", b"words " * 50, b"\0" * 300, b"\xff\xfe\xfd", b'{"text": 1}\n', b"{" * 1000, os.urandom(200))
    )
    ending = chance.choice((".txt", ".jsonl", "", ".exe", ".txt\0"))
    part = f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="{name}{ending}"\r\n\r\n'.encode(
        "latin-1", "replace"
    )
    body = part + content + f"\r\n--{boundary}--\r\n".encode()
    answer = site.ask(
        "POST", "/gradio_api/upload", body, (("Content-Type", f"multipart/form-data; boundary={boundary}"),)
    )
    if answer.status != 200:
        return answer
    path = json.loads(answer.text.partition("\n\n")[2])[0] if chance.random() < 0.7 else chance.choice(TEXTS)
    keeps = next(each for each in site.events if any(target[1] == "upload" for target in each["targets"]))
    return site.send(keeps, [FILE | {"path": path}], session)


def headers(site: Site, chance: random.Random, session: str) -> Answer:
    """Headers that are none, too long, or too many."""
    names = chance.sample(HEADERS, chance.randint(1, 4)) * chance.choice((1, 1, 1, 30))
    given = tuple((name, text(chance).replace("\r", "").replace("\n", "")) for name in names)
    method = chance.choice(("GET", "POST", "HEAD", "PUT", "OPTIONS", "DELETE", "TRACE", "get", "G\0T"))
    return site.ask(
        method, chance.choice(("/", "/gradio_api/queue/join", "/gradio_api/upload")), chance.choice((b"", b"{}")), given
    )


def paths(site: Site, chance: random.Random, session: str) -> Answer:
    """Downloads, reports and files of any name."""
    pattern = chance.choice(PATHS)
    parts = [
        quote(text(chance).encode("latin-1"), safe=chance.choice(("", "/", "/%"))) for _ in range(pattern.count("{}"))
    ]
    return site.ask("GET", pattern.format(*parts)[:8000])


KINDS = {
    "form values": form,
    "addresses": address,
    "queue/join bodies": join,
    "uploads": upload,
    "headers": headers,
    "paths": paths,
}


# What is looked at


@dataclass
class Found:
    """tells: sentences on what an answer gave away."""

    kind: str
    sent: int = 0
    refused: int = 0
    late: list[str] = field(default_factory=list)
    unforeseen: list[str] = field(default_factory=list)
    tells: list[str] = field(default_factory=list)


def told(answer: Answer, secrets: tuple[str, ...]) -> list[str]:
    """What an answer gives away."""
    found = [f"a path: {secret}" for secret in secrets if secret in answer.text]
    found += ["a traceback"] if re.search(r'Traceback \(most recent|File \\?"[^"]+\\?", line \d+', answer.text) else []
    if not re.search(
        r"^content-type: (text/html|text/javascript|text/css)", answer.text, re.MULTILINE
    ):  # their scripts name some
        names = re.findall(r"\b[A-Z][A-Za-z]+(?:Error|Exception|Warning)\b", answer.text)
        found += [f"an exception: {name}" for name in sorted(set(names))]
    return found


PAGE = re.compile(r"<!doctype html>", re.IGNORECASE)


def attack(site: Site, requests: int, chance: random.Random, secrets: tuple[str, ...]) -> list[Found]:
    """Send so many requests, of all kinds in turn."""
    found = {kind: Found(kind) for kind in KINDS}
    for number in range(requests):
        kind = list(KINDS)[number % len(KINDS)]
        answer = KINDS[kind](site, chance, f"fuzz{number}")
        one = found[kind]
        one.sent += 1
        one.refused += answer.status >= 400 or '"success":false' in answer.text.replace(" ", "")
        one.late += [f"request {number} is unanswered: {answer.text[-300:]!r}"] if answer.late else []
        if answer.is_unforeseen:
            one.unforeseen.append(f"request {number}: {answer.text[-300:]!r}")
        one.tells += [f"request {number}: {what}" for what in told(answer, secrets)]
    return [*found.values()]


def table(results: list[Found]) -> str:
    rows = [
        (each.kind, each.sent, each.refused, len(each.late), len(each.unforeseen), len(each.tells)) for each in results
    ]
    return counted(("requests", "sent", "refused", "unanswered", "unforeseen", "told too much"), rows)


def served(folder: Path, log) -> tuple[Site, object, tuple[str, ...], Path]:
    """An explorer over a folder with one run, of a tiny model; returns it with its process, and what no answer may name."""
    runs = folder / "the-runs-folder"
    model = save_tiny_model(folder / "models" / "tiny")
    (folder / "models" / "text.txt").write_text(tiny_text(), encoding="utf-8")
    run = made_run(runs / "run", steps=3, model=str(model), corpus="bundled", device="cpu")
    set_state(run, "stopped", 3)
    address_, process = serve(runs, "--allow", str(folder / "models"), stderr=log, stdout=log)
    return (
        Site(address_, model),
        process,
        (str(runs), str(Path(__file__).parents[2]), sys.prefix, "site-packages"),
        runs,
    )


def end(process, runs: Path) -> None:
    """The server, and the workers that it started."""
    process.terminate()
    process.wait(20)
    for run in list_runs(runs):
        for each in (run, run.export()):
            if each is not None and each.is_alive():
                os.kill(each.state()["pid"], signal.SIGKILL)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", metavar="FILE", help="where the server's log is kept (default: nowhere)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, open(options.log or Path(folder) / "log", "w+") as log:
        site, process, secrets, runs = served(Path(folder), log)
        try:
            results = attack(site, options.requests, random.Random(options.seed), secrets)
            still = PAGE.search(site.ask("GET", "/").text) is not None and process.poll() is None
        finally:
            end(process, runs)
        log.seek(0)
        tracebacks = re.findall(r"Traceback \(most recent.*?\n(?=\S)(?!  )([^\n]*)", log.read(), re.DOTALL)
    for sentence in (each for one in results for each in one.tells + one.late + one.unforeseen):
        print(sentence, file=sys.stderr)
    for line in sorted(set(tracebacks)):
        print(f"logged {tracebacks.count(line)} times: {line}", file=sys.stderr)
    print(table(results))
    print(
        f"\nThe server {'still' if still else 'no longer'} serves; {len(tracebacks)} tracebacks in its log, which no visitor sees."
    )
    return int(not still or any(each.tells for each in results))


if __name__ == "__main__":
    sys.exit(main())
