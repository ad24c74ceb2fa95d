"""A stand-in for the model hub, on loopback: the part of its HTTP API that reading a repository takes, and
pushing files into one.

The answers, down to the error headers, are those that `huggingface_hub` decides by. As on the hub, the list
of a gated repository's files is public and the files are not, and large files come from another host.
"""

import base64
import hashlib
import json
import os
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

import jsonschema
import yaml

LARGE = (".safetensors", ".bin", ".parquet")
"""What a repository keeps outside git: named by sha256, sent by the other host."""

_LICENCES = ("apache-2.0", "mit", "llama3.2", "cc-by-4.0", "unknown", "other")
_ID = r"[\w-][\w.-]*/[\w.-]+"
_NAMED = {"type": "object", "required": ["type"], "properties": {"type": {"type": "string"}}}
_METRIC = _NAMED | {"required": ["type", "value"]}
_TEXTS = {"type": "array", "items": {"type": "string"}}
_RESULT = {
    "type": "object",
    "required": ["task", "dataset", "metrics"],
    "properties": {
        "task": _NAMED,
        "dataset": _NAMED | {"required": ["type", "name"]},
        "metrics": {"type": "array", "minItems": 1, "items": _METRIC},
    },
}
_INDEX = {
    "type": "object",
    "required": ["name", "results"],
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "results": {"type": "array", "items": _RESULT},
    },
}
_MODEL_CARD: dict[str, Any] = {
    "type": "object",
    "properties": {
        "library_name": {"type": "string"},
        "pipeline_tag": {"const": "text-generation"},
        "base_model_relation": {"enum": ["adapter", "finetune", "merge", "quantized"]},
        "tags": _TEXTS,
        "metrics": _TEXTS,
        "datasets": {"type": "array", "items": {"type": "string", "pattern": f"^{_ID}$"}},
        "model-index": {"type": "array", "items": _INDEX},
    },
}
_DATA_CARD: dict[str, Any] = {
    "type": "object",
    "required": ["pretty_name", "configs"],
    "properties": {
        "size_categories": {
            "type": "array",
            "items": {"pattern": r"^(n<1K|\d+[KM]<n<\d+[KM]|n>10M)$"},
        },
        "task_categories": {"type": "array", "items": {"enum": ["question-answering", "multiple-choice"]}},
        "tags": _TEXTS,
        "configs": {"type": "array", "items": {"required": ["config_name", "data_files"]}},
    },
}

_API = re.compile(
    r"/api/(?P<repo>(models|datasets)/[^/]+/[^/]+)(/(?P<what>revision|tree|paths-info)/(?P<revision>[^/]+))?"
    r"(/(?P<file>.+))?"
)
_FILE = re.compile(r"/(?P<repo>(datasets/)?[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")
_WRITES = re.compile(
    r"/api/(?P<call>validate-yaml|repos/create)|/api/models/(?P<repo>[^/]+/[^/]+)/(?P<step>preupload|commit)/main"
    r"|/(?P<lfs>[^/]+/[^/]+)\.git/info/lfs/objects/batch"
)
_UPLOAD = re.compile(r"/upload/(?P<sha256>[0-9a-f]{64})")
_STORED = re.compile(r"/stored/(?P<sha256>[0-9a-f]{64})")


@dataclass(frozen=True)
class Request:
    """A request that came in: `first` is the byte it asked for, `token` whether one was sent."""

    method: str
    path: str
    first: int
    token: bool


@dataclass
class Repository:
    """A folder at one commit, which `references` mean; `readers` have access if it is gated, else None."""

    folder: Path
    commit: str
    readers: set[str] | None = None
    references: tuple[str, ...] = ("main",)
    private: bool = False

    def files(self) -> list[Path]:
        return sorted(path for path in self.folder.rglob("*") if path.is_file())

    def entry(self, path: Path) -> dict[str, Any]:
        """A file or a folder as listings describe it."""
        if path.is_dir():
            name = path.relative_to(self.folder).as_posix()
            return {
                "type": "directory",
                "path": name,
                "size": 0,
                "oid": hashlib.sha1(name.encode()).hexdigest(),
            }
        size, digest = path.stat().st_size, _digest(path)
        entry: dict[str, Any] = {
            "type": "file",
            "path": path.relative_to(self.folder).as_posix(),
            "size": size,
            "oid": digest,
        }
        if path.name.endswith(LARGE):
            entry["lfs"] = {"oid": digest, "size": size, "pointerSize": 134}
        return entry


