"""A user of the store can do what its work asks and nothing else: on the real store, and on AWS as moto plays it."""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from minio.credentials.providers import StaticProvider
from minio.error import MinioAdminException
from minio.minioadmin import MinioAdmin
from moto_files import aws
from policy_files import ALLOWED, FORBIDDEN, MINE, OTHER, OWN, SEEDED, THEIRS
from typer.testing import CliRunner

from flows.cli import app
from infra.s3_server import S3Server
from infra.s3_users import S3User, change_secret, make_hub_user, make_user, remove_user
from infra.store_policies import Kind, store_policy
from infra.tls import server_certificate
from model.errors import ConfigError, ObjectMissingError, ServerError, StoreDeniedError
from tasks.settings import Environment
from tasks.store import Store
from tasks.version import version_round

BUCKET = "policies"
REFUSALS = {"AccessDenied", "403", "NotImplemented"}
SEEDED_MD5 = {key: hashlib.md5(data).hexdigest() for key, data in SEEDED.items()}
HUB_WRITES = ("global/rounds/0001/plan.json", "hub/rounds/0001/over.json", "dvc/files/md5/ab/cdef")


@dataclass(frozen=True)
class Side:
    """A store with a federation in it: who may do everything, and users with the policies."""

    kind: Kind
    admin: Environment
    site: Environment
    hub: Environment

    def seed(self) -> None:
        root = client(self.admin)
        for key, data in SEEDED.items():
            root.put_object(
                Bucket=BUCKET, Key=key, Body=data, Metadata={"sha256": hashlib.sha256(data).hexdigest()}
            )

    def intact(self) -> bool:
        """Whether every object is there, with its bytes, by what a listing tells of their MD5."""
        listed = client(self.admin).list_objects_v2(Bucket=BUCKET)["Contents"]
        there = {entry["Key"]: entry["ETag"].strip('"') for entry in listed}
        return SEEDED_MD5.items() <= there.items()


@functools.cache  # each takes a tenth of a second to make
def client(env: Environment) -> Any:
    """An S3 client that asks once."""
    made = boto3.session.Session().client(
        "s3",
        endpoint_url=env.s3_endpoint,
        aws_access_key_id=env.s3_access_key,
        aws_secret_access_key=env.s3_secret_key.get_secret_value(),
        region_name=env.s3_region,
        verify=str(env.ca_bundle) if env.ca_bundle else None,
        config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
    )
    made.meta.events.register("before-sign.s3.DeleteObjects", add_md5)  # the real store asks for it
    return made


@functools.cache
def store_of(env: Environment) -> Store:
    return Store(env)


def add_md5(request: Any, **_: Any) -> None:
    data = request.body if isinstance(request.body, bytes) else request.body.encode()
    request.headers["Content-MD5"] = base64.b64encode(hashlib.md5(data).digest()).decode()


def user_of(env: Environment) -> S3User:
    return S3User(env.s3_access_key, env.s3_secret_key.get_secret_value())


def as_user(env: Environment, user: S3User) -> Environment:
    return Environment.model_validate(
        {**env.model_dump(), "s3_access_key": user.access_key, "s3_secret_key": user.secret_key}
    )


@pytest.fixture(scope="module")
def real(s3_server: S3Server) -> Side:
    """The store of the one-machine stack, its users made as `hub invite` makes them."""
    admin = s3_server.environment(BUCKET)
    Store(admin).ensure_bucket()
    root = user_of(admin)
    site, hub = make_user(s3_server.url, root, OWN, BUCKET), make_hub_user(s3_server.url, root, BUCKET)
    return Side("minio", admin, as_user(admin, site), as_user(admin, hub))


@pytest.fixture(scope="module")
def amazon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Side]:
    """Moto over TLS, every request checked, its users made as an administrator of AWS makes them."""
    certificate = server_certificate(tmp_path_factory.mktemp("tls"))
    with pytest.MonkeyPatch.context() as patch, aws(certificate, patch.setattr) as found:
        admin = found.environment(found.root, BUCKET)
        Store(admin).ensure_bucket()
        users = {name: found.user(name, store_policy(name, BUCKET, "aws")) for name in (OWN, "hub")}
        yield Side("aws", admin, as_user(admin, users[OWN]), as_user(admin, users["hub"]))


@pytest.fixture(scope="module", params=["real", "amazon"])
def side(request: pytest.FixtureRequest) -> Side:
    found: Side = request.getfixturevalue(request.param)
    found.seed()
    return found


# --- a site


