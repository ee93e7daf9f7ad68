"""Calls into a method: what it raises becomes the method's own failure, in words, and the process stays as it was."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NoReturn, TypeVar, cast

import numpy as np

from ..errors import Interrupted, MethodFailed, said
from .interrupt import receives_sigint
from .isolation import process_kept

T = TypeVar("T")

OF_THE_PLACE = (errno.ENOSPC, errno.EDQUOT)  # whatever the method writes, there is no room


class Calls:
    """Makes calls into one method.

    ``tell(text)`` hears, in words, what a call had changed in the process. ``seed(what)`` gives the seed that the
    global random generators start from in a call; without it they are left as they are. ``was_asked_to_stop()``:
    whether the method may raise ``Interrupted``.
    """

    def __init__(
        self,
        name: str,
        tell: Callable[[str], object] | None = None,
        seed: Callable[[str], int] | None = None,
        was_asked_to_stop: Callable[[], bool] = lambda: True,
    ) -> None:
        self.name = name
        self.tell = tell
        self.seed = seed
        self.was_asked_to_stop = was_asked_to_stop

    def __call__(self, what: str, function: Callable[..., T], /, *arguments: Any, **named: Any) -> T:
        """``function(*arguments, **named)``, a call into the method that is known to its user as ``what``.

        Raises what the function raises, where an error of Python's is an answer, and ``MethodFailed`` for what would
        end more than the method: ``sys.exit``, a ``KeyboardInterrupt`` that nobody typed, anything else that is no
        ``Exception``.
        """
        seed = None if self.seed is None else self.seed(what)

        def changed(words: list[str]) -> None:
            if self.tell is not None:
                self.tell(f"{self.name} changed in {what}: {', '.join(words)}; it was put back")

        with process_kept(changed, seed), _no_exit():
            try:
                return function(*arguments, **named)
            except Interrupted as pause:
                if self.was_asked_to_stop():
                    raise
                raise MethodFailed(f"it raised Interrupted in {what} though nobody asked it to stop") from pause
            except OSError as error:
                if error.errno in OF_THE_PLACE:
                    raise
                raise MethodFailed(said(error)) from error  # a missing permission, say, of a file of its own
            except Exception:
                raise
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt) and (self.was_asked_to_stop() or not receives_sigint()):
                    raise  # the user's
                raise MethodFailed(said(error)) from error

    def guard(self, method: T, read: Callable[[Any, Any], np.ndarray] | None = None) -> T:
        """``method`` with every call and every look at an attribute made by :meth:`__call__`.

        ``read(value, slide)`` makes an array of what ``predict`` returned, or ``predict_slides`` of one of its slides.
        """
        return cast(T, Guarded(method, self, read))


class Guarded:
    """A method as the harness holds it: see :meth:`Calls.guard`."""

    def __init__(self, method: Any, calls: Calls, read: Callable[[Any, Any], np.ndarray] | None) -> None:
        object.__setattr__(self, "_guarded", (method, calls, read))

    def __getattr__(self, name: str) -> Any:
        method, calls, read = self._guarded
        value = calls(name, getattr, method, name)
        if not callable(value) or isinstance(value, type):
            return value

        def call(*arguments: Any, **named: Any) -> Any:
            return calls(name, value, *arguments, **named)

        def predict(slide: Any) -> np.ndarray:
            assert read is not None
            return read(call(slide), slide)

        def predict_slides(slides: Iterable[Any]) -> list[np.ndarray]:
            assert read is not None
            outlines: list[Any] = []

            def handed() -> Iterator[Any]:
                for slide in slides:  # whose patches need not stay until all are predicted
                    nothing = np.empty((slide.n_spots, 0, 0, 3), dtype=np.uint8)
                    outlines.append(replace(slide, patches=nothing, margins=None))
                    yield slide

            values = list(call(handed()))
            if len(values) != len(outlines):
                raise MethodFailed(f"its predict_slides gave {len(values)} predictions of {len(outlines)} slides")
            return [read(value, slide) for value, slide in zip(values, outlines, strict=True)]

        own = {} if read is None else {"predict": predict, "predict_slides": predict_slides}
        return own.get(name, call)

    def __setattr__(self, name: str, value: Any) -> None:
        method, calls, _ = self._guarded
        calls(name, setattr, method, name, value)


def named(value: object) -> str:
    """The type of a value in words: ``None``, ``a list``, ``a numpy array``."""
    if value is None:
        return "None"
    if type(value) is np.ndarray:
        return "a numpy array"
    kind = type(value).__name__
    return f"{'an' if kind[0].lower() in 'aeiou' else 'a'} {kind}"


@contextmanager
def _no_exit() -> Iterator[None]:
    """Let ``os._exit``, which would end the run without any message, end the call alone; child processes keep it."""
    real, ours = os._exit, os.getpid()

    def leave(status: int) -> NoReturn:
        if os.getpid() != ours:
            real(status)
        raise MethodFailed(f"it called os._exit({status})")

    os._exit = leave
    try:
        yield
    finally:
        os._exit = real