@dataclass
class Hub:
    """What is served (`models/ORG/NAME`, `datasets/ORG/NAME`), to which tokens, and what was asked for."""

    url: str
    repositories: dict[str, Repository] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=set)
    requests: list[Request] = field(default_factory=list)
    cuts: list[tuple[int, Literal["closed", "reset", "stalled"]]] = field(default_factory=list)
    """After how many bytes the next answers with a large file break off, and how the connection ends."""
    failing: int | None = None
    """The status of every answer, of a hub that has trouble of its own, or is none (200)."""
    writers: set[str] = field(default_factory=set)
    """Tokens that may make repositories and push into them."""
    made: Path | None = None
    """Where repositories that are made get their folders."""
    uploaded: dict[str, bytes] = field(default_factory=dict)

    def fetched(self) -> set[str]:
        """The names of the files whose content was asked for."""
        paths = [request.path for request in self.requests if request.method == "GET"]
        names = {match["file"] for path in paths if (match := _FILE.fullmatch(path))}
        stored = [self.stored(match["sha256"]) for path in paths if (match := _STORED.fullmatch(path))]
        return names | {path.relative_to(repository.folder).as_posix() for repository, path in stored}

    def stored(self, sha256: str) -> tuple[Repository, Path]:
        """The large file of that hash."""
        return next(
            (repository, path)
            for repository in self.repositories.values()
            for path in repository.files()
            if path.name.endswith(LARGE) and _digest(path) == sha256
        )


