"""A small server that speaks the part of the Hugging Face hub's HTTP interface that ``huggingface_hub`` uses here."""

import base64
import hashlib
import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote, urlsplit

import yaml

TOKEN = "hf_of_the_tests"
LARGE = (".safetensors", ".onnx")  # endings of files that go by Git LFS


@dataclass
class Repository:
    """Branches and commits: name -> commit, commit -> file -> bytes."""

    private: bool = False
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        name = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        self.commits[name] = files
        self.branches[branch] = name
        return name

    def at(self, revision: str) -> str | None:
        name = self.branches.get(revision, revision)
        return name if name in self.commits else None


@dataclass
class Hub:
    """What the server holds, and what it was asked for."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)  # SHA-256 -> bytes of uploaded large files
    asked: list[str] = field(default_factory=list)  # "GET /path"
    status: int | None = None  # of every answer, in place of the right one
    wait: float = 0.0  # seconds before each answer
    sizes: dict[str, int] = field(default_factory=dict)  # file -> size that is stated in place of its own
    url: str = ""


class Handler(BaseHTTPRequestHandler):
    """One request."""

    hub: Hub

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET

    def _answer(self):
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        time.sleep(self.hub.wait)
        if self.hub.status is not None:
            return self._send(self.hub.status, {"error": "out of order"})
        for pattern, handle in ROUTES:
            if found := re.fullmatch(pattern, f"{self.command} {path}"):
                return handle(self, *found.groups())
        return self._send(404, {"error": f"no such address: {path}"})

    def _send(self, status, content, **headers):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _may_write(self):
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _repository(self, name):
        """Return a repository, or None after an answer that does not tell a missing one from a private one."""
        repository = self.hub.repositories.get(name)
        if repository is None or (repository.private and not self._may_write()):
            self._send(
                404 if self._may_write() else 401, {"error": "Repository not found"}, X_Error_Code="RepoNotFound"
            )
            return None
        return repository

    def _commit_of(self, name, revision):
        repository = self._repository(name)
        if repository is None:
            return None
        commit = repository.at(revision)
        if commit is None:
            self._send(404, {"error": "Invalid rev id"}, X_Error_Code="RevisionNotFound")
            return None
        return commit, repository.commits[commit]

    def about(self, name, revision):
        if found := self._commit_of(name, revision or "main"):
            commit, files = found
            siblings = [
                {"rfilename": file, "size": self.hub.sizes.get(file, len(contents))} for file, contents in files.items()
            ]
            self._send(200, {"id": name, "modelId": name, "sha": commit, "siblings": siblings})

    def file(self, _, name, revision, file):
        if found := self._commit_of(name, revision):
            commit, files = found
            if file not in files:
                self._send(404, {"error": "no file"}, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
            else:
                etag = f'"{hashlib.sha1(files[file]).hexdigest()}"'
                self._send(200, files[file], X_Repo_Commit=commit, ETag=etag)

    def create(self):
        body = json.loads(self.body)
        name = f"{body['organization']}/{body['name']}"
        if not self._may_write():
            return self._send(403, {"error": "forbidden"})
        url = f"{self.hub.url}/{name}"
        if name in self.hub.repositories:
            return self._send(409, {"error": "exists", "url": url})
        repository = self.hub.repositories[name] = Repository(private=body.get("visibility") == "private")
        repository.commit("main", {})
        return self._send(200, {"url": url})

    def branch(self, name, branch):
        repository = self.hub.repositories[name]
        repository.branches.setdefault(branch, repository.branches["main"])
        self._send(200, {})

    def validate(self):
        content = json.loads(self.body)["content"]
        metadata = yaml.safe_load(content.split("---\n")[1])
        assert isinstance(metadata["model-index"][0]["name"], str)
        self._send(200, {})

    def preupload(self, *_):
        modes = [
            {
                "path": one["path"],
                "uploadMode": "lfs" if one["path"].endswith(LARGE) else "regular",
                "shouldIgnore": False,
            }
            for one in json.loads(self.body)["files"]
        ]
        self._send(200, {"files": modes})

    def batch(self, *_):
        objects = [
            {**one, "actions": {"upload": {"href": f"{self.hub.url}/large/{one['oid']}"}}}
            for one in json.loads(self.body)["objects"]
        ]
        self._send(200, {"transfer": "basic", "objects": objects})

    def put(self, oid):
        assert hashlib.sha256(self.body).hexdigest() == oid
        self.hub.large[oid] = self.body
        self._send(200, {})

    def commit(self, name, branch):
        repository = self.hub.repositories[name]
        files = dict(repository.commits[repository.branches[branch]])
        for line in map(json.loads, self.body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
        commit = repository.commit(branch, files)
        self._send(200, {"commitUrl": f"{self.hub.url}/{name}/commit/{commit}", "commitOid": commit})


NAME = r"([\w.-]+/[\w.-]+)"
ROUTES = (
    (rf"GET /api/models/{NAME}(?:/revision/(.+))?", Handler.about),
    (rf"(GET|HEAD) /{NAME}/resolve/([^/]+)/(.+)", Handler.file),
    (r"POST /api/repos/create", Handler.create),
    (rf"POST /api/models/{NAME}/branch/(.+)", Handler.branch),
    (r"POST /api/validate-yaml", Handler.validate),
    (rf"POST /api/models/{NAME}/preupload/(.+)", Handler.preupload),
    (rf"POST /{NAME}\.git/info/lfs/objects/batch", Handler.batch),
    (r"PUT /large/(\w+)", Handler.put),
    (rf"POST /api/models/{NAME}/commit/(.+)", Handler.commit),
)


class Server(ThreadingHTTPServer):
    """A server that keeps quiet when a client has hung up, as one does that has waited for too long."""

    daemon_threads = True

    def handle_error(self, *_):
        pass


@contextmanager
def running() -> Iterator[Hub]:
    """Yield a hub that answers at ``hub.url``."""
    hub = Hub()
    server = Server(("127.0.0.1", 0), type("OfThisHub", (Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
