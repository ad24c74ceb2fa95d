"""What a DVC remote can be, on loopback: a folder, a real OpenSSH server, an S3 API."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
REQUIRED = "MEDTUNE_REQUIRE_SERVERS" in os.environ
"""Set in CI, where a test that cannot start its server is to fail and not to be skipped."""


@dataclass
class Storage(ABC):
    """A place for a remote: its address, and what only `.dvc/config.local` may hold."""

    url: str
    credentials: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)

    @abstractmethod
    def names(self) -> list[str]:
        """The names of all files in it, relative to the address."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """A file's content."""

    @abstractmethod
    def write(self, name: str, content: bytes) -> None:
        """Replace a file's content."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Remove a file."""


@dataclass
class Folder(Storage):
    """A folder of this machine, or one that an SSH server of this machine hands out."""

    path: Path = field(kw_only=True)

    def names(self) -> list[str]:
        return sorted(str(file.relative_to(self.path)) for file in self.path.rglob("*") if file.is_file())

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def write(self, name: str, content: bytes) -> None:
        # DVC writes its objects read-only.
        (self.path / name).chmod(0o644)
        (self.path / name).write_bytes(content)

    def delete(self, name: str) -> None:
        (self.path / name).unlink()


@dataclass
class Bucket(Storage):
    """A bucket of an S3 API."""

    client: Any = field(kw_only=True)
    name: str = field(kw_only=True)

    def names(self) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def read(self, name: str) -> bytes:
        return self.client.get_object(Bucket=self.name, Key=name)["Body"].read()

    def write(self, name: str, content: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=name, Body=content)

    def delete(self, name: str) -> None:
        self.client.delete_object(Bucket=self.name, Key=name)


def unused_port() -> int:
    """A TCP port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def _server(
    command: list[str], port: int, log: Path, env: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the block ends; it counts as started when its port answers.

    One that does not end when it is asked to, as uvicorn does not while a connection is open, is killed with
    what it has started.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            env=os.environ | (env or {}),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    try:
        end = time.monotonic() + 60
        while True:
            assert process.poll() is None and time.monotonic() < end, log.read_text()
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield process
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def ssh_server(folder: Path) -> Iterator[Callable[[str], Storage]]:
    """An OpenSSH server with a key of its own for this user; makes a new remote of a name."""
    if SSHD is None:
        assert not REQUIRED, "sshd is not installed"
        pytest.skip("needs sshd (Debian: openssh-server)")
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True)
    port = unused_port()
    config = folder / "sshd_config"
    config.write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {folder}/host\nPidFile none\nStrictModes no\n"
        f"AuthorizedKeysFile {folder}/user.pub\nPasswordAuthentication no\nUsePAM no\n"
        "Subsystem sftp internal-sftp\n"
    )
    if os.geteuid() == 0:
        # sshd as root insists on this empty folder; a system that starts sshd by itself has it.
        Path("/run/sshd").mkdir(exist_ok=True)
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()

    def create(name: str) -> Storage:
        path = folder / name
        path.mkdir()
        credentials = {"user": user, "keyfile": str(folder / "user")}
        return Folder(f"ssh://127.0.0.1:{port}{path}", credentials, path=path)

    with _server([SSHD, "-D", "-e", "-f", str(config)], port, folder / "log"):
        yield create


@contextmanager
def s3_server(folder: Path) -> Iterator[Callable[[str], Storage]]:
    """An S3 API that asks for credentials; makes a new bucket of a name."""
    port = unused_port()
    url = f"http://127.0.0.1:{port}"
    # The first calls set up the user whose credentials all others need.
    preparation = 3
    command = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)]
    with _server(command, port, folder / "log", {"INITIAL_NO_AUTH_ACTION_COUNT": str(preparation)}):
        nobody = {"aws_access_key_id": "-", "aws_secret_access_key": "-", "region_name": "us-east-1"}
        iam = boto3.client("iam", endpoint_url=url, **nobody)
        iam.create_user(UserName="medtune")
        everything = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
        iam.put_user_policy(
            UserName="medtune",
            PolicyName="storage",
            PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [everything]}),
        )
        key = iam.create_access_key(UserName="medtune")["AccessKey"]
        client = boto3.client(
            "s3",
            endpoint_url=url,
            region_name="us-east-1",
            aws_access_key_id=key["AccessKeyId"],
            aws_secret_access_key=key["SecretAccessKey"],
        )

        def create(name: str) -> Storage:
            client.create_bucket(Bucket=name)
            credentials = {"access_key_id": key["AccessKeyId"], "secret_access_key": key["SecretAccessKey"]}
            settings = {"endpointurl": url, "region": "us-east-1"}
            return Bucket(f"s3://{name}/medtune", credentials, settings, client=client, name=name)

        yield create


@dataclass(frozen=True)
class Mlflow:
    """A real MLflow server with a database of its own."""

    url: str
    process: "subprocess.Popen[bytes]"

    def ask(self, path: str, **content: Any) -> dict[str, Any]:
        """Call its REST API."""
        data = json.dumps(content).encode()
        request = urllib.request.Request(f"{self.url}/api/2.0/mlflow/{path}", data)
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def runs(self) -> dict[str, dict[str, Any]]:
        """All runs in experiments of medtune, by their names."""
        experiments = self.ask("experiments/search", max_results=9, filter="name = 'medtune'")
        ids = [one["experiment_id"] for one in experiments.get("experiments", [])]
        found = self.ask("runs/search", experiment_ids=ids).get("runs", []) if ids else []
        return {one["info"]["run_name"]: one for one in found}

    def history(self, run: dict[str, Any], metric: str) -> list[tuple[int, float]]:
        """The points of a curve: steps and values."""
        query = urllib.parse.urlencode({"run_id": run["info"]["run_id"], "metric_key": metric})
        history = f"{self.url}/api/2.0/mlflow/metrics/get-history?{query}"
        with urllib.request.urlopen(history, timeout=10) as answer:
            return [(point["step"], point["value"]) for point in json.load(answer).get("metrics", [])]


@contextmanager
def mlflow_server(folder: Path) -> Iterator[Mlflow]:
    """MLflow's tracking server."""
    port = unused_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{folder}/runs.db", "--workers", "1"]
    command += ["--default-artifact-root", str(folder / "artifacts")]
    # Jobs are no part of what is tested, and their workers take seconds to start.
    with _server(command, port, folder / "log", {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}) as process:
        yield Mlflow(f"http://127.0.0.1:{port}", process)
