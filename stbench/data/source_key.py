"""What determines the content of a slide that is present, before it is read."""

from __future__ import annotations

from ..dataset import SlideSource
from ..system.files import file_digest, value_digest


def source_key(source: SlideSource, version: int) -> str:
    """Digest of a slide's files and parameters, and of the ``version`` of what is made of it."""
    files = [file_digest(path) for path in source.files]
    return value_digest([version, source.id, files, dict(source.parameters)])
