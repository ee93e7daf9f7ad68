"""The settings of a method's TOML file as a ``Config``: each has the type of its default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, create_model

from ..errors import UserError, first_problem
from ..method import MethodConfig

TABLE = {"default", "help", "choices", "minimum", "maximum"}


class ForeignConfig(MethodConfig):
    """Base of every ``Config`` that is made here; settings may have any name, ``model_name`` say."""

    model_config = ConfigDict(protected_namespaces=())


def config_of(name: str, settings: Mapping[str, Any], where: str) -> type[MethodConfig]:
    """The ``Config`` of the method ``name``.

    A setting is its default, ``epochs = 90``, or a table with ``default`` and any of ``help``, ``choices``,
    ``minimum`` and ``maximum``. ``where`` is for messages.
    """
    fields: dict[str, Any] = {}
    for setting, given in settings.items():
        if not setting.isidentifier() or setting.startswith("_") or hasattr(MethodConfig, setting):
            raise UserError(f"{where}: settings.{setting} cannot be the name of a setting - rename it")
        fields[setting] = _field(given, f"{where}: settings.{setting}")
    try:
        return create_model(f"{name}_config", __base__=ForeignConfig, __module__=__name__, **fields)
    except (TypeError, ValueError, NameError) as error:  # whatever else pydantic takes no name or default for
        raise UserError(f"{where}: its settings cannot be made a Config ({error})") from error


def _field(given: Any, where: str) -> tuple[Any, Any]:
    """Type and default of a setting, as pydantic takes them."""
    table = given if isinstance(given, dict) else {"default": given}
    if strange := set(table) - TABLE:
        raise UserError(f"{where} has {sorted(strange)[0]} - a setting has {', '.join(sorted(TABLE))}")
    if "default" not in table:
        raise UserError(f"{where} has no default - every setting needs one")
    default, choices = table["default"], table.get("choices")
    kind: Any = _type_of(default, where) if choices is None else Literal[tuple(choices)]
    limits: dict[str, Any] = {"ge": table.get("minimum"), "le": table.get("maximum")}
    info = Field(_frozen(default), description=table.get("help"), **limits)
    try:
        TypeAdapter(Annotated[kind, Field(**limits)]).validate_python(_frozen(default))
    except (ValidationError, TypeError) as error:
        reason = first_problem(error) if isinstance(error, ValidationError) else str(error)
        raise UserError(f"{where}: its default is not one of its own values ({reason})") from error
    return kind, info


def _type_of(value: object, where: str) -> Any:
    for kind in (bool, int, float, str):
        if type(value) is kind:
            return kind
    if isinstance(value, list):
        kinds = {type(item) for item in value}
        if len(kinds) == 1 and (kind := kinds.pop()) in (bool, int, float, str):
            return tuple[kind, ...]  # type: ignore[valid-type]
    raise UserError(f"{where} is {value!r} - a setting is a number, a text, true or false, or a list of one of these")


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
