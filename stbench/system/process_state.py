"""The pieces of process-wide state that a method may leave changed: how each is read and put back.

A further piece is one more entry of :data:`WATCHED`. Nothing here imports torch; its state is looked at where it is
loaded.
"""

from __future__ import annotations

import faulthandler
import gc
import locale
import logging
import multiprocessing
import os
import pickle
import random
import signal
import sys
import threading
import warnings
from functools import cache
from typing import Any

import numpy as np

from .torch_state import (
    anomaly_mode,
    autocast,
    cuda_generators,
    default_device,
    deterministic,
    flushes_denormals,
    loaded_torch,
    module_hooks,
    restore_anomaly_mode,
    restore_autocast,
    restore_cuda_generators,
    restore_default_device,
    restore_denormals,
    restore_deterministic,
    restore_inference_mode,
    restore_module_hooks,
    restore_torch_generator,
    restore_torch_precisions,
    restore_torch_switches,
    torch_generator,
    torch_precisions,
    torch_switches,
)
from .watched import Watched, changed_entries, now_it_is

# Variables that libraries write for themselves when they start; they mean nothing to who comes later
OWN_VARIABLES = ("CUDA_MODULE_LOADING", "KMP_", "TORCHINDUCTOR_", "TRITON_", "KINETO_", "PYTEST_CURRENT_TEST")

NOT_CAUGHT = ("SIGKILL", "SIGSTOP")
PANDAS_OPTIONS = ("mode.copy_on_write", "mode.chained_assignment", "mode.string_storage", "future.infer_string")


def seed_generators(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - the global generator is what is meant
    if "torch" in sys.modules:
        loaded_torch().manual_seed(seed)


def _numpy_generator() -> bytes:
    return pickle.dumps(np.random.get_state(legacy=False))  # noqa: NPY002 - bytes, as arrays do not compare


def _restore_numpy_generator(state: bytes) -> None:
    np.random.set_state(pickle.loads(state))  # noqa: NPY002 - made above


def _folder() -> str | None:
    try:
        return os.getcwd()
    except FileNotFoundError:  # it was deleted
        return None


def _restore_folder(folder: str | None) -> None:
    if folder is not None and os.path.isdir(folder):
        os.chdir(folder)


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(OWN_VARIABLES)}


def _restore_environment(before: dict[str, str]) -> None:
    for name in _environment().keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


def _umask() -> int:
    umask = os.umask(0o22)
    os.umask(umask)
    return umask


def _signal_handlers() -> dict[str, Any]:
    if threading.current_thread() is not threading.main_thread():  # they belong to the main thread
        return {}
    return {number.name: signal.getsignal(number) for number in signal.Signals if number.name not in NOT_CAUGHT}


def _restore_signal_handlers(handlers: dict[str, Any]) -> None:
    for name, handler in handlers.items():
        number = signal.Signals[name]
        if signal.getsignal(number) != handler and handler is not None:  # None: not installed from Python
            signal.signal(number, handler)


def _alarm_is_set() -> bool:
    return signal.getitimer(signal.ITIMER_REAL)[0] > 0


def _restore_alarm(was_set: bool) -> None:
    if not was_set:  # an alarm of ours that a method stopped cannot be told from one that went off
        signal.setitimer(signal.ITIMER_REAL, 0)


def _warning_filters() -> list[tuple[Any, ...]]:
    """But for those on one message, one module or a library's own warnings: libraries add them when imported."""
    filters: list[Any] = list(warnings.filters)
    return [filter_ for filter_ in filters if filter_ in _filters_at_start() or _is_broad(*filter_)]


def _is_broad(action: str, message: Any, category: type[Warning], module: Any, line: int) -> bool:
    return action == "error" or (message is None and module is None and category.__module__ == "builtins")


@cache
def _filters_at_start() -> tuple[tuple[Any, ...], ...]:
    return tuple(warnings.filters)


def _restore_warning_filters(before: list[tuple[Any, ...]]) -> None:
    ours = _warning_filters()
    kept = [filter_ for filter_ in warnings.filters if filter_ not in ours]
    warnings.resetwarnings()  # what was shown already may be shown again under other filters
    filters: Any = warnings.filters  # a list, whatever typeshed says
    filters.extend([*kept, *before])


