"""Which precision a method may compute in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import UserError, unknown

if TYPE_CHECKING:
    from ..method import Method
from ..system.precision import PRECISIONS, Precision


def resolve_precision(asked: str, method: type[Method] | None = None) -> Precision:
    """``auto`` is ``fp32``, on every device: what a trial is must not depend on the machine that plans it.

    So is whatever is asked for where ``method`` is a control.
    """
    if asked not in ("auto", *PRECISIONS):
        raise unknown("precision", asked, ["auto", *PRECISIONS])
    if asked == "auto" or (method is not None and method.kind == "control"):
        return "fp32"
    return next(precision for precision in PRECISIONS if precision == asked)


def safe_precisions(method: type[Method]) -> tuple[Precision, ...]:
    """Those that ``method`` declares, by an attribute of that name; ``fp32`` always."""
    declared = {"fp32", *getattr(method, "safe_precisions", ())}
    return tuple(precision for precision in PRECISIONS if precision in declared)


def unsafe_methods(methods: Sequence[type[Method]], asked: str) -> list[type[Method]]:
    """The ``methods`` that do not declare the precision asked for safe."""
    return [method for method in methods if resolve_precision(asked, method) not in safe_precisions(method)]


def require_safe(methods: Sequence[type[Method]], asked: str) -> None:
    """``UserError``, in one line, that names every method that does not declare the precision asked for safe."""
    refused = [f"{method.name} ({' and '.join(safe_precisions(method))})" for method in unsafe_methods(methods, asked)]
    if refused:
        raise UserError(
            f"{asked} is not known to be safe for {', '.join(refused)}: named is what is - use one of these, leave the "
            f"method{'s' if len(refused) > 1 else ''} out, or insist with --allow-unsafe-precision, which is labelled"
        )
