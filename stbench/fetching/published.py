"""Sizes and checksums that a Zenodo record states when it is asked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from .catalogue import Wanted
from .checksums import Checksum
from .transfer import Download, Limits

if TYPE_CHECKING:
    import httpx

MOST_BYTES = 16 << 20


def with_record(wanted: Sequence[Wanted], client: httpx.Client, work: Path, limits: Limits) -> list[Wanted]:
    """The same files with size and checksum, where their part names a record. Each record is asked once."""
    states: dict[str, dict[str, tuple[int, Checksum]]] = {}
    known = []
    for file in wanted:
        record = file.part.record
        if record is None:
            known.append(file)
            continue
        if record not in states:
            states[record] = _ask(record, file.part.page, client, work, limits)
        name = file.url.removeprefix(file.part.base)
        if name not in states[record]:
            raise UserError(f"{record} lists no {name} - see {file.part.page}; a mirror can be given with --from URL")
        size, checksum = states[record][name]
        known.append(replace(file, bytes=size, checksum=checksum))
    return known


def _ask(record: str, page: str, client: httpx.Client, work: Path, limits: Limits) -> dict[str, tuple[int, Checksum]]:
    answer = work / "record.json"
    answer.unlink(missing_ok=True)
    try:
        Download(client, record, answer, limits, page, most=MOST_BYTES).run()
        content = json.loads(answer.read_bytes())
        return {file["key"]: (int(file["size"]), Checksum.parse(file["checksum"])) for file in content["files"]}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{record} does not answer with a record of Zenodo - see {page}") from error
    finally:
        answer.unlink(missing_ok=True)
        answer.with_name(f"{answer.name}.json").unlink(missing_ok=True)
