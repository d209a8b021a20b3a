"""A small HTTP server that answers as the Hugging Face Hub does when a model is pushed, and keeps what arrived."""

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_standin"
LARGE = (".safetensors",)  # what goes through LFS; all else lies in the commit


class Hub:
    """repos: {name: {"private", "branches": {branch: {file: bytes}}}}; commits: their headers; requests: method and path of
    each. refuse: {path ends with: (status, message)}."""

    def __init__(self):
        self.repos, self.commits, self.requests, self.refuse, self.blobs = {}, [], [], {}, {}
        self.url = ""

    def answer(self, method, path, body, token):
        """(status, JSON, error message) for a request."""
        self.requests.append(f"{method} {path}")
        for ending, (status, message) in self.refuse.items():
            if path.endswith(ending):
                return status, {"error": message}, message
        if path.startswith("/lfs/"):
            content, oid = body, path.removeprefix("/lfs/")
            assert hashlib.sha256(content).hexdigest() == oid
            self.blobs[oid] = content
            return 200, {}, None
        if token != f"Bearer {TOKEN}":
            return 401, {"error": "Invalid credentials"}, "Invalid credentials"
        given = json.loads(body) if body and path.split("/")[-2] != "commit" else {}
        if path == "/api/repos/create":
            name = f"{given['organization']}/{given['name']}"
            taken = name in self.repos
            private = given.get("visibility") == "private"
            self.repos.setdefault(name, {"private": private, "branches": {"main": {".gitattributes": b""}}})
            return (409 if taken else 200), {"url": f"{self.url}/{name}"}, "You already created this" if taken else None
        if path == "/api/validate-yaml":
            assert given["content"].startswith("---\n") and given["repoType"] == "model"
            return 200, {"errors": [], "warnings": []}, None
        if path.endswith("/info/lfs/objects/batch"):
            objects = [
                {
                    "oid": each["oid"],
                    "size": each["size"],
                    "actions": {"upload": {"href": f"{self.url}/lfs/{each['oid']}"}},
                }
                for each in given["objects"]
            ]
            return 200, {"transfer": "basic", "objects": objects}, None
        _, _, organization, name, *rest = path.strip("/").split("/")
        repo = self.repos.get(f"{organization}/{name}")
        if repo is None:
            return 404, {"error": "Repository not found"}, "Repository not found"
        if not rest or rest[0] == "revision":
            files = repo["branches"][unquote(rest[1]) if rest else "main"]
            return 200, self.info(f"{organization}/{name}", repo, files), None
        if rest[0] == "tree":
            files = repo["branches"][unquote(rest[1])]
            return (
                200,
                [{"type": "file", "path": each, "size": len(files[each]), "oid": "0" * 40} for each in files],
                None,
            )
        if rest[0] == "branch":
            branch = unquote(rest[1])
            repo["branches"].setdefault(branch, dict(repo["branches"]["main"]))
            return 200, {}, None
        if rest[0] == "preupload":
            modes = [
                {
                    "path": each["path"],
                    "uploadMode": "lfs" if each["path"].endswith(LARGE) else "regular",
                    "shouldIgnore": False,
                }
                for each in given["files"]
            ]
            return 200, {"files": modes}, None
        if rest[0] == "commit":
            return 200, self.commit(f"{organization}/{name}", repo["branches"][unquote(rest[1])], body), None
        raise AssertionError(f"{method} {path} is not known")

    def info(self, name, repo, files):
        return {"id": name, "private": repo["private"], "siblings": [{"rfilename": each} for each in files]}

    def commit(self, name, files, body):
        for line in map(json.loads, body.splitlines()):
            kind, value = line["key"], line["value"]
            if kind == "header":
                self.commits.append(value)
            elif kind == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif kind == "lfsFile":
                files[value["path"]] = self.blobs[value["oid"]]
            elif kind == "deletedFile":
                del files[value["path"]]
            else:
                raise AssertionError(kind)
        oid = f"{len(self.commits):040}"
        return {"commitUrl": f"{self.url}/{name}/commit/{oid}", "commitOid": oid}


@contextmanager
def hub_stand_in():
    """The server, on a free port of this machine."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self):
            if "chunked" in self.headers.get("Transfer-Encoding", ""):
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            else:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = urlsplit(self.path).path
            status, content, message = hub.answer(self.command, path, body, self.headers.get("Authorization"))
            data = json.dumps(content).encode()
            self.send_response(status)
            if message:
                self.send_header("X-Error-Message", message)
                if status == 404:
                    self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_HEAD = handle_any

        def log_message(self, *_):
            """Nothing on stderr: a command's is looked at."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
