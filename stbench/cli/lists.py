"""Options that hold several values separated by commas, as lists."""

from __future__ import annotations

from ..errors import UserError


def words(text: str, option: str) -> list[str]:
    """The names in ``text``, at least one and none twice; ``option`` is its name in errors."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise UserError(f"{option} is empty - give at least one name")
    if len(set(words)) < len(words):
        raise UserError(f"{option} {text} names something twice - name each once")
    return words


def slice_list(text: str | None) -> list[str] | None:
    """The slices of ``--slices``; ``None`` means all."""
    return None if text is None else words(text, "--slices")


def seed_list(text: str) -> list[int]:
    """The seeds of ``--seeds``."""
    listed = words(text, "--seeds")
    try:
        return [int(word) for word in listed]
    except ValueError:
        raise UserError(f"--seeds {text} is not a list of whole numbers, e.g. --seeds 0,1,2") from None
