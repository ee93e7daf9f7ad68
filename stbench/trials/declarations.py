"""What a configured method declares of itself, asked before anything runs."""

from __future__ import annotations

from ..errors import MethodFailed
from ..method import Method, MethodConfig, Needs
from ..system.calls import Calls, named


def declared(calls: Calls, method: type[Method], config: MethodConfig) -> tuple[Needs, str]:
    """``needs`` and ``weights_label`` of a configured method.

    Raises whatever its constructor does, and ``MethodFailed`` for what is no declaration.
    """
    fresh = calls.guard(calls("its constructor", method, config))
    needs, label = fresh.needs, fresh.weights_label
    if not isinstance(needs, Needs):
        raise MethodFailed(f"its needs are {named(needs)}, not a stbench.method.Needs")
    if not isinstance(label, str) or not label:
        raise MethodFailed(f"its weights_label is {label!r}, not a text such as 'none' or 'random'")
    return needs, label
