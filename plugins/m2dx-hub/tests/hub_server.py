"""A small Hub on this machine: what huggingface_hub asks of it for a push and a fetch."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

REPO = r"(?P<repo>[\w.-]+/[\w.-]+)"


class Hub:
    """Its repositories: files by commit, the newest last; and what was asked of it."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, dict[str, bytes]]] = {}
        self.large: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.cards: list[str] = []
        self.gated: set[str] = set()
        self.url = ""

    def commit(self, repo: str, files: dict[str, bytes]) -> str:
        """Makes a commit of these files."""
        commits = self.repos.setdefault(repo, {})
        name = hashlib.sha1(json.dumps([repo, len(commits), sorted(files)]).encode()).hexdigest()
        commits[name] = files
        return name

    def find(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """A commit's name and files; `main` is the newest."""
        commits = self.repos[repo]
        name = list(commits)[-1] if revision == "main" and commits else revision
        return (name, commits[name]) if name in commits else None


class Handler(BaseHTTPRequestHandler):
    """Answers as the Hub does."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def answer(self, content: Any, status: int = 200, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status: int, code: str) -> None:
        self.answer({"error": code}, status, X_Error_Code=code, X_Error_Message=code)

    def do_GET(self) -> None:
        path = unquote(self.path.partition("?")[0])
        self.hub.asked.append(f"{self.command} {path}")
        match = (
            re.fullmatch(rf"/api/models/{REPO}(?:/(?P<kind>revision|tree)/(?P<revision>.+))?", path)
            or re.fullmatch(rf"/{REPO}/(?P<kind>resolve)/(?P<revision>[^/]+)/(?P<file>.+)", path)
        )  # fmt: skip
        if match is None or match["repo"] not in self.hub.repos:
            return self.refuse(404, "RepoNotFound")
        if match["repo"] in self.hub.gated and match["kind"] in ("tree", "resolve"):
            return self.refuse(403, "GatedRepo")
        found = self.hub.find(match["repo"], match["revision"] or "main")
        if found is None:
            return self.refuse(404, "RevisionNotFound")
        commit, files = found
        if match["kind"] == "resolve":
            content = files[match["file"]]
            etag = f'"{hashlib.sha1(content).hexdigest()}"'
            return self.answer(content, X_Repo_Commit=commit, ETag=etag)
        if match["kind"] == "tree":
            rows = [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in files.items()
            ]
            return self.answer(rows)
        self.answer({"id": match["repo"], "sha": commit, "siblings": [{"rfilename": name} for name in files]})

    do_HEAD = do_GET

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.hub.large[self.path.rpartition("/")[2]] = content
        self.answer({})

    def do_POST(self) -> None:
        path = unquote(self.path.partition("?")[0])
        self.hub.asked.append(f"POST {path}")
        text = self.body().decode()
        if path == "/api/validate-yaml":
            self.hub.cards.append(json.loads(text)["content"])
            return self.answer({"errors": [], "warnings": []})
        if "other/" in path or self.headers.get("Authorization") != "Bearer hf_writes":
            return self.refuse(403, "Forbidden")
        given = json.loads(text) if "/commit/" not in path else {}
        if path == "/api/repos/create":
            repo = f"{given.get('organization') or 'me'}/{given['name']}"
            if repo.startswith("other/"):
                return self.refuse(403, "Forbidden")
            new = repo not in self.hub.repos
            self.hub.repos.setdefault(repo, {})
            if new:
                self.hub.commit(repo, {".gitattributes": b""})
            return self.answer({"url": f"{self.hub.url}/{repo}"}, 200 if new else 409)
        if path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**each, "actions": {"upload": {"href": f"{self.hub.url}/large/{each['oid']}"}}}
                for each in given["objects"]
            ]
            return self.answer({"transfer": "basic", "objects": objects})
        if "/preupload/" in path:
            modes = [
                {
                    "path": each["path"],
                    "uploadMode": "lfs" if each["path"].endswith((".safetensors", ".onnx")) else "regular",
                    "shouldIgnore": False,
                }
                for each in given["files"]
            ]
            return self.answer({"files": modes})
        repo = "/".join(path.split("/")[3:5])
        _, before = self.hub.find(repo, "main") or ("", {})
        files = dict(before)
        for line in map(json.loads, text.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
            elif line["key"] == "deletedFile":
                files.pop(value["path"])
        commit = self.hub.commit(repo, files)
        self.answer({"commitUrl": f"{self.hub.url}/{repo}/commit/{commit}", "commitOid": commit})

    def body(self) -> bytes:
        if "Content-Length" in self.headers:
            return self.rfile.read(int(self.headers["Content-Length"]))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)


@contextmanager
def serving() -> Iterator[Hub]:
    """A Hub that answers at its `url`."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
