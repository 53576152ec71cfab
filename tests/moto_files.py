"""AWS S3 and IAM as moto plays them, over TLS, every request checked, with four rules of AWS that moto lacks.

Added are: statements hold only under their conditions on ``s3:prefix`` and ``aws:SecureTransport``; HEAD of a bucket is
a matter of ListBucket; who copies must be allowed to read the source; and who may not list the whole bucket is told 403
in place of 404.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qs, unquote

import boto3
from moto import settings
from moto.iam import access_control
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from pydantic import SecretStr
from werkzeug.serving import WSGIRequestHandler, make_server

from infra.ports import HOST
from infra.s3_users import S3User
from infra.tls import Certificate
from tasks.settings import Environment

REFUSED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"

_SEEN: ContextVar[Mapping[str, str]] = ContextVar("what conditions are about", default=MappingProxyType({}))
_LISTS: ContextVar[bool] = ContextVar("whether the user may list the whole bucket", default=False)


@dataclass(frozen=True)
class Aws:
    """Where it is, and a user who may do everything."""

    url: str
    ca: Path
    root: S3User

    def environment(self, user: S3User, bucket: str) -> Environment:
        return Environment(
            s3_endpoint=self.url,
            s3_access_key=user.access_key,
            s3_secret_key=SecretStr(user.secret_key),
            s3_bucket=bucket,
            ca_bundle=self.ca,
        )

    def client(self, service: str, user: S3User) -> Any:
        return boto3.session.Session().client(
            service,
            endpoint_url=self.url,
            aws_access_key_id=user.access_key,
            aws_secret_access_key=user.secret_key,
            region_name="us-east-1",
            verify=str(self.ca),
        )

    def user(self, name: str, policy: dict[str, object]) -> S3User:
        """A user with this policy alone."""
        iam = self.client("iam", self.root)
        iam.create_user(UserName=name)
        iam.put_user_policy(UserName=name, PolicyName=name, PolicyDocument=json.dumps(policy))
        made = iam.create_access_key(UserName=name)["AccessKey"]
        return S3User(made["AccessKeyId"], made["SecretAccessKey"])


@contextmanager
def aws(certificate: Certificate, patch: Callable[[Any, str, Any], None]) -> Iterator[Aws]:
    """A running one; ``patch`` is ``monkeypatch.setattr``."""
    patch(access_control.IAMPolicyStatement, "_check_conditions", _conditions_hold)
    patch(access_control.S3IAMRequest, "check_action_permitted", _permitted)
    app = _AwsRules(DomainDispatcherApplication(create_backend_app))
    files = (str(certificate.certificate), str(certificate.key))
    server = make_server(HOST, 0, app, threaded=True, ssl_context=files, request_handler=_Silent)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    found = Aws(f"https://{HOST}:{server.server_port}", certificate.ca, S3User("anybody", "anything"))
    try:
        everything = {"Effect": "Allow", "Action": "*", "Resource": "*"}
        root = found.user("root", {"Version": "2012-10-17", "Statement": [everything]})
        patch(settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0)  # from here on every request is checked
        yield Aws(found.url, found.ca, root)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Silent(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None: ...


class _AwsRules:
    """Around moto's application: tells conditions what a request is like, and refuses where AWS would."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        asked = parse_qs(environ["QUERY_STRING"], keep_blank_values=True)
        seen = {"aws:SecureTransport": str(environ["wsgi.url_scheme"] == "https").lower()}
        of_object = "/" in environ["PATH_INFO"].strip("/")
        if "prefix" in asked and not of_object:
            seen["s3:prefix"] = asked["prefix"][0]
        _SEEN.set(seen)
        _LISTS.set(False)
        told: list[Any] = []
        body = self._app(environ, lambda *answer: told.append(answer))
        status, headers, *_ = told[0]
        reading = of_object and environ["REQUEST_METHOD"] in ("GET", "HEAD")
        if status.startswith("404") and reading and not _LISTS.get():
            headers = [(name, value) for name, value in headers if name.lower() != "content-length"]
            status, body = "403 Forbidden", [b"" if environ["REQUEST_METHOD"] == "HEAD" else REFUSED]
        start(status, headers)
        return body


_moto_permits = access_control.S3IAMRequest.check_action_permitted


def _permitted(request: Any, resource: str) -> None:
    """Moto's check; and whether the user may list the whole bucket, which a condition on the prefix forbids."""
    bucket = ":::".join([resource.split(":::")[0], resource.split(":::")[1].split("/")[0]])
    policies = map(access_control.IAMPolicy, request._access_key.collect_policies())
    found = [policy.is_action_permitted("s3:ListBucket", bucket) for policy in policies]
    _LISTS.set(access_control.PermissionResult.PERMITTED in found)
    request._action = request._action.replace("HeadBucket", "ListBucket")
    _moto_permits(request, resource)
    source = request._headers.get("X-Amz-Copy-Source")
    if source is not None:
        request._action = "s3:GetObject"
        _moto_permits(request, f"{resource.split(':::')[0]}:::{unquote(source).lstrip('/')}")


def _conditions_hold(statement: Any, _given: object) -> bool:
    """In place of moto's: it knows two operators, and what a request does not tell fulfils none."""
    for operator, wanted in statement._statement.get("Condition", {}).items():
        assert operator in ("Bool", "StringLike"), operator
        for name, patterns in wanted.items():
            value = _SEEN.get().get(name)
            likes = [patterns] if isinstance(patterns, str) else patterns
            if value is None or not any(fnmatchcase(value, like) for like in likes):
                return False
    return True