@cache
def _digest(path: Path) -> str:
    """The sha256 of a large file; of any other the hash that git knows it by."""
    if path.name.endswith(LARGE):
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def model_hub() -> Iterator[Hub]:
    """Serve a hub until the block ends."""
    server = _Server(("127.0.0.1", 0), _Handler)
    hub = server.hub = Hub(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def faults_of_card(text: str, kind: str | None = "model") -> list[str]:
    """What the hub has to say against the front matter of a README.md, by its documentation."""
    front = yaml.safe_load(text.split("---\n")[1]) if text.startswith("---\n") else {}
    given: Any = front.get("license")
    licences = given if isinstance(given, list) else [given]
    faults = [] if set(licences) <= set(_LICENCES) else ['"license" must be one of the known ones']
    if front.get("license") == "other" and not re.fullmatch(r"[a-z0-9.-]+", front.get("license_name", "")):
        faults.append('"license_name" fails to match the required pattern')
    if not re.fullmatch(_ID, front.get("base_model", "org/base")):
        faults.append('"base_model" with value is not valid. Use a model id')
    schema = _DATA_CARD if kind == "dataset" else _MODEL_CARD
    found = jsonschema.Draft202012Validator(schema).iter_errors(front)
    return faults + [f"{error.json_path}: {error.message}" for error in found]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    hub: Hub


class _RefusedError(Exception):
    """An answer that is an error, as the hub words it."""

    def __init__(self, status: int, message: str, code: str | None = None):
        self.status, self.message, self.code = status, message, code


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        form = parse_qs(self.rfile.read(length).decode())
        path = unquote(urlsplit(self.path).path)
        first = int(re.sub(r"\D", " ", self.headers.get("Range", "0")).split()[0])
        sent = self.headers.get("Authorization")
        assert isinstance(self.server, _Server)
        self.hub = self.server.hub
        self.hub.requests.append(Request(self.command, path, first, sent is not None))
        try:
            if match := _STORED.fullmatch(path):
                self._stored(match["sha256"], first)
                return
            if self.hub.failing:
                raise _RefusedError(self.hub.failing, "It is not your fault")
            token = sent.removeprefix("Bearer ") if sent else None
            if token is not None and token not in self.hub.tokens:
                raise _RefusedError(401, "Invalid credentials in Authorization header")
            if match := _API.fullmatch(path):
                self._api(self._repository(match["repo"], match["revision"], token), match, form)
            elif match := _FILE.fullmatch(path):
                name = match["repo"] if match["repo"].startswith("datasets/") else f"models/{match['repo']}"
                repository = self._repository(name, match["revision"], token)
                self._file(repository, repository.folder / match["file"], token)
            else:
                raise _RefusedError(404, "Not found")
        except _RefusedError as refused:
            headers = {"X-Error-Message": refused.message}
            if refused.code:
                headers["X-Error-Code"] = refused.code
            self._send(refused.status, json.dumps({"error": refused.message}).encode(), headers)

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self) -> None:
        match = _WRITES.fullmatch(unquote(urlsplit(self.path).path))
        if match is None:
            self.do_GET()
            return
        assert isinstance(self.server, _Server)
        self.hub = self.server.hub
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in self.hub.writers:
            self._send(403 if token in self.hub.tokens else 401, b'{"error": "Forbidden"}', {})
            return
        answer, status = self._write(match, content)
        self._send(status, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def do_PUT(self) -> None:
        assert isinstance(self.server, _Server)
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        match = _UPLOAD.fullmatch(self.path)
        assert match and hashlib.sha256(content).hexdigest() == match["sha256"]
        self.server.hub.uploaded[match["sha256"]] = content
        self._send(200, b"", {})

    def _write(self, match: re.Match[str], content: bytes) -> tuple[dict[str, Any], int]:
        """The answer to a request of a push, and its status."""
        hub = self.hub
        if match["step"] == "commit":
            return self._commit(match["repo"], content), 200
        asked = json.loads(content)
        if match["call"] == "validate-yaml":
            errors = faults_of_card(asked["content"], asked["repoType"])
            return {
                "errors": [{"message": fault} for fault in errors],
                "warnings": [],
            }, 400 if errors else 200
        if match["call"] == "repos/create":
            name = f"{asked['organization']}/{asked['name']}"
            if f"models/{name}" in hub.repositories:
                return {"error": "You already created this model repo", "url": f"{hub.url}/{name}"}, 409
            assert hub.made is not None
            (hub.made / name).mkdir(parents=True)
            new = Repository(hub.made / name, "0" * 40, private=asked.get("visibility") == "private")
            hub.repositories[f"models/{name}"] = new
            return {"url": f"{hub.url}/{name}", "name": name, "id": name}, 200
        if match["step"] == "preupload":
            modes = {True: "lfs", False: "regular"}
            large = (*LARGE, ".gguf")
            files = [
                {"path": one["path"], "uploadMode": modes[one["path"].endswith(large)], "shouldIgnore": False}
                for one in asked["files"]
            ]
            return {"files": files}, 200
        objects = [
            one | {"actions": {"upload": {"href": f"{hub.url}/upload/{one['oid']}"}}}
            for one in asked["objects"]
        ]
        return {"transfer": "basic", "objects": objects}, 200

    def _commit(self, name: str, content: bytes) -> dict[str, Any]:
        repository = self.hub.repositories[f"models/{name}"]
        repository.commit = hashlib.sha1(content).hexdigest()
        for line in map(json.loads, content.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                (repository.folder / value["path"]).write_bytes(base64.b64decode(value["content"]))
            elif line["key"] == "lfsFile":
                (repository.folder / value["path"]).write_bytes(self.hub.uploaded[value["oid"]])
        url = f"{self.hub.url}/{name}/commit/{repository.commit}"
        return {"success": True, "commitOid": repository.commit, "commitUrl": url}

    def _repository(self, name: str, revision: str | None, token: str | None) -> Repository:
        repository = self.hub.repositories.get(name)
        if repository is None:
            if token is None:
                raise _RefusedError(401, "Invalid username or password.")
            raise _RefusedError(404, "Repository not found", "RepoNotFound")
        if revision not in (None, *repository.references, repository.commit):
            raise _RefusedError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return repository

    def _api(self, repository: Repository, match: re.Match[str], form: dict[str, list[str]]) -> None:
        if match["what"] == "tree":
            query = parse_qs(urlsplit(self.path).query)
            recursive = query.get("recursive", [""])[0].lower() in ("true", "1")
            answer: object = self._tree(repository, match["file"] or "", recursive)
        elif match["what"] == "paths-info":
            named = [repository.folder / name for name in form.get("paths", [])]
            answer = [repository.entry(path) for path in named if path.is_file()]
        else:
            siblings = [{"rfilename": repository.entry(path)["path"]} for path in repository.files()]
            identifier = match["repo"].partition("/")[2]
            answer = {
                "id": identifier,
                "sha": repository.commit,
                "siblings": siblings,
                "tags": [],
                "private": repository.private,
            }
        self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    @staticmethod
    def _tree(repository: Repository, name: str, recursive: bool) -> list[dict[str, Any]]:
        """What a folder has, folders too; what these have only if asked for."""
        folder = repository.folder / name
        if not folder.is_dir():
            raise _RefusedError(404, f"{name} does not exist", "EntryNotFound")
        paths = sorted(folder.rglob("*") if recursive else folder.iterdir())
        return [repository.entry(path) for path in paths]

    def _file(self, repository: Repository, path: Path, token: str | None) -> None:
        if repository.readers is not None and token is None:
            raise _RefusedError(401, "Access to this model is restricted. Please log in.", "GatedRepo")
        if repository.readers is not None and token not in repository.readers:
            raise _RefusedError(403, "You are not in the authorized list.", "GatedRepo")
        commit = {"X-Repo-Commit": repository.commit}
        if not path.is_file():
            self._send(404, b"", commit | {"X-Error-Code": "EntryNotFound"})
        elif path.name.endswith(LARGE):
            linked = {"X-Linked-Etag": f'"{_digest(path)}"', "X-Linked-Size": str(path.stat().st_size)}
            elsewhere = self.hub.url.replace("127.0.0.1", "localhost")
            self._send(302, b"", commit | linked | {"Location": f"{elsewhere}/stored/{_digest(path)}"})
        else:
            self._send(200, path.read_bytes(), commit | {"ETag": f'"{_digest(path)}"'})

    def _stored(self, sha256: str, first: int) -> None:
        _, path = self.hub.stored(sha256)
        size = path.stat().st_size
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(size - first))
        if first:
            self.send_header("Content-Range", f"bytes {first}-{size - 1}/{size}")
        self.end_headers()
        length, end = self.hub.cuts.pop(0) if self.hub.cuts else (size - first, None)
        self.wfile.flush()
        with path.open("rb") as file:
            while length > 0 and (
                sent := os.sendfile(self.connection.fileno(), file.fileno(), first, length)
            ):
                first, length = first + sent, length - sent
        self.close_connection = end is not None
        if end == "reset":
            # Closing without lingering resets the connection.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        if end == "stalled":
            # Until the client goes away.
            self.connection.recv(1)

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    log_message: Callable[..., None] = lambda *arguments: None
