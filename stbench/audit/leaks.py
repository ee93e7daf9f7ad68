"""Whether a method is shown what it is to predict: declared by it (``Needs.leak``), and said of every number."""

from __future__ import annotations

from collections.abc import Mapping

from .record import Finding, some


def badge(leaks: Mapping[str, str]) -> str:
    """``test expression reaches mclSTExp (released)``; empty where it reaches no method."""
    return f"test expression reaches {', '.join(leaks)}" if leaks else ""


def declared(leaks: Mapping[str, str], n_methods: int) -> Finding:
    """``leaks``: who sees a test slice's expression, by the name printed in tables, to what is done with it."""
    return Finding(
        "test-expression",
        "Methods that see the expression of the slice that they predict",
        "leak" if leaks else "ok",
        len(leaks),
        n_methods,
        "A released code does so, and the preset that follows it measures what that is worth: such numbers are marked "
        "and not ranked."
        if leaks
        else "A test slide has no expression attribute: no method here can see it.",
        some([f"{name}: {what}" for name, what in leaks.items()]),
    )
