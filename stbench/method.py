"""What a method is to the harness: its interface, what it is given of a slide, and the run that it is handed.

What a method is given of a test slide has no expression attribute at all: leaking is impossible, not forbidden.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from .errors import Interrupted, UserError, said, unknown
from .slides.content import HasContent
from .system.isolation import process_kept
from .system.precision import Precision

if TYPE_CHECKING:
    import torch


class MethodConfig(BaseModel):
    """Base of every method's ``Config``: unknown fields and numbers that are not finite are refused by name.

    Examples
    --------
    >>> class Config(MethodConfig):
    ...     rate: float = 0.1
    >>> Config(rate=0.5)
    Config(rate=0.5)
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


@dataclass(frozen=True)
class Needs:
    """What a configured method needs from the harness beyond patches and positions.

    Examples
    --------
    >>> Needs(whole_slide=True).oracle
    False
    """

    oracle: bool = False  # it is given the test spots' total counts: an oracle, marked as such in every table
    same_patient: bool = False  # it needs a training slide of the test slide's patient
    whole_slide: bool = False  # a spot's prediction depends on the slide's other spots
    leak: str = ""  # what it does with the test slide's own expression, in one sentence: named wherever numbers appear


@dataclass(frozen=True)
class TestSlide(HasContent):
    """What a method may see of a slide that it predicts."""

    __test__: ClassVar[bool] = False  # not a test case, whatever pytest thinks of the name

    id: str
    patient: str
    patches: (
        np.ndarray
    )  # (n_spots, side, side, 3) uint8 RGB, rows then columns; may be memory-mapped, or of a slide of very many spots
    # what is read like an array and cut from its image when it is (stbench.slides.tiles): never write to it
    array_xy: np.ndarray  # (n_spots, 2) int64: array column, array row
    pixel_xy: np.ndarray  # (n_spots, 2) float64: pixel centre x, y at full resolution
    um_per_px: float | None
    # (n_spots, 4) int: pixels of each patch left of, above, right of and below the image, which are white; None: none
    margins: np.ndarray | None = field(default=None, kw_only=True)

    @property
    def n_spots(self) -> int:
        return len(self.patches)


@dataclass(frozen=True)
class OracleSlide(TestSlide):
    """A test slide as an oracle control sees it: with the total count of each spot over all genes."""

    total_counts: np.ndarray  # (n_spots,) int64


@dataclass(frozen=True)
class TrainingSlide(TestSlide):
    """A slide that a method may learn from."""

    genes: tuple[str, ...]  # names of the panel, in column order
    target: np.ndarray  # (n_spots, n_genes) float32: what is to be predicted, on the benchmark's named scale
    counts: np.ndarray  # (n_spots, n_genes) int32: raw counts of the panel
    total_counts: np.ndarray  # (n_spots,) int64: raw counts over all genes of the slide


@dataclass(frozen=True)
class LeakedSlide(TestSlide):
    """A test slide as only a method that declares a leak (``Needs(leak=...)``) sees it: with the truth on it.

    It exists to measure what a fault of a released code is worth; every number that it touches is marked.
    """

    truth: TrainingSlide  # the whole slide, also where only some of its spots are to be predicted
    place: int  # how many training slides stand before it in the dataset's order


@dataclass
class Run:
    """What the harness hands to ``fit``: device, precision, seeds, a place for checkpoints, and ears for what happens.

    ``on_progress(done, total, text)`` and ``on_log(epoch, values)`` are called by :meth:`progress` and :meth:`log`;
    ``should_stop()`` turns true after SIGINT, SIGTERM or SIGHUP.

    Examples
    --------
    >>> run = Run(seed=1, on_log=lambda epoch, values: print(epoch, values))
    >>> run.log(1, loss=0.5)
    1 {'loss': 0.5}
    >>> run.note("three spots were left out")
    >>> run.notes
    ['three spots were left out']
    """

    seed: int = 0
    device: str = "cpu"  # a torch device string
    precision: Precision = "fp32"
    checkpoint_directory: Path | None = None
    on_progress: Callable[[int, int, str], None] | None = None
    on_log: Callable[[int, Mapping[str, float]], None] | None = None
    should_stop: Callable[[], bool] = lambda: False
    notes: list[str] = field(default_factory=list)

    def derive_seed(self, *names: object) -> int:
        """A seed of 63 bits from this run's seed and ``names``: the same names give the same stream on every machine.

        Examples
        --------
        >>> Run(seed=0).derive_seed("stnet", "network")
        4158895875130807638
        """
        text = "/".join([str(self.seed), *map(str, names)])
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1

    def numpy_generator(self, *names: object) -> np.random.Generator:
        """A generator of numpy with the seed that ``names`` give (:meth:`derive_seed`)."""
        return np.random.default_rng(self.derive_seed(*names))

    def torch_generator(self, *names: object, device: str | None = None) -> torch.Generator:
        """A generator of torch, on the CPU unless a device is named, with the seed that ``names`` give."""
        import torch

        return torch.Generator(device=device or "cpu").manual_seed(self.derive_seed(*names))

    def progress(self, done: int, total: int, text: str = "") -> None:
        """Say that ``done`` of ``total`` steps are done."""
        if self.on_progress is not None:
            self.on_progress(done, total, text)

    def log(self, epoch: int, **values: float) -> None:
        """Record one row of the training history.

        Parameters
        ----------
        epoch : int
            Counted from 1.
        **values : float
            Numbers that belong to the epoch. A tensor or array of one number is taken as that number.

        Raises
        ------
        TypeError
            If a value is not a number.
        """
        row = {}
        for name, value in values.items():
            try:
                row[name] = float(value)
            except (TypeError, ValueError, RuntimeError) as error:
                raise TypeError(f"run.log({name}=...) got {value!r:.100}, not a number") from error
        if self.on_log is not None:
            self.on_log(int(epoch), row)

    def note(self, text: str) -> None:
        """Record, once, what whoever reads the result must know: it stands in the trial's state and the report."""
        if (text := str(text)) not in self.notes:
            self.notes.append(text)

    def check_interrupt(self) -> bool:
        """True when the method should save what it has and raise :class:`Interrupted`."""
        return self.should_stop()

    @staticmethod
    def interrupted(text: str) -> Interrupted:
        """The exception to raise once what there is has been saved; ``text`` says how far it came."""
        return Interrupted(text)


