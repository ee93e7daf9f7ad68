"""Planning an ablation study: which configurations are run, which of them train, and which reuse a trained model.

Every configuration is run once, whatever the number of switches that it is a variant of, and configurations that differ
in inference alone share one training.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..data.targets import target as known_target
from ..errors import UserError, unknown
from ..method import Method, MethodConfig, configure
from ..switches import Switch, Variant, inference_fields, switches_of
from ..system.precision import Precision
from ..trials.spec import in_words
from .plan import MethodChoice
from .run_record import AblationEntry, AblationRecord, SwitchRecord, VariantRecord

MAX_VARIANTS = 64


@dataclass(frozen=True)
class Configuration:
    """One thing to run: a configuration of the method on a target, and who trains it."""

    target: str
    choice: MethodChoice

    @property
    def reuses(self) -> bool:
        return self.choice.trained_by is not None


@dataclass(frozen=True)
class Row:
    """A variant of a switch, and the configuration that answers it."""

    variant: Variant
    configuration: Configuration
    is_base: bool

    @property
    def change(self) -> str:
        """What changes, in settings: ``k=1``, ``target=gene-log10-cp10k``, or nothing."""
        chosen, moved = self.configuration, self.variant.target is not None and not self.is_base
        return ", ".join(part for part in (chosen.choice.variant, f"target={chosen.target}" if moved else "") if part)


@dataclass(frozen=True)
class Ablation:
    """What is to be run: the base first, and who trains always before who reuses."""

    base: Configuration
    configurations: tuple[Configuration, ...]
    switches: tuple[tuple[Switch, tuple[Row, ...]], ...]

    @property
    def n_reused(self) -> int:
        return sum(configuration.reuses for configuration in self.configurations)

    def statement(self) -> str:
        """``22 variants (the base is one): 15 trained, 7 reuse a trained model``"""
        n = len(self.configurations)
        return f"{n} variants (the base is one): {n - self.n_reused} trained, {self.n_reused} reuse a trained model"

    def by_target(self) -> dict[str, list[MethodChoice]]:
        """Target to what is run on it; the base's target first."""
        found: dict[str, list[MethodChoice]] = {}
        for configuration in self.configurations:
            found.setdefault(configuration.target, []).append(configuration.choice)
        return found

    def record(self, precision: Precision = "fp32") -> AblationRecord:
        """What ``run.json`` keeps of it, for the report: the base's entry, and every switch with its variants.

        ``precision`` is the one that all of it is run in.
        """
        return AblationRecord(
            method=self.base.choice.method.name,
            base=AblationEntry(**_labels(self.base, precision)),
            switches=tuple(
                SwitchRecord(
                    name=switch.name,
                    title=switch.title,
                    answers=switch.answers,
                    variants=tuple(
                        VariantRecord(
                            **_labels(row.configuration, precision),
                            name=row.variant.name,
                            words=row.variant.words,
                            base=row.is_base,
                            reused=row.configuration.reuses,
                        )
                        for row in rows
                    ),
                )
                for switch, rows in self.switches
            ),
        )


def _labels(configuration: Configuration, precision: Precision) -> dict[str, str]:
    """The labels under which ``summary.csv`` has a configuration."""
    choice = configuration.choice
    return {
        "method": choice.method.name,
        "preset": choice.preset,
        "variant": choice.variant,
        "weights": choice.declared[1],
        "target": configuration.target,
        "lowered": "" if precision == "fp32" else precision,
    }


def choose_switches(method: type[Method], only: Sequence[str] | None = None) -> tuple[Switch, ...]:
    """The switches of ``method`` by name, in the order asked for; all of them without names."""
    registered = {switch.name: switch for switch in switches_of(method)}
    if only is None:
        if not registered:
            raise UserError(f"{method.name} has no registered switches - sweep a setting with --set FIELD=A,B")
        return tuple(registered.values())
    for name in only:
        if name not in registered:
            raise unknown(f"switch of {method.name}", name, registered, hint="or sweep a setting with --set FIELD=A,B")
    return tuple(registered[name] for name in only)


def parse_sweep(text: str) -> tuple[str, list[Any]]:
    """``k=1,50`` -> ``("k", [1, 50])``. Values are JSON where they can be read so, else words."""
    field, equals, listed = text.partition("=")
    if not (equals and field and listed):
        raise UserError(f"--set {text} is not of the form FIELD=A,B, e.g. --set k=50,200")
    try:
        values = list(json.loads(f"[{listed}]"))
    except ValueError:  # no JSON, or a number of more digits than Python reads
        values = [_value(word.strip()) for word in listed.split(",") if word.strip()]
    if not values:
        raise UserError(f"--set {text} lists no value for {field} - give at least one, e.g. --set k=50,200")
    return field, values


def _value(word: str) -> Any:
    try:
        return json.loads(word)
    except ValueError:
        return word


def grid_size(sweeps: Sequence[tuple[str, list[Any]]]) -> str:
    """``6 variants (2 of layers x 3 of k)``"""
    size = math.prod(len(values) for _, values in sweeps)
    return f"{size} variants ({' x '.join(f'{len(values)} of {field}' for field, values in sweeps)})"


