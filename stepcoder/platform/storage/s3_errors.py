"""An object store's errors in our words: what failed, at which address, what to do; never a credential."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from stepcoder.errors import DataError, StepCoderError
from stepcoder.platform.redaction import redacted
from stepcoder.platform.storage.s3_retries import cause_of

_MISSING = {"NoSuchBucket", "NoSuchKey", "404"}
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired", "InvalidToken"}
_REFUSED = {"AccessDenied", "AllAccessDisabled", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch"}
_ELSEWHERE = {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301"}


@contextmanager
def reporting(address: str) -> Iterator[None]:
    """Turns boto3's errors into ours; they name the address and never a credential.

    Raises:
        DataError: there is no such bucket or object.
        StepCoderError: anything else.
    """
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError
    from urllib3.exceptions import HTTPError

    try:
        yield
    except (ClientError, BotoCoreError, Boto3Error, HTTPError) as error:
        # Without the cause: a traceback would print it, and an endpoint's address can hold a password.
        raise _explained(address, cause_of(error)) from None


def code_of(error: BaseException) -> str:
    """The store's code of an error, such as `NoSuchKey` or `404`; empty when it did not answer."""
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def _explained(address: str, error: BaseException) -> StepCoderError:
    from botocore.exceptions import CredentialRetrievalError, NoCredentialsError, PartialCredentialsError, SSLError

    code, told = code_of(error), redacted(str(error))
    if code in _MISSING:
        return DataError(f"{address}: there is no such bucket or object")
    if code in _EXPIRED:
        return StepCoderError(f"{address}: the credentials have expired ({code}); get new ones and start again")
    if code in _REFUSED:
        return StepCoderError(f"{address}: the object store refuses access ({code}); check the credentials")
    if code in _ELSEWHERE:
        return StepCoderError(f"{address}: the bucket is in another region ({code}); set AWS_REGION: {told}")
    if code == "RequestTimeTooSkewed":
        return StepCoderError(f"{address}: this machine's clock is wrong ({code})")
    if code:
        return StepCoderError(f"{address}: the object store answered {code}: {told}")
    if isinstance(error, NoCredentialsError | PartialCredentialsError | CredentialRetrievalError):
        return StepCoderError(f"{address}: no usable credentials; set AWS_ACCESS_KEY_ID and the like: {told}")
    if isinstance(error, SSLError):
        return StepCoderError(f"{address}: the store's certificate or TLS fails; AWS_CA_BUNDLE names a CA: {told}")
    return StepCoderError(f"{address}: cannot reach the object store: {told}")
