"""Options that belong together, declared once as the fields of a dataclass and taken as one argument."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any, get_type_hints


def grouped(name: str, group: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the fields of the dataclass ``group`` as options; it receives them as its argument ``name``.

    They stand where ``name`` stands among the command's parameters. Their types say what typer is told of them.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True)
        types = get_type_hints(group, include_extras=True)
        options = [
            inspect.Parameter(
                field.name,
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
                annotation=types[field.name],
                default=inspect.Parameter.empty if field.default is MISSING else field.default,
            )
            for field in fields(group)
        ]
        parameters: list[inspect.Parameter] = []
        for parameter in own.parameters.values():
            parameters += options if parameter.name == name else [parameter]

        @functools.wraps(command)
        def taking_each(**given: Any) -> None:
            collected = group(**{option.name: given.pop(option.name) for option in options})
            command(**given, **{name: collected})

        taking_each.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
        taking_each.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return taking_each

    return decorate