def refuse_above(ablation: Ablation, at_most: int) -> None:
    """``UserError`` where more is planned than ``at_most`` variants, the base included."""
    planned = len(ablation.configurations)
    if planned > at_most:
        raise UserError(f"{planned} variants are more than {at_most} - choose with --only, or raise --max-variants")


def grid(sweeps: Sequence[tuple[str, list[Any]]], at_most: int = MAX_VARIANTS) -> Switch:
    """The switch of a sweep: one variant for every combination of the fields' values.

    ``UserError`` where there are more than ``at_most``.
    """
    fields = [field for field, _ in sweeps]
    if math.prod(len(values) for _, values in sweeps) > at_most:
        raise UserError(f"the grid has {grid_size(sweeps)}, more than {at_most} - take fewer, or raise --max-variants")
    if len(set(fields)) < len(fields):
        raise UserError(f"--set names a setting twice ({', '.join(fields)}) - give all values of a setting at once")
    variants = []
    for values in itertools.product(*(values for _, values in sweeps)):
        changes = dict(zip(fields, values, strict=True))
        named = ", ".join(f"{field}={value}" for field, value in changes.items())
        variants.append(Variant(named, f"{named}, all else as in the base", changes))
    return Switch("-".join(fields), f"Sweep of {' and '.join(fields)}", tuple(variants))


def plan_ablation(
    reference: str,
    method: type[Method],
    switches: Sequence[Switch],
    preset: str,
    dataset: str,
    target: str,
    overrides: Mapping[str, Any] | None = None,
) -> Ablation:
    """Plan the variants of ``switches`` against ``preset`` on ``dataset``, whose dataset-specific part counts.

    ``overrides`` are fields of every configuration, the base included (the encoder's weights, say). Raises
    ``UserError`` for a variant whose settings or target do not exist.
    """
    inherited = dict(overrides or {})

    def config_of(changes: Mapping[str, Any]) -> MethodConfig:
        return configure(method, preset, dataset, inherited | dict(changes))

    # kept for what a later command may reuse
    keep = bool(inference_fields(method, config_of({})))
    choice = MethodChoice(reference, method, preset, {}, config_of({}), keep_model=keep)
    base = Configuration(target, choice)
    settings = base.choice.config.model_dump(mode="json")
    wanted: dict[str, tuple[str, MethodConfig, dict[str, Any]]] = {}
    named: list[tuple[Switch, list[tuple[Variant, str]]]] = []
    for switch in switches:
        rows: list[tuple[Variant, str]] = []
        for variant in switch.of(preset, dataset):
            config = config_of(variant.changes)
            scale = known_target(variant.target or target).name
            dumped = config.model_dump(mode="json")
            changed = {field: value for field, value in dumped.items() if value != settings[field]}
            key = _same(scale, changed)
            wanted.setdefault(key, (scale, config, changed))
            rows.append((variant, key))
        if not any(key == _same(target, {}) for _, key in rows):
            rows.insert(0, (Variant("preset", _as_it_is(rows, settings)), _same(target, {})))
        named.append((switch, rows))

    configurations = {_same(target, {}): base}
    groups: dict[str, list[str]] = {_same(target, {}): [_same(target, {})]}  # who shares a training
    for key, (scale, config, changed) in wanted.items():
        at_inference = inference_fields(method, config)
        training = {field: value for field, value in changed.items() if field not in at_inference}
        members = groups.setdefault(_same(scale, training), [])
        if key not in members:
            members.append(key)
    for members in groups.values():
        # the one that changes least trains: the model that is kept is then one that somebody might ask for
        ordered = sorted(members, key=lambda key: len(wanted[key][2]) if key in wanted else 0)
        for key in ordered:
            if key in configurations:
                continue
            scale, config, changed = wanted[key]
            trainer = None if key == ordered[0] else configurations[ordered[0]].choice
            choice = MethodChoice(reference, method, preset, _labelled(changed), config, trainer)
            configurations[key] = Configuration(scale, choice)
    return Ablation(
        base=base,
        configurations=tuple(configurations.values()),
        switches=tuple(
            (switch, tuple(Row(variant, configurations[key], key == _same(target, {})) for variant, key in rows))
            for switch, rows in named
        ),
    )


def _same(scale: str, changed: Mapping[str, Any]) -> str:
    """The same text for configurations that give the same trial."""
    return json.dumps([scale, changed], sort_keys=True)


def _labelled(changed: Mapping[str, Any]) -> dict[str, Any]:
    """What the column ``variant`` says of it; which weights an encoder has stands in a column of its own."""
    return {field: value for field, value in changed.items() if field != "weights" or "encoder" not in changed}


def _as_it_is(rows: Sequence[tuple[Variant, str]], settings: Mapping[str, Any]) -> str:
    """What the preset has where none of a switch's variants is the preset."""
    fields = dict.fromkeys(field for variant, _ in rows for field in variant.changes)
    shown = {field: settings[field] for field in fields if field in settings}
    return f"the preset as it is ({in_words(_labelled(shown))})"