@pytest.mark.parametrize("name", FORBIDDEN)
def test_a_site_is_refused(side: Side, name: str) -> None:
    try:
        answer = FORBIDDEN[name](client(side.site), BUCKET)
    except ClientError as refusal:
        assert refusal.response["Error"]["Code"] in REFUSALS
    else:  # of many at once, each is refused
        assert [error["Code"] for error in answer["Errors"]] == ["AccessDenied"] and "Deleted" not in answer
    assert side.intact()


@pytest.mark.parametrize("name", ALLOWED)
def test_a_site_may(side: Side, name: str) -> None:
    ALLOWED[name](client(side.site), BUCKET)
    assert side.intact()


def test_a_key_with_dots_leads_to_no_other_site(side: Side) -> None:
    with contextlib.suppress(ClientError):  # on AWS it is a key like any other
        beyond = f"sites/{OWN}/../{OTHER}/card.json"
        client(side.site).put_object(Bucket=BUCKET, Key=beyond, Body=b"forged")
    assert side.intact()


def test_without_a_policy_each_request_would_be_allowed(side: Side) -> None:
    """So the refusals above are the policy's doing; tried with those that change nothing."""
    root = client(side.admin)
    for name, request in FORBIDDEN.items():
        if name.startswith(("get", "head", "list")) or name.endswith("home"):
            request(root, BUCKET)


# --- the hub


def test_the_hub_writes_its_places_and_reads_and_lists_all(side: Side) -> None:
    store = Store(side.hub)
    store.ensure_bucket()
    for key in HUB_WRITES:
        store.put(key, b"hub's")
        assert store.get(key) == b"hub's"
    store.put(HUB_WRITES[0], bytes(9 << 20))  # in parts
    assert store.get(THEIRS) == b"theirs"
    assert {info.key for info in store.list("sites/")} >= {MINE, THEIRS}


@pytest.mark.parametrize("key", [MINE, THEIRS, "elsewhere"])
def test_the_hub_writes_in_no_sites_name(side: Side, key: str) -> None:
    with pytest.raises(StoreDeniedError):
        store_of(side.hub).put(key, b"forged")
    assert side.intact()


@pytest.mark.parametrize("key", [*SEEDED])
def test_the_hub_deletes_nothing(side: Side, key: str) -> None:
    with pytest.raises(ClientError, match="AccessDenied"):
        client(side.hub).delete_object(Bucket=BUCKET, Key=key)
    assert side.intact()


def test_the_hubs_rights_are_enough_to_version_a_round(real: Side, tmp_path: Path) -> None:
    store = Store(real.hub)
    store.put("global/rounds/0001/plan.json", b"{}")
    assert version_round(tmp_path / "versions", store, 1, real.hub).files >= 1


# --- nothing there, or not allowed


def test_what_is_not_written_yet_is_missing_and_not_denied(side: Side) -> None:
    store = Store(side.site)
    for key in ("global/rounds/0009/plan.json", f"sites/{OWN}/rounds/0009/update.json"):
        assert not store.exists(key)
        assert store.sha256_of(key) is None
        with pytest.raises(ObjectMissingError):
            store.get(key)
    assert store.get("global/roster.json") == b"for all"


def test_aws_says_403_of_what_is_missing(amazon: Side) -> None:
    for request in ("head_object", "get_object"):
        with pytest.raises(ClientError) as refusal:
            getattr(client(amazon.site), request)(Bucket=BUCKET, Key="global/nothing")
        assert refusal.value.response["Error"]["Code"] in ("403", "AccessDenied")


