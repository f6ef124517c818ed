"""The part of the Hugging Face hub that uploads and downloads use, on this machine."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

REVISION = "a" * 40


@dataclass
class Hub:
    """``repositories``: USER/REPO -> file name -> content. ``asked``: every request, in order."""

    address: str = ""
    token: str = "hf_secret"
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def answer(self, method: str, path: str, token: str | None, body: bytes) -> tuple[int, bytes]:
        """Status and content."""
        if token != f"Bearer {self.token}" and method == "POST":
            return 401, b""
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = "/".join(filter(None, (asked.get("organization", "user"), asked["name"])))
            self.repositories.setdefault(name, {})
            return 200, json.dumps({"url": f"{self.address}/{name}", "name": name}).encode()
        if path == "/api/validate-yaml":
            return 200, json.dumps({"errors": [], "warnings": []}).encode()
        found = re.fullmatch(r"(?:/api/models)?/([\w.-]+/[\w.-]+)/(\w+)/([\w./-]+)", path)
        files = self.repositories.get(found[1]) if found else None
        if found is None or files is None or (found[2] in ("revision", "tree") and found[3] not in ("main", REVISION)):
            return 404, b""
        name, what = found[1], found[2]
        if what == "revision":
            return 200, json.dumps(
                {"id": name, "sha": REVISION, "siblings": [{"rfilename": f} for f in files]}
            ).encode()
        if what == "tree":
            listed = [{"type": "file", "path": f, "size": len(c), "oid": "b" * 40} for f, c in files.items()]
            return 200, json.dumps(listed).encode()
        if what == "preupload":  # small files travel inside the commit
            wanted = [{"path": f["path"], "uploadMode": "regular"} for f in json.loads(body)["files"]]
            return 200, json.dumps({"files": [w | {"shouldIgnore": False} for w in wanted]}).encode()
        if what == "commit":
            for line in body.decode().splitlines():
                entry: dict[str, Any] = json.loads(line)
                if entry["key"] == "file":
                    files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            url = f"{self.address}/{name}/commit/{REVISION}"
            return 200, json.dumps({"success": True, "commitOid": REVISION, "commitUrl": url}).encode()
        file = found[3].rsplit("/", 1)[-1]
        return (200, files[file]) if what == "resolve" and file in files else (404, b"")


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub that answers at its ``address`` until the block ends."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def _answer(self) -> None:
            path = self.path.split("?")[0]
            hub.asked.append(f"{self.command} {path}")
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, content = hub.answer(self.command, path, self.headers.get("Authorization"), body)
            self.send_response(status)
            self.send_header("X-Repo-Commit", REVISION)
            self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
            self.send_header("Content-Length", str(len(content)))
            if status == 404:
                self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_HEAD = do_POST = _answer

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
