"""What a server's answer, or the lack of one, means: try again, or stop and say why."""

from __future__ import annotations

import datetime
import email.utils
from typing import TYPE_CHECKING

from ..errors import UserError, reason_of

if TYPE_CHECKING:
    import httpx

BUSY = (408, 425, 429, 500, 502, 503, 504)
GONE = (404, 410)
LOCKED = (401, 402, 403, 407, 451)
COMPRESSED = (".gz", ".tgz")  # some servers declare as encoded on the way what is so on the disk


class TryAgain(Exception):  # noqa: N818 - not an error until it was tried often enough
    """What went wrong, in words, how long the server asks to wait, and whether no server was reached at all."""

    def __init__(self, reason: str, wait_s: float | None = None, offline: bool = False) -> None:
        super().__init__(reason)
        self.wait_s, self.offline = wait_s, offline


def require_file(answer: httpx.Response, url: str, page: str) -> None:
    """Nothing for an answer that brings a file; ``TryAgain`` or ``UserError`` for every other."""
    code = answer.status_code
    says = f"{code} {answer.reason_phrase}".strip()
    if url.startswith("https:") and any(hop.url.scheme != "https" for hop in (*answer.history, answer)):
        raise UserError(f"{url} leads to an address that is not secure ({answer.url}) - see {page}")
    if code in BUSY:
        raise TryAgain(f"the server answers {says}", _retry_after(answer))
    by_hand = f"see {page}; files that you have can be given with --from FOLDER, a mirror with --from URL"
    if code in GONE:
        raise UserError(f"{url} is not there ({says}) - {by_hand}")
    if code in LOCKED:
        raise UserError(f"{url} is refused ({says}): it may want a login, or not want this network - {by_hand}")
    if code not in (200, 206):
        raise UserError(f"{url} is answered by {says} - {by_hand}")
    if answer.headers.get("content-type", "").partition(";")[0].strip().lower() in (
        "text/html",
        "application/xhtml+xml",
    ):
        raise UserError(
            f"{url} is answered by a web page, not by the file (a login, a consent or a proxy's page) - {by_hand}"
        )
    encoding = answer.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity") and not answer.url.path.endswith(COMPRESSED):
        raise UserError(f"{url} is sent compressed ({encoding}) though that was not asked for - {by_hand}")


def trouble_of(error: Exception, url: str) -> TryAgain:
    """In words what httpx raised; ``UserError`` where trying again would not help."""
    import httpx

    if isinstance(error, httpx.TooManyRedirects):
        raise UserError(
            f"{url} is redirected again and again, in a circle - tell its publisher, or use a mirror (--from)"
        )
    if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol):
        raise UserError(f"{url} is no address ({reason_of(error)}) - write https://...") from error
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        raise UserError(
            f"{url}: the server's certificate cannot be verified - check this machine's clock; behind a proxy that "
            "opens connections, set SSL_CERT_FILE to its certificate"
        ) from error
    if isinstance(error, httpx.ConnectTimeout | httpx.PoolTimeout):
        return TryAgain("the server does not answer", offline=True)
    if isinstance(error, httpx.TimeoutException):
        return TryAgain("nothing came for too long")
    if isinstance(error, httpx.ConnectError | httpx.ProxyError):
        return TryAgain(f"there is no connection ({reason_of(error, 120)})", offline=True)
    return TryAgain(f"the connection broke off ({reason_of(error, 120)})")


def _retry_after(answer: httpx.Response) -> float | None:
    """Seconds that the server asks to wait, which it may write as a date."""
    text = answer.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        until = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    now = datetime.datetime.now(datetime.UTC)
    return max(0.0, ((until if until.tzinfo else until.replace(tzinfo=datetime.UTC)) - now).total_seconds())