def test_what_is_written_between_two_looks_is_found(amazon: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    store, late = Store(amazon.site), "global/late.json"
    look = store._is_listed

    def write_and_look(key: str) -> bool:
        Store(amazon.admin).put(late, b"late")
        return look(key)

    monkeypatch.setattr(store, "_is_listed", write_and_look)
    assert store.get(late) == b"late"


@pytest.mark.parametrize("key", [THEIRS, f"sites/{OTHER}/nothing", "hub/nothing", "dvc/nothing"])
@pytest.mark.parametrize("ask", [Store.exists, Store.sha256_of, Store.get])
def test_what_is_not_ours_is_denied_whether_it_is_there_or_not(
    side: Side, ask: Callable[[Store, str], object], key: str
) -> None:
    with pytest.raises(StoreDeniedError, match="AccessDenied"):
        ask(store_of(side.site), key)


@pytest.mark.parametrize(
    ("access", "secret", "code"),
    [("AKIAAAAAAAAAAAAAAAAA", None, "InvalidAccessKeyId"), (None, "wrong" * 8, "SignatureDoesNotMatch")],
)
@pytest.mark.parametrize("ask", [Store.exists, Store.sha256_of, Store.get])
def test_wrong_credentials_are_told_by_their_code(
    side: Side, ask: Callable[[Store, str], object], access: str | None, secret: str | None, code: str
) -> None:
    right = user_of(side.site)
    wrong = as_user(side.site, S3User(access or right.access_key, secret or right.secret_key))
    for key in (MINE, "global/nothing"):
        with pytest.raises(StoreDeniedError, match=code):
            ask(store_of(wrong), key)


def test_a_site_is_told_the_stores_time(side: Side) -> None:
    assert abs((Store(side.site).now() - Store(side.hub).now()).total_seconds()) < 30


# --- administration


def administrations(env: Environment, file: Path) -> dict[str, Callable[[], object]]:
    """Calls of MinIO's that change what users may do, as the user of ``env``."""
    file.write_text(json.dumps(store_policy("hub", BUCKET)))
    user, netloc = user_of(env), env.s3_endpoint.partition("://")[2]
    provider = StaticProvider(user.access_key, user.secret_key)
    admin = MinioAdmin(endpoint=netloc, credentials=provider, secure=False)
    return {
        "list users": admin.user_list,
        "make a user": lambda: admin.user_add("mine", "secret-of-mine"),
        "change another's secret": lambda: admin.user_add(f"site-{OTHER}", "secret-of-mine"),
        "remove a user": lambda: admin.user_remove(f"site-{OTHER}"),
        "lock a user out": lambda: admin.user_disable(f"site-{OTHER}"),
        "list policies": admin.policy_list,
        "write a policy": lambda: admin.policy_add(user.access_key, str(file)),
        "remove a policy": lambda: admin.policy_remove(user.access_key),
        "give itself a policy": lambda: admin.policy_set("readwrite", user=user.access_key),
    }


@pytest.mark.parametrize("who", ["site", "hub"])
def test_sites_and_hub_administer_no_users(real: Side, who: str, tmp_path: Path) -> None:
    env: Environment = getattr(real, who)
    for name, request in administrations(env, tmp_path / "policy.json").items():
        with pytest.raises(MinioAdminException, match="AccessDenied"):
            print(name, request())
    Store(env).list("global/")


@pytest.mark.parametrize("who", ["site", "hub"])
def test_sites_and_hub_administer_no_users_of_aws(amazon: Side, who: str) -> None:
    env: Environment = getattr(amazon, who)
    user = user_of(env)
    iam = boto3.session.Session().client(
        "iam",
        endpoint_url=env.s3_endpoint,
        aws_access_key_id=user.access_key,
        aws_secret_access_key=user.secret_key,
        region_name="us-east-1",
        verify=str(env.ca_bundle),
    )
    everything = json.dumps({"Version": "2012-10-17", "Statement": []})
    for request in (
        lambda: iam.list_users(),
        lambda: iam.create_user(UserName="mine"),
        lambda: iam.create_access_key(UserName=OWN),
        lambda: iam.create_access_key(UserName="root"),
        lambda: iam.put_user_policy(UserName=OWN, PolicyName=OWN, PolicyDocument=everything),
        lambda: iam.delete_user_policy(UserName=OWN, PolicyName=OWN),
    ):
        with pytest.raises(ClientError, match="AccessDenied"):
            request()


# --- rotate and revoke


@pytest.fixture
def guest(real: Side) -> Iterator[S3User]:
    """A site's user of one test."""
    yield make_user(real.admin.s3_endpoint, user_of(real.admin), "guest", BUCKET)
    remove_user(real.admin.s3_endpoint, user_of(real.admin), "guest")


def derived(real: Side, user: S3User) -> list[Any]:
    """Clients with keys that a user can make of its own: by STS, and a service account."""
    url = real.admin.s3_endpoint
    provider = StaticProvider(user.access_key, user.secret_key)
    admin = MinioAdmin(endpoint=url.partition("://")[2], credentials=provider, secure=False)
    admin.add_service_account(access_key="of-a-guest", secret_key="secret-of-a-guest")
    session = boto3.session.Session(user.access_key, user.secret_key, region_name="us-east-1")
    role = "arn:aws:iam::000000000000:role/any"
    lent = session.client("sts", endpoint_url=url).assume_role(RoleArn=role, RoleSessionName="guest")
    keys = lent["Credentials"]
    names = ("AccessKeyId", "SecretAccessKey", "SessionToken")
    sessions = [
        boto3.session.Session("of-a-guest", "secret-of-a-guest", region_name="us-east-1"),
        boto3.session.Session(*(keys[name] for name in names), region_name="us-east-1"),
    ]
    return [session.client("s3", endpoint_url=url) for session in sessions]


def test_a_new_secret_ends_the_old_one_and_all_that_was_made_of_it_at_once(real: Side, guest: S3User) -> None:
    session = Store(as_user(real.admin, guest))
    session.put("sites/guest/card.json", b"1")
    others = derived(real, guest)
    for other in others:
        other.get_object(Bucket=BUCKET, Key="sites/guest/card.json")
        with pytest.raises(ClientError, match="AccessDenied"):
            other.get_object(Bucket=BUCKET, Key=MINE)
    again = make_user(real.admin.s3_endpoint, user_of(real.admin), "guest", BUCKET)
    for request in (lambda: session.put("sites/guest/card.json", b"2"), lambda: session.exists("global/x")):
        with pytest.raises(StoreDeniedError, match="SignatureDoesNotMatch"):
            request()
    for other in others:
        with pytest.raises(ClientError, match="InvalidAccessKeyId"):
            other.get_object(Bucket=BUCKET, Key="sites/guest/card.json")
    assert Store(as_user(real.admin, again)).get("sites/guest/card.json") == b"1"


def test_a_revoked_site_is_refused_with_its_next_request(real: Side, guest: S3User) -> None:
    session = Store(as_user(real.admin, guest))
    session.put("sites/guest/card.json", b"1")
    others = derived(real, guest)
    root = user_of(real.admin)
    assert remove_user(real.admin.s3_endpoint, root, "guest")
    for request in (
        lambda: session.put("sites/guest/card.json", b"2"),
        lambda: session.get("sites/guest/card.json"),
        lambda: session.exists("global/roster.json"),
        lambda: session.list("sites/guest/"),
    ):
        with pytest.raises(StoreDeniedError, match="InvalidAccessKeyId"):
            request()
    for other in others:
        with pytest.raises(ClientError, match="InvalidAccessKeyId"):
            other.get_object(Bucket=BUCKET, Key="sites/guest/card.json")
    assert not remove_user(real.admin.s3_endpoint, root, "guest")
    assert Store(real.admin).get("sites/guest/card.json") == b"1"


def test_a_site_changes_its_own_secret_and_the_old_one_ends_at_once(real: Side, guest: S3User) -> None:
    session = Store(as_user(real.admin, guest))
    session.put("sites/guest/card.json", b"1")
    change_secret(real.admin.s3_endpoint, guest, "one-that-nobody-was-told")
    with pytest.raises(StoreDeniedError, match="SignatureDoesNotMatch"):
        session.get("sites/guest/card.json")
    own = Store(as_user(real.admin, S3User(guest.access_key, "one-that-nobody-was-told")))
    assert own.get("sites/guest/card.json") == b"1"
    with pytest.raises(StoreDeniedError, match="AccessDenied"):
        own.get(THEIRS)


def test_the_hubs_user_changes_not_even_its_own_secret(real: Side) -> None:
    with pytest.raises(ServerError, match="AccessDenied"):
        change_secret(real.admin.s3_endpoint, user_of(real.hub), "secret-of-mine")


def test_only_the_stores_administrator_rotates_and_revokes(real: Side) -> None:
    for who in (real.site, real.hub):
        with pytest.raises(ServerError, match="did not remove"):
            remove_user(real.admin.s3_endpoint, user_of(who), OWN)
        with pytest.raises(ServerError, match="made no user") as error:
            make_user(real.admin.s3_endpoint, user_of(who), OWN, BUCKET)
        assert "cardiofed hub policy" in error.value.mend
    assert Store(real.site).exists("global/roster.json")


# --- the documents


@pytest.mark.parametrize("kind", ["aws", "minio"])
def test_the_command_prints_the_policy_that_is_tested(kind: Kind) -> None:
    done = CliRunner().invoke(app, ["hub", "policy", OWN, "--kind", kind, "--bucket", BUCKET])
    assert json.loads(done.output) == store_policy(OWN, BUCKET, kind)


@pytest.mark.parametrize(("name", "bucket"), [("st-*", "cardiofed"), ("st-anna", "b*"), ("", "cardiofed")])
def test_what_would_widen_a_policy_is_refused(name: str, bucket: str) -> None:
    with pytest.raises(ConfigError):
        store_policy(name, bucket)


def test_on_aws_nothing_is_allowed_without_tls() -> None:
    for name in (OWN, "hub"):
        statements: Any = store_policy(name, BUCKET, "aws")["Statement"]
        assert all(s["Condition"]["Bool"] == {"aws:SecureTransport": "true"} for s in statements)


@pytest.mark.parametrize("key", ["hub/nothing", f"sites/{OTHER}/nothing", THEIRS])
def test_who_knocks_where_it_may_not_read_is_refused(side: Side, key: str) -> None:
    with pytest.raises(StoreDeniedError):
        store_of(side.site).knock(key)
    store_of(side.site).knock("global/roster.json")
