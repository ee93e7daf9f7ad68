"""The switches of a method: which of its parts an ablation turns, their variants, and the paper's tables of them.

They stand beside the method, as data, and never inside it: no word here is part of what a method computes.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import UserError
from .method import Method, MethodConfig

NOT_PUBLISHED = "not in the paper"


@dataclass(frozen=True)
class Variant:
    """One position of a switch: the config fields that it sets, and what that means in words."""

    name: str  # as printed in a table: sinusoidal
    words: str  # what a reader must know: sines and cosines of the coordinates, nothing learnt
    changes: Mapping[str, Any] = field(default_factory=dict)  # config field to value
    target: str | None = None  # another scale to train and to score on; None: the one that is asked for


@dataclass(frozen=True)
class Switch:
    """One part of a method that may be turned.

    The variant whose settings are the preset's own is its base; nobody has to mark it. ``under`` replaces the variants
    for a preset, or for a preset on a dataset: ``{"quick": ..., "published/alex10x": ...}``.
    """

    name: str  # as typed: position-encoding
    title: str
    variants: tuple[Variant, ...]
    answers: str = ""  # the paper's own table or figure (Table S4), or what else it says of the switch
    under: Mapping[str, tuple[Variant, ...]] = field(default_factory=dict)

    def of(self, preset: str, dataset: str) -> tuple[Variant, ...]:
        """The variants under a preset on a dataset.

        Parameters
        ----------
        preset, dataset : str
            Their names.

        Returns
        -------
        tuple of Variant
            Those of ``under``, if it names the preset on the dataset or the preset, else ``variants``.

        Examples
        --------
        >>> switch = Switch("k", "Neighbours", (Variant("50", ""),), under={"quick": (Variant("5", "fewer"),)})
        >>> [variant.name for variant in switch.of("quick", "demo")]
        ['5']
        """
        return self.under.get(f"{preset}/{dataset}") or self.under.get(preset) or self.variants


def switches_of(method: type[Method]) -> tuple[Switch, ...]:
    """The switches of a method.

    Parameters
    ----------
    method : type of Method
        Its attribute ``switches`` is a tuple of :class:`Switch`, or better the place of one, ``"package.module:NAME"``:
        what a method's file imports is part of its trials' keys, and a word that is changed here should not run them
        again.

    Returns
    -------
    tuple of Switch
        Empty if the method declares none.

    Raises
    ------
    UserError
        If two switches have one name.

    Examples
    --------
    >>> from stbench import registry
    >>> [switch.name for switch in switches_of(registry.method("mclstexp"))][:2]
    ['position-encoding', 'image-encoder']
    """
    declared = getattr(method, "switches", "")
    if not declared:
        return ()
    if isinstance(declared, str):
        module, _, name = declared.partition(":")
        declared = getattr(importlib.import_module(module), name)
    names = [switch.name for switch in declared]
    if len(set(names)) < len(names):
        raise UserError(f"{method.name} has two switches of one name ({', '.join(names)}) - rename one")
    return tuple(declared)


def inference_fields(method: type[Method], config: MethodConfig | None = None) -> frozenset[str]:
    """The config fields that only prediction looks at: one training serves all of their values.

    Parameters
    ----------
    method : type of Method
        Its attribute ``inference_fields`` names them.
    config : MethodConfig, optional
        The config under which it is asked; the defaults if none is given.

    Returns
    -------
    frozenset of str
        Empty if the method declares none.

    Examples
    --------
    >>> from stbench import registry
    >>> sorted(inference_fields(registry.method("bleep")))
    ['aggregation', 'augment_at_test', 'distance', 'k']
    """
    configured = method(method.Config() if config is None else config)
    return frozenset(getattr(configured, "inference_fields", ()))


def execution_fields(method: type[Method]) -> frozenset[str]:
    """Settings that change how a method is computed and none of its numbers.

    Parameters
    ----------
    method : type of Method
        Its attribute ``execution_fields`` names them.

    Returns
    -------
    frozenset of str
        Empty if the method declares none.

    Examples
    --------
    >>> from stbench import registry
    >>> sorted(execution_fields(registry.method("hist2st")))
    ['activation_checkpointing']
    """
    return frozenset(getattr(method, "execution_fields", ()))
