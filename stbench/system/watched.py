"""One piece of process-wide state: how it is read, compared, put back and named."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Watched:
    """One piece of process-wide state. ``read`` gives something that ``==`` compares, ``restore`` takes it again.

    ``library``: looked at only where that module is loaded. ``is_blamed(before, after)``: whether the change is worth
    naming its author; some state is moved by the use of a library alone. ``detail(before, after)``: what changed.
    """

    words: str
    read: Callable[[], Any]
    restore: Callable[[Any], object]
    library: str = ""
    is_blamed: Callable[[Any, Any], bool] = lambda before, after: True
    detail: Callable[[Any, Any], str] = lambda before, after: ""

    def state(self) -> Any:
        """What ``read`` gives, or why it cannot be read (of a default device that is not there, say)."""
        try:
            return self.read()
        except Exception as error:  # noqa: BLE001 - a stranger may have left anything
            return Unreadable(str(error))

    def change(self, before: Any, after: Any) -> str:
        """In words; empty where there is none, or nobody is to be blamed for it."""
        if before == after:
            return ""
        if Unreadable in (type(before), type(after)):
            return self.words
        if not self.is_blamed(before, after):
            return ""
        detail = self.detail(before, after)
        return f"{self.words}{f' ({detail})' if detail else ''}"

    def put_back(self, before: Any) -> bool:
        """Whether it is as it was."""
        try:
            self.restore(before)
        except Exception:  # noqa: BLE001 - said by the caller, who names the author
            return False
        return not self.change(before, self.state())


@dataclass(frozen=True)
class Unreadable:
    reason: str


def now_it_is(before: object, after: object) -> str:
    return f"now {after}"


def changed_entries(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """The keys that differ."""
    differing = [key for key in {**before, **after} if before.get(key, now_it_is) != after.get(key, now_it_is)]
    return ", ".join(differing[:5]) + (" ..." if len(differing) > 5 else "")
