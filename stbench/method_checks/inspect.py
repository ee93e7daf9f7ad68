"""Looking into what a method holds, changes and writes."""

from __future__ import annotations

import hashlib
import pickle
import random
import sys
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import MethodFailed, said
from ..method import Method, TestSlide
from ..system import calls, isolation
from .subject import expect


def in_one_line(error: Exception) -> str:
    """An exception on one line, with the place outside these checks where it arose."""
    raised = error.__cause__ if isinstance(error, MethodFailed) and error.__cause__ else error
    ours = (*Path(__file__).parent.glob("*.py"), Path(calls.__file__), Path(isolation.__file__))
    frames = [frame for frame in traceback.extract_tb(raised.__traceback__) if Path(frame.filename) not in ours]
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{said(error)}{where}"


PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".bin", ".joblib")


def largest_difference(one: np.ndarray, other: np.ndarray) -> str:
    return f"{np.abs(one - other).max():.3g}" if one.shape == other.shape else f"{one.shape} against {other.shape}"


def arrays_of(slide: TestSlide) -> dict[str, np.ndarray]:
    values = {item.name: getattr(slide, item.name) for item in fields(slide)}
    return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}


def digests_of(slide: TestSlide) -> dict[str, str]:
    return {name: hashlib.blake2b(array.tobytes()).hexdigest() for name, array in arrays_of(slide).items()}


def is_pickle(path: Path) -> bool:
    if path.suffix in (".npy", ".npz"):
        try:
            loaded = np.load(path, allow_pickle=False)
            for name in getattr(loaded, "files", ()):  # of an .npz, which reads an array when asked for it
                loaded[name]
        except ValueError:  # an array of Python objects
            return True
    return path.suffix in PICKLES


def tensors_in(value: Any, place: str, seen: set[int] | None = None) -> Iterator[tuple[str, Any]]:
    """(where, array or tensor) for all that ``value`` holds, in containers, networks and other objects."""
    seen = set() if seen is None else seen
    if id(value) in seen:
        return
    seen.add(id(value))
    torch = sys.modules.get("torch")
    if isinstance(value, np.ndarray) or (torch is not None and isinstance(value, torch.Tensor)):
        yield place, value
    elif torch is not None and isinstance(value, torch.nn.Module):
        for name, tensor in [*value.named_parameters(), *value.named_buffers()]:
            yield f"{place}.{name}", tensor
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from tensors_in(item, f"{place}.{key}" if place == "self" else f"{place}[{key!r}]", seen)
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from tensors_in(item, f"{place}[{i}]", seen)
    elif hasattr(value, "__dict__") and not isinstance(value, type) and not callable(value):
        for name, item in vars(value).items():
            yield from tensors_in(item, f"{place}.{name}", seen)


def expect_tensors_on(method: Method, device: str, why: str, parameters_only: bool = False) -> None:
    torch = sys.modules.get("torch")
    if torch is None:
        return
    kinds = torch.nn.Parameter if parameters_only else torch.Tensor
    held = [(place, tensor) for place, tensor in tensors_in(vars(method), "self") if isinstance(tensor, kinds)]
    strays = [f"{place} ({tensor.device})" for place, tensor in held if tensor.device.type != device]
    expect(
        not strays, f"with {why} there are tensors elsewhere: {', '.join(strays[:3])} - send everything to run.device"
    )


def random_state() -> dict[str, Any]:
    """The states of the global generators, comparable; torch's only where torch is in use."""
    state = np.random.get_state(legacy=False)  # noqa: NPY002 - the global generator is what is looked at
    states: dict[str, Any] = {"random": random.getstate(), "numpy": pickle.dumps(state)}
    torch = sys.modules.get("torch")
    if torch is not None:
        states["torch"] = bytes(torch.random.get_rng_state().numpy())
    return states


def disturb_random_state() -> None:
    """Put the global generators where no fit left them."""
    random.seed(20)
    np.random.seed(20)  # noqa: NPY002 - the global generator is what a method must not depend on
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(20)