@runtime_checkable
class Method(Protocol):
    """A way to predict expression from an image. The constructor takes a ``Config`` and does no work.

    ``presets`` maps a preset's name to the fields that it changes; an entry ``"published/alex10x"`` is laid over
    ``"published"`` for that dataset. ``kind`` sets controls apart from methods. A method may have an attribute
    ``safe_precisions``, a collection of :data:`stbench.system.precision.PRECISIONS`; without it float32 alone is safe.
    ``execution_fields`` names settings that change none of its numbers: trials under any of their values are the same.

    With ``predict_slides(slides)``, which takes an iterable and gives a list, it is asked for several slides at once. A
    method that computes in processes of its own, as those of TOML files do, may say more: ``peak_mem_mb``, what they
    held at most, ``versions``, what they ran with, ``code_digest``, of what they ran, ``resumes = False`` where an
    interrupted training begins anew, ``reads_own_files = True`` where what ``save`` writes is read by them alone.
    """

    name: ClassVar[str]  # as typed: stnet
    title: ClassVar[str]  # as printed: STnet
    kind: ClassVar[Literal["method", "control"]]
    Config: ClassVar[type[MethodConfig]]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]]
    config: Any

    def __init__(self, config: Any) -> None: ...

    @property
    def needs(self) -> Needs:
        """What this configured method needs beyond patches and positions."""
        ...

    @property
    def weights_label(self) -> str:
        """Where weights are from: ``none``, ``random``, ``imagenet (densenet121-a639ec97)``, ``file (NAME DIGEST)``."""
        ...

    def fit(self, slides: Sequence[TrainingSlide], run: Run) -> None:
        """Learn from slides.

        Parameters
        ----------
        slides : sequence of TrainingSlide
            At least one. Their arrays are not to be written to.
        run : Run
            Device, precision and seed to train with, and whom to tell what happens.

        Raises
        ------
        NotApplicable
            If the fold gives the method nothing to work with.
        Interrupted
            After its state was saved, if ``run.check_interrupt()`` became true.
        """
        ...

    def predict(self, slide: TestSlide) -> np.ndarray:
        """Predict a slide.

        Parameters
        ----------
        slide : TestSlide
            Without expression, unless the method declares an oracle or a leak.

        Returns
        -------
        ndarray of shape (n_spots, n_genes)
            float32, on the target's scale.
        """
        ...

    def save(self, directory: Path) -> None:
        """Write what ``load`` needs into an existing empty directory: safetensors, npy and JSON, never pickle."""
        ...

    @classmethod
    def load(cls, directory: Path, device: str = "cpu") -> Method:
        """The method as :meth:`save` wrote it.

        Parameters
        ----------
        directory : Path
            A trial's ``model/``.
        device : str, default="cpu"
            Where it is to predict.

        Returns
        -------
        Method
            Trained.
        """
        ...


def configure(
    method: type[Method], preset: str = "published", dataset: str = "", changes: Mapping[str, Any] | None = None
) -> MethodConfig:
    """The ``Config`` of a method under a preset.

    Parameters
    ----------
    method : type of Method
        Its presets and its ``Config``.
    preset : str, default="published"
        Name of a preset. The part for the dataset, where the preset has one, is laid over it.
    dataset : str, default=""
        Name of the dataset.
    changes : mapping of str to object, optional
        Settings that are laid over both.

    Returns
    -------
    MethodConfig
        Frozen and valid.

    Raises
    ------
    UserError
        If there is no such preset or setting, or if a value is not valid; the message names it.

    Examples
    --------
    >>> from stbench import registry
    >>> configure(registry.method("position_knn"), changes={"k": 3}).k
    3
    >>> configure(registry.method("position_knn"), changes={"kk": 3})
    Traceback (most recent call last):
        ...
    stbench.errors.UserError: unknown setting of position_knn 'kk' - did you mean 'k'? (choose from: k)
    """
    names = {name.split("/")[0] for name in method.presets} | {"published"}
    if preset not in names:
        raise unknown("preset", preset, names, hint=f"of method {method.name}")
    fields: dict[str, Any] = dict(method.presets.get(preset, {}))
    fields |= method.presets.get(f"{preset}/{dataset}", {})
    for name in changes or {}:
        if name not in method.Config.model_fields:
            raise unknown(f"setting of {method.name}", name, method.Config.model_fields)
    fields |= changes or {}
    try:
        with process_kept():
            return method.Config(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        if not where:  # settings that are valid one by one, and not together
            reason = str(first["msg"]).removeprefix("Value error, ")
            raise UserError(f"{method.name}: {reason} - see 'stbench methods show {method.name}'") from error
        raise UserError(
            f"{method.name}.{where} = {first['input']!r} is not valid: {first['msg']} - "
            f"see 'stbench methods show {method.name}'"
        ) from error
    except (Exception, SystemExit) as error:  # a stranger's validator may fail in any way
        raise UserError(f"{method.name}: its Config cannot be made: {said(error)}") from error
