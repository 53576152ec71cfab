"""Everything that a site must not be able to do in the store, and what it must, as requests by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

OWN, OTHER = "st-anna", "lakeside"
MINE, THEIRS = f"sites/{OWN}/card.json", f"sites/{OTHER}/card.json"
SEEDED = {
    MINE: b"mine",
    THEIRS: b"theirs",
    f"sites/{OWN}x/card.json": b"of a site whose name begins with ours",
    "global/roster.json": b"for all",
    "hub/rounds/0001/senders.json": b"for the hub",
    "dvc/files/md5/00/1": b"for the hub",
}
HUBS = ("hub/rounds/0001/senders.json", "dvc/files/md5/00/1")

Request = Callable[[Any, str], Any]
"""Of an S3 client and a bucket."""


def reading(key: str) -> dict[str, Request]:
    """Every way to read an object, or to learn that it is there."""
    return {
        f"get {key}": lambda s3, b: s3.get_object(Bucket=b, Key=key),
        f"head {key}": lambda s3, b: s3.head_object(Bucket=b, Key=key),
        f"copy {key} home": lambda s3, b: s3.copy_object(
            Bucket=b, Key=f"sites/{OWN}/copied", CopySource={"Bucket": b, "Key": key}
        ),
        f"copy a part of {key} home": lambda s3, b: copy_part(s3, b, key),
        f"list {key}": lambda s3, b: s3.list_objects_v2(Bucket=b, Prefix=key),
        f"list the folder of {key}": lambda s3, b: s3.list_objects_v2(
            Bucket=b, Prefix=key.rpartition("/")[0] + "/"
        ),
        f"list {key} as of old": lambda s3, b: s3.list_objects(Bucket=b, Prefix=key),
        f"read the tags of {key}": lambda s3, b: s3.get_object_tagging(Bucket=b, Key=key),
    }


def writing(key: str) -> dict[str, Request]:
    """Every way to write an object or to take it away."""
    return {
        f"put {key}": lambda s3, b: s3.put_object(Bucket=b, Key=key, Body=b"forged"),
        f"copy over {key}": lambda s3, b: s3.copy_object(
            Bucket=b, Key=key, CopySource={"Bucket": b, "Key": MINE}
        ),
        f"put {key} in parts": lambda s3, b: s3.create_multipart_upload(Bucket=b, Key=key),
        f"tag {key}": lambda s3, b: s3.put_object_tagging(
            Bucket=b, Key=key, Tagging={"TagSet": [{"Key": "a", "Value": "b"}]}
        ),
        **deleting(key),
    }


def deleting(key: str) -> dict[str, Request]:
    return {
        f"delete {key}": lambda s3, b: s3.delete_object(Bucket=b, Key=key),
        f"delete {key} among others": lambda s3, b: s3.delete_objects(
            Bucket=b, Delete={"Objects": [{"Key": key}]}
        ),
    }


def copy_part(s3: Any, bucket: str, key: str) -> None:
    """Begin an upload at home, and have the store fill it from elsewhere."""
    home = f"sites/{OWN}/parts"
    upload = s3.create_multipart_upload(Bucket=bucket, Key=home)["UploadId"]
    try:
        s3.upload_part_copy(
            Bucket=bucket,
            Key=home,
            UploadId=upload,
            PartNumber=1,
            CopySource={"Bucket": bucket, "Key": key},
        )
    finally:
        s3.abort_multipart_upload(Bucket=bucket, Key=home, UploadId=upload)


OF_BUCKET: dict[str, Request] = {
    "list everything": lambda s3, b: s3.list_objects_v2(Bucket=b),
    "list everything as of old": lambda s3, b: s3.list_objects(Bucket=b),
    "list all sites": lambda s3, b: s3.list_objects_v2(Bucket=b, Prefix="sites/"),
    "list what begins like its name": lambda s3, b: s3.list_objects_v2(Bucket=b, Prefix=f"sites/{OWN}"),
    "list what begins like global": lambda s3, b: s3.list_objects_v2(Bucket=b, Prefix="g"),
    "list the folders": lambda s3, b: s3.list_objects_v2(Bucket=b, Delimiter="/"),
    "list versions": lambda s3, b: s3.list_object_versions(Bucket=b),
    "list uploads": lambda s3, b: s3.list_multipart_uploads(Bucket=b),
    "read the bucket's policy": lambda s3, b: s3.get_bucket_policy(Bucket=b),
    "write the bucket's policy": lambda s3, b: s3.put_bucket_policy(Bucket=b, Policy="{}"),
    "delete the bucket's policy": lambda s3, b: s3.delete_bucket_policy(Bucket=b),
    "read the bucket's owners": lambda s3, b: s3.get_bucket_acl(Bucket=b),
    "turn versions on": lambda s3, b: s3.put_bucket_versioning(
        Bucket=b, VersioningConfiguration={"Status": "Enabled"}
    ),
    "delete the bucket": lambda s3, b: s3.delete_bucket(Bucket=b),
    "list buckets": lambda s3, b: s3.list_buckets(),
    "make a bucket": lambda s3, b: s3.create_bucket(Bucket="of-its-own"),
}

FORBIDDEN: dict[str, Request] = {
    **{name: request for key in (THEIRS, *HUBS) for name, request in reading(key).items()},
    **{
        name: request
        for key in (THEIRS, "global/roster.json", *HUBS)
        for name, request in writing(key).items()
    },
    **writing(f"sites/{OWN}x/card.json"),
    **deleting(MINE),
    **OF_BUCKET,
}

ALLOWED: dict[str, Request] = {
    "get its own": lambda s3, b: s3.get_object(Bucket=b, Key=MINE),
    "head its own": lambda s3, b: s3.head_object(Bucket=b, Key=MINE),
    "put its own": lambda s3, b: s3.put_object(Bucket=b, Key=f"sites/{OWN}/new", Body=b"new"),
    "list its own": lambda s3, b: s3.list_objects_v2(Bucket=b, Prefix=f"sites/{OWN}/"),
    "get global": lambda s3, b: s3.get_object(Bucket=b, Key="global/roster.json"),
    "head global": lambda s3, b: s3.head_object(Bucket=b, Key="global/roster.json"),
    "list global": lambda s3, b: s3.list_objects_v2(Bucket=b, Prefix="global/"),
    "copy global home": lambda s3, b: copy_part(s3, b, "global/roster.json"),
    "put in parts and give up": lambda s3, b: s3.abort_multipart_upload(
        Bucket=b,
        Key=MINE,
        UploadId=s3.create_multipart_upload(Bucket=b, Key=MINE)["UploadId"],
    ),
}
