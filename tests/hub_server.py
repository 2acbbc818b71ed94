"""A small hub on the loopback interface: the calls with which huggingface_hub makes a repository, commits and reads."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Hub:
    """Repositories by name, each a dict of files; `token` is the one that may write."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.address = ""


@contextmanager
def running(hub: Hub) -> Iterator[Hub]:
    """Serve a hub for as long as the block lasts."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

        def _answer(self, status: int, content: Any = b"", headers: dict[str, str] | None = None) -> None:
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def _body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        def do_POST(self) -> None:
            body = self._body()
            if self.headers.get("Authorization") != f"Bearer {hub.token}":
                self._answer(401, {"error": "Invalid username or password."}, {"X-Error-Message": "Invalid token"})
                return
            parts = self.path.strip("/").split("/")
            if parts[1:] == ["repos", "create"]:
                asked = json.loads(body)
                name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
                exists = name in hub.repositories
                hub.repositories.setdefault(name, {})
                self._answer(409 if exists else 200, {"url": f"{hub.address}/{name}"})
                return
            if parts[1:] == ["validate-yaml"]:  # of a model card
                self._answer(200, {"errors": [], "warnings": []})
                return
            name, call = "/".join(parts[2:4]), parts[4]
            if call == "preupload":
                files = [
                    {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                    for file in json.loads(body)["files"]
                ]
                self._answer(200, {"files": files})
            elif call == "commit":
                for line in filter(None, body.splitlines()):
                    entry = json.loads(line)
                    if entry["key"] == "file":
                        value = entry["value"]
                        hub.repositories[name][value["path"]] = base64.b64decode(value["content"])
                sha = "0" * 40
                self._answer(
                    200, {"success": True, "commitOid": sha, "commitUrl": f"{hub.address}/{name}/commit/{sha}"}
                )
            else:
                self._answer(404, {"error": "no such call"})

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            parts = self.path.split("?")[0].strip("/").split("/")
            name, file = "/".join(parts[:2]), "/".join(parts[4:])
            if name not in hub.repositories:
                self._answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
                return
            if file not in hub.repositories[name]:
                self._answer(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
                return
            content = hub.repositories[name][file]
            tags = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": "0" * 40}
            self._answer(200, content, tags)

    return Handler
