"""Where weights of published encoders lie in the user's own Hugging Face cache: looked up, never downloaded."""

from __future__ import annotations

from pathlib import Path

from .table import PublishedEncoder


def file_in_cache(row: PublishedEncoder) -> Path | None:
    """The first of the row's files that is in the cache; ``None`` where none is."""
    import huggingface_hub
    import huggingface_hub.constants

    cache = huggingface_hub.constants.HF_HUB_CACHE
    for each in row.hub:
        found = huggingface_hub.try_to_load_from_cache(each.repository, each.file, cache_dir=cache, repo_type=each.kind)
        if isinstance(found, str):
            return Path(found)
    return None