def _logging() -> dict[str, Any]:
    """Every logger that there is, by name; the root has the name ``root``, what ``logging.disable`` set is apart."""
    known = {name: one for name, one in logging.root.manager.loggerDict.items() if isinstance(one, logging.Logger)}
    loggers = {"root": logging.root, **known}
    state: dict[str, Any] = {
        name: (one.level, one.disabled, one.propagate, list(one.handlers), list(one.filters))
        for name, one in loggers.items()
    }
    return state | {"logging.disable": logging.root.manager.disable, "logging.raiseExceptions": logging.raiseExceptions}


def _restore_logging(before: dict[str, Any]) -> None:
    for name, state in before.items():
        if name == "logging.disable":
            logging.disable(state)
        elif name == "logging.raiseExceptions":
            logging.raiseExceptions = state
        else:
            logger = logging.root if name == "root" else logging.getLogger(name)
            logger.setLevel(state[0])
            logger.disabled, logger.propagate = state[1], state[2]
            logger.handlers[:], logger.filters[:] = state[3], state[4]


def _logging_is_blamed(before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Loggers that are new are their library's own affair."""
    return any(after.get(name, state) != state for name, state in before.items())


def _logging_detail(before: dict[str, Any], after: dict[str, Any]) -> str:
    return changed_entries(before, {name: after[name] for name in before if name in after})


def _streams() -> list[Any]:
    return [sys.stdin, sys.stdout, sys.stderr, sys.excepthook, sys.displayhook, threading.excepthook]


def _restore_streams(before: list[Any]) -> None:
    sys.stdin, sys.stdout, sys.stderr, sys.excepthook, sys.displayhook, threading.excepthook = before


def _restore_start_method(name: str | None) -> None:
    multiprocessing.set_start_method(name, force=True)


def _affinity() -> set[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()


def _restore_affinity(cores: set[int]) -> None:
    if cores:
        os.sched_setaffinity(0, cores)


def _print_options() -> dict[str, Any]:
    return dict(np.get_printoptions())


def _restore_print_options(options: dict[str, Any]) -> None:
    options = dict(options)
    options.pop("override_repr", None)
    np.set_printoptions(**options)


def _pandas_options() -> dict[str, Any]:
    pandas = sys.modules["pandas"]
    known = {}
    for name in PANDAS_OPTIONS:
        try:
            known[name] = pandas.get_option(name)
        except (AttributeError, KeyError):  # this pandas does not have it, or is still being imported
            continue
    return known


def _restore_pandas_options(options: dict[str, Any]) -> None:
    for name, value in options.items():
        sys.modules["pandas"].set_option(name, value)


def _blas_threads() -> list[int]:
    return [library.num_threads for library in _thread_pools(len(sys.modules))]


def _restore_blas_threads(numbers: list[int]) -> None:
    for library, number in zip(_thread_pools(len(sys.modules)), numbers, strict=False):
        library.set_num_threads(number)


@cache
def _thread_pools(n_modules: int) -> list[Any]:
    """The thread pools of BLAS libraries; looked for again when more modules are loaded, as that takes its time."""
    import threadpoolctl

    return list(threadpoolctl.ThreadpoolController().select(user_api="blas").lib_controllers)


def _restore_showwarning(value: Any) -> None:
    if value is not getattr(logging, "_showwarning", None):
        logging.captureWarnings(False)  # else logging takes itself to be capturing them for ever after
    warnings.showwarning = value


GENERATORS: tuple[Watched, ...] = (
    Watched("Python's global random generator", random.getstate, random.setstate),
    Watched("numpy's global random generator", _numpy_generator, _restore_numpy_generator),
    Watched("torch's global random generator", torch_generator, restore_torch_generator, "torch"),
    Watched(
        "torch's generators on the GPU",
        cuda_generators,
        restore_cuda_generators,
        "torch",
        is_blamed=lambda before, after: False,  # starting CUDA moves them
    ),
)
# In the order in which they are put back: what torch makes in passing must not be caught by a strange default device,
# and the first of a pair resets the second (default device and dtype, inference mode and gradients)
WATCHED: tuple[Watched, ...] = (
    Watched("torch's default device", default_device, restore_default_device, "torch", detail=now_it_is),
    Watched(
        "torch's default dtype",
        lambda: loaded_torch().get_default_dtype(),
        lambda value: loaded_torch().set_default_dtype(value),
        "torch",
        detail=now_it_is,
    ),
    Watched(
        "torch's inference mode",
        lambda: loaded_torch().is_inference_mode_enabled(),
        restore_inference_mode,
        "torch",
        detail=now_it_is,
    ),
    Watched(
        "torch's gradients",
        lambda: loaded_torch().is_grad_enabled(),
        lambda value: loaded_torch().set_grad_enabled(value),
        "torch",
        detail=lambda before, after: "now on" if after else "now off",
    ),
    *GENERATORS,
    Watched("the working folder", _folder, _restore_folder, detail=now_it_is),
    Watched("environment variables", _environment, _restore_environment, detail=changed_entries),
    Watched("the umask", _umask, os.umask, detail=lambda before, after: f"now {after:03o}"),
    Watched("signal handlers", _signal_handlers, _restore_signal_handlers, detail=changed_entries),
    Watched("the alarm clock", _alarm_is_set, _restore_alarm),
    Watched("warning filters", _warning_filters, _restore_warning_filters),
    Watched(
        "how warnings are shown",
        lambda: warnings.showwarning,
        _restore_showwarning,
    ),
    Watched("logging", _logging, _restore_logging, is_blamed=_logging_is_blamed, detail=_logging_detail),
    Watched("sys.path", lambda: list(sys.path), lambda value: sys.path.__setitem__(slice(None), value)),
    Watched("standard streams or hooks for errors", _streams, _restore_streams),
    Watched(
        "the locale", lambda: locale.setlocale(locale.LC_ALL), lambda value: locale.setlocale(locale.LC_ALL, value)
    ),
    Watched("the recursion limit", sys.getrecursionlimit, sys.setrecursionlimit, detail=now_it_is),
    Watched("garbage collection", gc.isenabled, lambda on: gc.enable() if on else gc.disable()),
    Watched(
        "the fault handler", faulthandler.is_enabled, lambda on: faulthandler.enable() if on else faulthandler.disable()
    ),
    Watched(
        "how processes are started",
        lambda: multiprocessing.get_start_method(allow_none=True),
        _restore_start_method,
        is_blamed=lambda before, after: before is not None or after != multiprocessing.get_all_start_methods()[0],
        detail=now_it_is,
    ),
    Watched("the cores that may be used", _affinity, _restore_affinity, detail=now_it_is),
    Watched(
        "numpy's treatment of floating-point errors",
        np.geterr,
        lambda value: np.seterr(**value),
        detail=changed_entries,
    ),
    Watched("numpy's handler of floating-point errors", np.geterrcall, np.seterrcall),
    Watched("numpy's print options", _print_options, _restore_print_options, detail=changed_entries),
    Watched("pandas options", _pandas_options, _restore_pandas_options, "pandas", detail=changed_entries),
    Watched("threads of BLAS", _blas_threads, _restore_blas_threads, "threadpoolctl", detail=now_it_is),
    Watched("torch's autocast", autocast, restore_autocast, "torch"),
    Watched("torch's deterministic algorithms", deterministic, restore_deterministic, "torch"),
    Watched("torch's switches", torch_switches, restore_torch_switches, "torch", detail=changed_entries),
    Watched("torch's float32 precision", torch_precisions, restore_torch_precisions, "torch", detail=changed_entries),
    Watched(
        "torch's number of threads",
        lambda: loaded_torch().get_num_threads(),
        lambda value: loaded_torch().set_num_threads(value),
        "torch",
        detail=now_it_is,
    ),
    Watched("torch's anomaly mode", anomaly_mode, restore_anomaly_mode, "torch"),
    Watched("torch's flushing of denormal numbers", flushes_denormals, restore_denormals, "torch", detail=now_it_is),
    Watched("torch's hooks on all networks", module_hooks, restore_module_hooks, "torch"),
)
_MOVED = ("environment variables", "logging", "sys.path", "the recursion limit")
MOVED_BY_COMPILING = tuple(watched for watched in WATCHED if watched.words in _MOVED)  # of torch's own compiler
