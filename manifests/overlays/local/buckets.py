"""Makes the buckets of the local overlay; run by its Job, with the addresses and keys in the environment."""

import os

import boto3
from botocore.exceptions import ClientError


def make(names: list[str]) -> None:
    """Makes the buckets that are not there yet.

    Raises:
        ClientError: the store refuses for another reason.
    """
    store = boto3.client("s3")
    for name in names:
        try:
            store.create_bucket(Bucket=name)
            print(f"bucket={name} made")
        except ClientError as error:
            if error.response["Error"]["Code"] not in {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}:
                raise
            print(f"bucket={name} was there")


if __name__ == "__main__":
    make(os.environ["BUCKETS"].split())
