"""What tells the patches of a slide from all others, so that what is computed of them can be kept between trials."""

from __future__ import annotations

from typing import Any, TypeVar


class HasContent:
    """A slide that may have a content key, which :func:`with_content` alone gives it.

    The key stands beside the slide's fields. What is made of them has none, whether by ``dataclasses.replace``, by
    ``fields`` or ``vars``, as a copy or from a pickle: so what is kept of a slide is never taken for another's.
    """

    __slots__ = ("_content",)

    @property
    def content(self) -> str | None:
        """The same for two slides only if their patches are; ``None``: nothing is known of them."""
        try:
            return str(object.__getattribute__(self, "_content"))
        except AttributeError:
            return None

    def __getstate__(self) -> dict[str, Any]:
        return vars(self)


AnySlide = TypeVar("AnySlide", bound=HasContent)


def with_content(slide: AnySlide, content: str) -> AnySlide:
    """The same slide, with its content key set: for the harness, which knows that no other patches have it."""
    object.__setattr__(slide, "_content", content)
    return slide
