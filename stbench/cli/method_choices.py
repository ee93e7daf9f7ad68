"""The methods that a run was asked for, with their settings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .. import registry
from ..data.target_names import DEFAULT_TARGET
from ..errors import UserError, unknown
from ..readings import READINGS, has_preset, readings_of, target_of
from .console import out
from .lists import words

if TYPE_CHECKING:
    from ..method import Method, MethodConfig
    from ..results.plan import MethodChoice


def require_words(names: str, changes: Sequence[str], encoders: str | None) -> None:
    """Check what can be checked of ``--methods``, ``--set`` and ``--encoders`` without importing a method."""
    named = registry.known_methods(names)
    only_names = not any(word in registry.GROUPS_OF_METHODS or registry.is_path(word) for word in named)
    for change in changes:
        name, _, _ = _parse_change(change)
        if name not in named and only_names:
            raise unknown("method in --set", name, named, hint="it must be among --methods")
    for word in [] if encoders is None else words(encoders, "--encoders"):
        encoder_fields(word)


def choose_methods(
    names: str, preset: str, dataset: str, changes: list[str], weights: str | None, encoders: str | None
) -> list[MethodChoice]:
    """The methods of ``--methods`` with their settings, those with an encoder once with each of ``--encoders``.

    Raises ``UserError`` for options that name nothing, contradict each other or change nothing. Whether encoders and
    weights can be had is checked by :func:`require_weights`.
    """
    from ..method import configure
    from ..results.plan import MethodChoice
    from ..switches import execution_fields

    chosen = registry.expand_methods(names)
    presets = _presets(chosen, preset)
    fields: dict[str, dict[str, Any]] = {name: {} for name in chosen}
    own_names = {registry.method(name).name: name for name in chosen}  # of methods that are named by a path
    for change in changes:
        name, field, value = _parse_change(change)
        name = name if name in fields else own_names.get(name, name)
        if name not in fields:
            raise unknown("method in --set", name, {*chosen, *own_names}, hint="it must be among --methods")
        fields[name][field] = value
    choices: list[MethodChoice] = []
    weights_are_used = False
    grid = None if encoders is None else [encoder_fields(word) for word in words(encoders, "--encoders")]
    without_encoder: list[str] = []
    for name in chosen:
        method = registry.method(name)
        if method.name in [choice.method.name for choice in choices if choice.reference != name]:
            raise UserError(
                f"two of --methods call themselves '{method.name}' - rename one, results are told apart by it"
            )
        has_encoder = "encoder" in method.Config.model_fields
        if grid is not None and not has_encoder:
            without_encoder.append(name)
        if grid is not None and "encoder" in fields[name]:
            raise UserError(f"--set {name}.encoder and --encoders both choose an encoder - leave one of the two out")
        for encoder in grid if grid is not None and has_encoder else [{}]:
            own = fields[name] | encoder
            # weights have a column of their own
            labels = fields[name] | {"encoder": encoder["encoder"]} if encoder else fields[name]
            labels = {field: value for field, value in labels.items() if field not in execution_fields(method)}
            if weights is not None and "weights" in method.Config.model_fields and "weights" not in own:
                own["weights"] = weights
                weights_are_used = True
            own |= _as_the_encoder_has_it(method, own)
            config = configure(method, presets[name], dataset, own)
            choices.append(MethodChoice(name, method, presets[name], labels, config))
    if without_encoder:
        verb = "has no encoder and is" if len(without_encoder) == 1 else "have no encoder and are"
        out.print(f"{', '.join(without_encoder)} {verb} run once, whatever --encoders says", soft_wrap=True)
    if without_encoder == chosen:
        raise UserError(f"--encoders {encoders} changes nothing: none of {', '.join(chosen)} has one - leave it out")
    if weights is not None and not weights_are_used:
        raise UserError(
            f"--weights {weights} changes nothing: none of {', '.join(chosen)} has an encoder - leave it out"
        )
    return choices


def _as_the_encoder_has_it(method: type[Method], changes: Mapping[str, Any]) -> dict[str, Any]:
    """What an encoder of pathology brings where nothing else was asked for: its published weights, and, for a method
    that asks an encoder for its own features, its own size of images in place of what a preset has for another encoder.
    """
    from ..training.foundation.table import pathology_encoder

    if pathology_encoder(str(changes.get("encoder", ""))) is None:
        return {}
    fields = method.Config.model_fields
    brought: dict[str, Any] = {"weights": "pretrained"} if "weights" in fields else {}
    if getattr(method.Config, "own_input_px", False):
        brought["input_px"] = None
    return {name: value for name, value in brought.items() if name not in changes}


def _presets(chosen: Sequence[str], preset: str) -> dict[str, str]:
    """The preset that each method runs in. A control, or a method without published code, does not have the presets
    ``released`` and ``paper`` and runs as ``published``, which is printed. Raises ``UserError`` where no method has it.
    """
    without = [name for name in chosen if not has_preset(registry.method(name), preset)]
    if preset not in READINGS or not without:
        return dict.fromkeys(chosen, preset)
    if without == list(chosen):
        raise UserError(
            f"--preset {preset} changes nothing: {', '.join(chosen)} {'has' if len(chosen) == 1 else 'have'} no "
            f"preset '{preset}' - leave it out"
        )
    has, run = ("has", "runs") if len(without) == 1 else ("have", "run")
    out.print(f"{', '.join(without)} {has} no preset '{preset}' and {run} as published", soft_wrap=True)
    return {name: "published" if name in without else preset for name in chosen}


def by_target(
    choices: Sequence[MethodChoice], dataset: str, target: str | None
) -> Mapping[str, Sequence[MethodChoice]]:
    """The methods by the target that they predict: the one that was asked for, else each preset's own.

    Controls and methods whose preset has no target of its own run on every target of the others, so that no table
    lacks them; rankings never mix targets.
    """
    if target is not None:
        return {target: choices}
    own = {
        id(choice): target_of(choice.method, choice.preset, dataset) if readings_of(choice.method) is not None else None
        for choice in choices
    }
    targets = list(dict.fromkeys(name for name in own.values() if name is not None)) or [DEFAULT_TARGET]
    sections = {name: [choice for choice in choices if own[id(choice)] in (name, None)] for name in targets}
    if targets != [DEFAULT_TARGET]:
        parts = [
            f"{name} for {', '.join(dict.fromkeys(c.method.title for c in choices if own[id(c)] == name))}"
            for name in targets
        ]
        out.print(
            f"targets as the preset has them: {'; '.join(parts)} (--target NAME puts all methods on one "
            "target, which ranks them against each other)",
            soft_wrap=True,
        )
    return sections


def encoder_fields(word: str) -> dict[str, str]:
    """Settings of ``NAME`` or ``NAME@PATH``, an encoder with the weights of a file."""
    name, at, path = word.partition("@")
    if not name or (at and not path):
        raise UserError(f"'{word}' names no encoder - write NAME, or NAME@PATH for weights of a file")
    return {"encoder": name, "weights": path} if at else {"encoder": name}


def require_weights(*configs: MethodConfig) -> None:
    """Stop, before anything runs, at encoders or weights that cannot be had, with one line for all of them, and at
    encoders that cannot take the images that they would be given.
    """
    settings = [config.model_dump() for config in configs]
    wanted = [(fields["encoder"], fields.get("weights", "random")) for fields in settings if "encoder" in fields]
    if wanted:
        from ..training.pretrained import require_reachable

        require_reachable(wanted)
        from ..training.encoders import require_encoders

        require_encoders(wanted)
        for config in configs:
            _require_size(config)


def _require_size(config: MethodConfig) -> None:
    """``UserError`` where an encoder takes images of one size, and the settings give it others."""
    from ..training.foundation.table import pathology_encoder

    row = pathology_encoder(str(getattr(config, "encoder", "")))
    side = getattr(config, "input_px", None)
    if side is None and not getattr(config, "own_input_px", False):
        side = getattr(config, "patch_px", None)
    if row is not None and row.only_px is not None and side not in (None, row.only_px):
        raise UserError(
            f"{row.name} takes images of {row.only_px} px, and would be given {side} px - add --set "
            f"METHOD.input_px={row.only_px}"
        )


def with_whole_windows(choices: Sequence[MethodChoice], patch_px: int) -> list[MethodChoice]:
    """The choices with whole windows as their field of view, each resized to what the method's network takes.

    For ``--patch-um``: a method that takes the centre of a window would see less than was asked for. What was changed
    by name, ``--set METHOD.patch_px`` or a switch, stays. Raises ``UserError`` where a method's own size in µm was.
    """
    made: dict[int, MethodChoice] = {}  # a choice that lends its model stays the same one to all who reuse it

    def whole(choice: MethodChoice) -> MethodChoice:
        if id(choice) not in made:
            lender = None if choice.trained_by is None else whole(choice.trained_by)
            made[id(choice)] = replace(choice, config=_whole_window(choice, patch_px), trained_by=lender)
        return made[id(choice)]

    return [whole(choice) for choice in choices]


def _whole_window(choice: MethodChoice, patch_px: int) -> MethodConfig:
    config, name = choice.config, choice.method.name
    fields = type(config).model_fields
    if "patch_um" in choice.changes and choice.changes["patch_um"] is not None:
        raise UserError(
            f"--patch-um and {name}.patch_um both set the side of {name}'s windows in µm - leave one of the two out"
        )
    if "patch_px" not in fields or "patch_px" in choice.changes:
        return config
    changed: dict[str, Any] = {"patch_px": patch_px}
    if "input_px" in fields:
        whole = None if getattr(config, "own_input_px", False) else getattr(config, "patch_px", patch_px)
        changed["input_px"] = getattr(config, "input_px", None) or whole
    if "patch_um" in fields:
        changed["patch_um"] = None
    return type(config)(**(config.model_dump() | changed))


def _parse_change(text: str) -> tuple[str, str, Any]:
    left, equals, value = text.partition("=")
    name, dot, field = left.rpartition(".")
    if not (equals and dot and name and field):
        raise UserError(f"--set {text} is not of the form METHOD.FIELD=VALUE, e.g. --set stnet.epochs=10")
    try:
        return name, field, json.loads(value)
    except ValueError:  # not JSON, or a number with more digits than Python reads
        return name, field, value
