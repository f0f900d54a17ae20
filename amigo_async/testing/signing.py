"""Presigned URLs as S3 makes and checks them: AWS Signature Version 4 in the query."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import quote, unquote, urlsplit

from amigo_async.redact import Secret, SecretUrl

ALGORITHM = "AWS4-HMAC-SHA256"
REGION = "us-east-1"
_FIELDS = (
    "X-Amz-Algorithm",
    "X-Amz-Credential",
    "X-Amz-Date",
    "X-Amz-Expires",
    "X-Amz-SignedHeaders",
    "X-Amz-Signature",
)


class SignatureError(Exception):
    """The store refuses a request.

    Args:
        code: S3's code of the error.
        message: S3's message.
        status: The HTTP status.
    """

    def __init__(self, code: str, message: str, status: int = 403) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.status = status


class Signer:
    """Signs and checks with one pair of keys.

    Args:
        access_key_id: The public half.
        secret: The secret half.
    """

    def __init__(self, access_key_id: str, secret: str) -> None:
        self._access_key_id = access_key_id
        self._secret = Secret(secret)

    def presign(
        self, method: str, base: str, path: str, *, now: float, lifetime: int
    ) -> tuple[SecretUrl, float]:
        """A URL that lets anyone do `method`, and when it expires.

        Args:
            method: The only HTTP method it is good for.
            base: The scheme and host of the store.
            path: The percent-encoded path.
            now: Seconds since the epoch.
            lifetime: Whole seconds it is good for.
        """
        stamp = datetime.fromtimestamp(int(now), UTC).strftime("%Y%m%dT%H%M%SZ")
        credential = f"{self._access_key_id}/{stamp[:8]}/{REGION}/s3/aws4_request"
        query = [
            f"X-Amz-Algorithm={ALGORITHM}",
            f"X-Amz-Credential={quote(credential, safe='')}",
            f"X-Amz-Date={stamp}",
            f"X-Amz-Expires={lifetime}",
            "X-Amz-SignedHeaders=host",
        ]
        host = f"host:{urlsplit(base).netloc}\n"
        signature = self._signature(method, path, query, host, "host", stamp)
        url = f"{base}{path}?{'&'.join([*query, f'X-Amz-Signature={signature}'])}"
        return SecretUrl(url), int(now) + lifetime

    def check(
        self, method: str, path: str, query: str, headers: Mapping[str, str], *, now: float
    ) -> None:
        """Refuse a request that is not signed with these keys, or whose time is over.

        Args:
            method: As it was sent.
            path: As it was sent, not decoded.
            query: As it was sent, not decoded, without the question mark.
            headers: The headers of the request.
            now: Seconds since the epoch.

        Raises:
            SignatureError: As S3 refuses.
        """
        pairs = [part for part in query.split("&") if part]
        fields = {name: unquote(value) for name, _, value in (p.partition("=") for p in pairs)}
        if not any(name in fields for name in _FIELDS):
            raise SignatureError("AccessDenied", "Access Denied")
        expires = _expiry(fields)
        if expires is None or not all(name in fields for name in _FIELDS):
            raise SignatureError(
                "AuthorizationQueryParametersError", "Query-string authentication is malformed", 400
            )
        if now >= expires:
            raise SignatureError("AccessDenied", "Request has expired")
        names = fields["X-Amz-SignedHeaders"].split(";")
        signed = "".join(f"{name}:{headers.get(name, '').strip()}\n" for name in names)
        unsigned = [part for part in pairs if not part.startswith("X-Amz-Signature=")]
        stamp = fields["X-Amz-Date"]
        wanted = self._signature(method, path, unsigned, signed, ";".join(names), stamp)
        scope = f"{self._access_key_id}/{stamp[:8]}/{REGION}/s3/aws4_request"
        good = hmac.compare_digest(wanted.encode(), fields["X-Amz-Signature"].encode())
        if not good or fields["X-Amz-Credential"] != scope:
            raise SignatureError(
                "SignatureDoesNotMatch",
                "The request signature we calculated does not match the signature you provided.",
            )

    def _signature(  # noqa: PLR0917  # the parts of the canonical request, in its order
        self, method: str, path: str, query: list[str], signed: str, names: str, stamp: str
    ) -> str:
        # https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html
        canonical = "\n".join(
            [method, path, "&".join(sorted(query)), signed, names, "UNSIGNED-PAYLOAD"]
        )
        scope = f"{stamp[:8]}/{REGION}/s3/aws4_request"
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        key = f"AWS4{self._secret}".encode()
        for part in (stamp[:8], REGION, "s3", "aws4_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        text = f"{ALGORITHM}\n{stamp}\n{scope}\n{digest}"
        return hmac.new(key, text.encode(), "sha256").hexdigest()


def _expiry(fields: dict[str, str]) -> float | None:
    """When the link ends, in seconds since the epoch; None if it does not say so rightly."""
    try:
        signed = datetime.strptime(fields["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        lifetime = int(fields["X-Amz-Expires"])
    except (KeyError, ValueError):
        return None
    if fields.get("X-Amz-Algorithm") != ALGORITHM or not 0 <= lifetime <= 604800:
        return None
    return signed.timestamp() + lifetime
