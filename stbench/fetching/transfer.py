"""One file over HTTP: resumed where it broke off, tried again within limits, never put together of two versions.

What has come lies in a part file; beside it stands what the server said of the whole (``.json``), so that the next
attempt, of this process or another, asks for the rest of that same file and of no other.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..system.files import write_json, writing_to
from .answers import TryAgain, require_file, trouble_of
from .room import require_room

if TYPE_CHECKING:
    import httpx

LOOK_AT_ROOM = 64 << 20  # bytes between two looks at the free space, where the size is not known


@dataclass(frozen=True)
class Limits:
    """How long and how often."""

    connect_s: float = 20.0
    stall_s: float = 60.0  # without a byte, or with fewer than ``slowest`` a second on average
    slowest: float = 1000.0
    tries: int = 5  # one after the other that bring less than ``progress`` bytes of the file
    progress: int = 1 << 20
    wait_s: float = 1.0  # before the second try; doubled before each further one
    longest_wait_s: float = 120.0  # that a server may ask for
    redirects: int = 10


def open_client(limits: Limits) -> httpx.Client:
    """Proxies and certificates are taken from the environment (HTTPS_PROXY, SSL_CERT_FILE)."""
    import httpx

    from .. import __version__

    return httpx.Client(
        follow_redirects=True,
        max_redirects=limits.redirects,
        timeout=httpx.Timeout(limits.stall_s, connect=limits.connect_s),
        # compressed on the way, a file has neither the size nor the offsets that a range is about
        headers={"User-Agent": f"stbench/{__version__}", "Accept-Encoding": "identity"},
    )


@dataclass
class Download:
    """A file on its way.

    Parameters
    ----------
    client : httpx.Client
    url : str
    part : Path
        Where what has come is kept; complete when :meth:`run` returns.
    bytes : int, optional
        Size of the whole, as published.
    has_checksum : bool
        Whether the whole will be compared with a checksum: then it may be resumed even where the server says nothing
        by which a changed file would be known.
    page : str
        For people, named where the server refuses.
    say, at : callable
        Hear of troubles in words, and of (bytes that are here, bytes of the whole or ``None``).
    most : int, optional
        Bytes after which it cannot be what is wanted.
    """

    client: httpx.Client
    url: str
    part: Path
    limits: Limits
    page: str
    bytes: int | None = None
    has_checksum: bool = False
    say: Callable[[str], None] = lambda text: None
    at: Callable[[int, int | None], None] = lambda done, total: None
    most: int | None = None

    def run(self) -> None:
        """Raises ``UserError`` where it does not come; what has come is kept for the next time."""
        import httpx

        tries, furthest = 0, self._here()
        while True:
            try:
                self._attempt()
                return
            except (httpx.HTTPError, httpx.InvalidURL, TryAgain) as error:
                trouble = error if isinstance(error, TryAgain) else trouble_of(error, self.url)
            tries = 1 if self._here() - furthest >= self.limits.progress else tries + 1
            furthest = max(furthest, self._here())
            wait = trouble.wait_s if trouble.wait_s is not None else self.limits.wait_s * 2 ** (tries - 1)
            if wait > self.limits.longest_wait_s:
                raise UserError(
                    f"{self.url}: {trouble}, and asks to wait for {wait / 60:.0f} minutes - run the same command then"
                )
            if tries >= self.limits.tries:
                elsewhere = ", or where there is a network, and give the folder with --from" if trouble.offline else ""
                raise UserError(
                    f"{self.url}: {trouble}, {tries} times - {self._kept()}run the same command later{elsewhere}"
                )
            self.say(f"{trouble}; again in {wait:.0f} s")
            time.sleep(wait)

    def _here(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _kept(self) -> str:
        return f"{self._here():,} bytes are kept; " if self._here() else ""

    @property
    def _about(self) -> Path:
        return self.part.with_name(f"{self.part.name}.json")

    def _attempt(self) -> None:
        before = self._before()
        here = self._here() if before is not None else 0
        headers = {}
        if here:
            headers["Range"] = f"bytes={here}-"
            if before and before.get("validator"):
                headers["If-Range"] = before["validator"]
        with self.client.stream("GET", self.url, headers=headers) as answer:
            if answer.status_code == 416 and here:
                if re.fullmatch(rf"bytes \*/{here}", answer.headers.get("content-range", "").strip()):
                    return  # all of it was here
                self._forget()
                raise TryAgain("the file there is shorter than what is here, so it is another")
            require_file(answer, self.url, self.page)
            start, total = _range(answer) if answer.status_code == 206 else (0, _length(answer))
            if answer.status_code == 206 and not self._continues(answer, before or {}, start, here, total):
                self._forget()
                raise TryAgain("the server sent another part, or of another file, than was asked for")
            if here and not start:
                self.say("the server sends it from the beginning: it does not resume, or the file has changed")
            self._require_size(total)
            write_json(self._about, {"url": self.url, "validator": _validator(answer), "total": total})
            self._receive(answer, start, total)

    def _before(self) -> dict[str, Any] | None:
        """What is known of the whole of which a part is here; ``None`` where the part cannot be gone on with."""
        try:
            before = json.loads(self._about.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if not isinstance(before, dict) or before.get("url") != self.url:
            return None
        if not isinstance(before.get("validator"), str | None):
            return None
        return before if before.get("validator") or self.has_checksum else None

    def _continues(
        self, answer: httpx.Response, before: dict[str, Any], start: int, here: int, total: int | None
    ) -> bool:
        validators = (before.get("validator"), _validator(answer))
        same = None in validators or validators[0] == validators[1]
        return start == here and same and (before.get("total") in (None, total) or total is None)

    def _forget(self) -> None:
        self.part.unlink(missing_ok=True)
        self._about.unlink(missing_ok=True)

    def _require_size(self, total: int | None) -> None:
        if total is not None and self.bytes is not None and total != self.bytes:
            raise UserError(
                f"{self.url} has {total:,} bytes where {self.bytes:,} are published - the file was replaced there, or "
                f"something else is sent in its place; see {self.page}"
            )
        if total is not None and self.most is not None and total > self.most:
            raise UserError(f"{self.url} has {total:,} bytes, too many for what it is - see {self.page}")

    def _receive(self, answer: httpx.Response, start: int, total: int | None) -> None:
        here, looked_at = start, start
        whole = total if total is not None else self.bytes
        require_room(self.part.parent, (whole - start) if whole is not None else LOOK_AT_ROOM)
        with writing_to(self.part), open(self.part, "r+b" if start else "wb") as handle:
            handle.seek(start)
            since, counted = time.monotonic(), 0
            self.at(here, whole)
            for chunk in answer.iter_raw():
                handle.write(chunk)
                here += len(chunk)
                counted += len(chunk)
                self.at(here, whole)
                if here > min(limit for limit in (self.most, whole, here) if limit is not None):
                    raise UserError(f"{self.url} sends more bytes than it has - see {self.page}")
                if whole is None and here - looked_at > LOOK_AT_ROOM:
                    require_room(self.part.parent, LOOK_AT_ROOM)
                    looked_at = here
                passed = time.monotonic() - since
                if passed > self.limits.stall_s:
                    if counted < self.limits.slowest * passed:
                        raise TryAgain(f"only {counted:,} bytes came in {passed:.0f} s")
                    since, counted = time.monotonic(), 0
        if whole is not None and here != whole:
            raise TryAgain(f"it ended after {here:,} of {whole:,} bytes")


def _validator(answer: httpx.Response) -> str | None:
    """What ``If-Range`` may hold: a strong entity tag, else the date of the last change."""
    tag = answer.headers.get("etag", "")
    return tag if tag.startswith('"') else answer.headers.get("last-modified")


def _length(answer: httpx.Response) -> int | None:
    text = answer.headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() else None


def _range(answer: httpx.Response) -> tuple[int, int | None]:
    """Where a partial answer begins and how long the whole is; begins at -1 where it does not say."""
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("content-range", "").strip())
    if found is None:
        return -1, None
    return int(found[1]), None if found[2] == "*" else int(found[2])
