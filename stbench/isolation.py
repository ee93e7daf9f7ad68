"""All methods share one process: whatever one of them changes in it is put back after the call, and named.

What is watched is a list, :data:`WATCHED`: a further piece of process-wide state is one more entry. Nothing here
imports torch; its state is looked at where it is loaded. What cannot be put back: functions of libraries that a method
replaces, threads and child processes that it leaves running, and a crash of the process itself.
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
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

# Variables that libraries write for themselves when they start; they mean nothing to who comes later
OWN_VARIABLES = ("CUDA_MODULE_LOADING", "KMP_", "TORCHINDUCTOR_", "TRITON_", "KINETO_", "PYTEST_")
TORCH_SWITCHES = (
    *("backends.cudnn.enabled", "backends.cudnn.benchmark", "backends.cudnn.benchmark_limit"),
    *("backends.cudnn.deterministic", "backends.cuda.matmul.allow_fp16_reduced_precision_reduction"),
    *("backends.cuda.matmul.allow_bf16_reduced_precision_reduction", "backends.cuda.matmul.allow_fp16_accumulation"),
    *("backends.mkldnn.enabled", "backends.mkldnn.deterministic"),
    *("backends.opt_einsum.enabled", "backends.opt_einsum.strategy"),
    "utils.deterministic.fill_uninitialized_memory",
)
# parents before children: setting a parent sets its children
TORCH_PRECISIONS = (
    *("backends", "backends.cuda.matmul", "backends.cudnn", "backends.cudnn.conv", "backends.cudnn.rnn"),
    *("backends.mkldnn", "backends.mkldnn.matmul", "backends.mkldnn.conv", "backends.mkldnn.rnn"),
)
NOT_CAUGHT = ("SIGKILL", "SIGSTOP")
PANDAS_OPTIONS = ("mode.copy_on_write", "mode.chained_assignment", "mode.string_storage", "future.infer_string")


@dataclass(frozen=True)
class Watched:
    """One piece of process-wide state. ``read`` gives something that ``==`` compares, ``restore`` takes it again.

    ``library``: looked at only where that module is loaded. ``is_blamed(before, after)``: whether the change is worth
    naming its author; some state is moved by the use of a library alone. ``detail(before, after)``: what changed.
    """

    words: str
    read: Callable[[], Any]
    restore: Callable[[Any], object]
    library: str = ""
    is_blamed: Callable[[Any, Any], bool] = lambda before, after: True
    detail: Callable[[Any, Any], str] = lambda before, after: ""

    def state(self) -> Any:
        """What ``read`` gives, or why it cannot be read (of a default device that is not there, say)."""
        try:
            return self.read()
        except Exception as error:  # noqa: BLE001 - a stranger may have left anything
            return Unreadable(str(error))

    def change(self, before: Any, after: Any) -> str:
        """In words; empty where there is none, or nobody is to be blamed for it."""
        if before == after:
            return ""
        if Unreadable in (type(before), type(after)):
            return self.words
        if not self.is_blamed(before, after):
            return ""
        detail = self.detail(before, after)
        return f"{self.words}{f' ({detail})' if detail else ''}"

    def put_back(self, before: Any) -> bool:
        """Whether it is as it was."""
        try:
            self.restore(before)
        except Exception:  # noqa: BLE001 - said by the caller, who names the author
            return False
        return not self.change(before, self.state())


@dataclass(frozen=True)
class Unreadable:
    reason: str


@contextmanager
def process_kept(tell: Callable[[list[str]], object] | None = None, seed: int | None = None) -> Iterator[None]:
    """Put the watched state back when the block is left in whatever way, and ``tell`` what had been changed, in words.

    With a ``seed`` the global random generators start from it inside: who draws from them, which a method should not,
    still gives the same numbers whatever ran before.
    """
    outside = _read(WATCHED)
    inside = outside
    if seed is not None:
        _seed_generators(seed)
        inside = outside | _read(GENERATORS)
    try:
        yield
    finally:
        changed = []
        for watched, before in outside.items():  # in order, each read after those before it were put back
            now = watched.state()
            found = watched.change(inside[watched], now)
            left = now == before or watched.put_back(before)
            if found or not left:
                changed.append(f"{found or watched.words}{'' if left else ', which could not be put back'}")
        if changed and tell is not None:
            tell(changed)


def _read(some: Iterable[Watched]) -> dict[Watched, Any]:
    return {watched: watched.state() for watched in some if not watched.library or watched.library in sys.modules}


def _torch() -> Any:
    return sys.modules["torch"]


def _to(before: object, after: object) -> str:
    return f"now {after}"


def _entries(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """The keys that differ."""
    differing = [key for key in {**before, **after} if before.get(key, _to) != after.get(key, _to)]
    return ", ".join(differing[:5]) + (" ..." if len(differing) > 5 else "")


# Random generators ----------------------------------------------------------------------------------------------------


def _seed_generators(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - the global generator is what is meant
    if "torch" in sys.modules:
        _torch().manual_seed(seed)


def _numpy_generator() -> bytes:
    return pickle.dumps(np.random.get_state(legacy=False))  # noqa: NPY002 - bytes, as arrays do not compare


def _restore_numpy_generator(state: bytes) -> None:
    np.random.set_state(pickle.loads(state))  # noqa: NPY002 - made above


def _torch_generator() -> bytes:
    return bytes(_torch().random.get_rng_state().numpy())


def _restore_torch_generator(state: bytes) -> None:
    torch = _torch()
    torch.random.set_rng_state(torch.frombuffer(bytearray(state), dtype=torch.uint8))


def _cuda_generators() -> list[bytes] | None:
    torch = _torch()
    if not torch.cuda.is_initialized():
        return None
    return [bytes(state.numpy()) for state in torch.cuda.get_rng_state_all()]


def _restore_cuda_generators(states: list[bytes] | None) -> None:
    torch = _torch()
    if states is None:  # CUDA was started by the call
        torch.cuda.manual_seed_all(torch.initial_seed())
    else:
        torch.cuda.set_rng_state_all([torch.frombuffer(bytearray(state), dtype=torch.uint8) for state in states])


# Python and the operating system --------------------------------------------------------------------------------------


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
    return _entries(before, {name: after[name] for name in before if name in after})


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


# Threads --------------------------------------------------------------------------------------------------------------


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


# torch ----------------------------------------------------------------------------------------------------------------


def _at(path: str) -> Any:
    """What stands at ``torch.PATH``; ``None`` where this torch has no such thing."""
    found = _torch()
    for name in path.split("."):
        found = getattr(found, name, None)
    return found


def _put(path: str, value: Any) -> None:
    home, _, name = path.rpartition(".")
    if value is not None:
        setattr(_at(home), name, value)


def _torch_switches() -> dict[str, Any]:
    return {path.removeprefix("backends."): _at(path) for path in TORCH_SWITCHES}


def _restore_torch_switches(switches: dict[str, Any]) -> None:
    for path in TORCH_SWITCHES:
        value = switches[path.removeprefix("backends.")]
        if _at(path) != value:
            _put(path, value)


def torch_precisions() -> dict[str, Any]:
    """Torch's float32 precision, by its newer switches and by its older ones, which have a memory of their own."""
    torch = _torch()
    found = {path: _at(f"{path}.fp32_precision") for path in TORCH_PRECISIONS}
    for name, read in (
        ("matmul", torch.get_float32_matmul_precision),
        ("cudnn", lambda: torch.backends.cudnn.allow_tf32),
    ):
        try:
            found[name] = read()
        except RuntimeError:  # set for one backend alone, which only its own switch tells
            found[name] = None
    return found


def restore_torch_precisions(found: dict[str, Any]) -> None:
    torch = _torch()
    if found["cudnn"] is not None:
        torch.backends.cudnn.allow_tf32 = found["cudnn"]
    if found["matmul"] is not None:
        torch.set_float32_matmul_precision(found["matmul"])
        if found["cudnn"] is not None:  # which the line before has changed, too
            torch.backends.cudnn.allow_tf32 = found["cudnn"]
    for path in TORCH_PRECISIONS:
        _put(f"{path}.fp32_precision", found[path])


def _restore_showwarning(value: Any) -> None:
    if value is not getattr(logging, "_showwarning", None):
        logging.captureWarnings(False)  # else logging takes itself to be capturing them for ever after
    warnings.showwarning = value


def _deterministic() -> tuple[bool, bool]:
    torch = _torch()
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


def _restore_deterministic(state: tuple[bool, bool]) -> None:
    _torch().use_deterministic_algorithms(state[0], warn_only=state[1])


def _autocast() -> tuple[Any, ...]:
    torch = _torch()
    kinds = ("cpu", "cuda")
    depth = torch.autocast_increment_nesting() - 1
    torch.autocast_decrement_nesting()
    return (
        *((kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in kinds),
        torch.is_autocast_cache_enabled(),
        depth,
    )


def _restore_autocast(state: tuple[Any, ...]) -> None:
    torch = _torch()
    *kinds, cached, depth = state
    for kind, is_on, dtype in kinds:
        torch.set_autocast_enabled(kind, is_on)
        torch.set_autocast_dtype(kind, dtype)
    torch.set_autocast_cache_enabled(cached)
    # one that was entered and never left: weights cast in it would be taken for those of every later training
    excess = _autocast()[-1] - depth
    for _ in range(excess):
        torch.autocast_decrement_nesting()
    for _ in range(-excess):
        torch.autocast_increment_nesting()
    torch.clear_autocast_cache()


def _restore_inference_mode(is_on: bool) -> None:
    LEFT_OPEN.append(_torch().inference_mode(is_on))
    LEFT_OPEN[-1].__enter__()


LEFT_OPEN: list[Any] = []  # guards that must outlive the process's use of torch: leaving them would undo them


def _anomaly_mode() -> tuple[bool, bool]:
    torch = _torch()
    return torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()


def _restore_anomaly_mode(state: tuple[bool, bool]) -> None:
    _torch().autograd.set_detect_anomaly(*state)


def _default_device() -> str:
    return str(_torch().get_default_device())


def _restore_default_device(device: str) -> None:
    torch = _torch()
    torch.set_default_device(None)
    if _default_device() != device and device == "cpu":  # set by set_default_tensor_type
        torch.set_default_tensor_type(torch.FloatTensor)
    elif device != "cpu":
        torch.set_default_device(device)


def _flushes_denormals() -> bool:
    torch = _torch()
    smallest = torch.full((1,), 5e-324, dtype=torch.float64, device="cpu")
    return not bool((smallest * 1 != 0).item())


def _restore_denormals(flushes: bool) -> None:
    _torch().set_flush_denormal(flushes)


def _module_hooks() -> dict[str, dict[Any, Any]]:
    """Hooks on every network of the process."""
    found = vars(_at("nn.modules.module"))
    return {
        name: dict(value)
        for name, value in found.items()
        if name.startswith("_global_") and value is not None and hasattr(value, "items")
    }


def _restore_module_hooks(before: dict[str, dict[Any, Any]]) -> None:
    home = vars(_at("nn.modules.module"))
    for name, hooks in before.items():
        home[name].clear()
        home[name].update(hooks)


GENERATORS: tuple[Watched, ...] = (
    Watched("Python's global random generator", random.getstate, random.setstate),
    Watched("numpy's global random generator", _numpy_generator, _restore_numpy_generator),
    Watched("torch's global random generator", _torch_generator, _restore_torch_generator, "torch"),
    Watched(
        "torch's generators on the GPU",
        _cuda_generators,
        _restore_cuda_generators,
        "torch",
        is_blamed=lambda before, after: False,  # starting CUDA moves them
    ),
)
# In the order in which they are put back: what torch makes in passing must not be caught by a strange default device,
# and the first of a pair resets the second (default device and dtype, inference mode and gradients)
WATCHED: tuple[Watched, ...] = (
    Watched("torch's default device", _default_device, _restore_default_device, "torch", detail=_to),
    Watched(
        "torch's default dtype",
        lambda: _torch().get_default_dtype(),
        lambda value: _torch().set_default_dtype(value),
        "torch",
        detail=_to,
    ),
    Watched(
        "torch's inference mode",
        lambda: _torch().is_inference_mode_enabled(),
        _restore_inference_mode,
        "torch",
        detail=_to,
    ),
    Watched(
        "torch's gradients",
        lambda: _torch().is_grad_enabled(),
        lambda value: _torch().set_grad_enabled(value),
        "torch",
        detail=lambda before, after: "now on" if after else "now off",
    ),
    *GENERATORS,
    Watched("the working folder", _folder, _restore_folder, detail=_to),
    Watched("environment variables", _environment, _restore_environment, detail=_entries),
    Watched("the umask", _umask, os.umask, detail=lambda before, after: f"now {after:03o}"),
    Watched("signal handlers", _signal_handlers, _restore_signal_handlers, detail=_entries),
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
    Watched("the recursion limit", sys.getrecursionlimit, sys.setrecursionlimit, detail=_to),
    Watched("garbage collection", gc.isenabled, lambda on: gc.enable() if on else gc.disable()),
    Watched(
        "the fault handler", faulthandler.is_enabled, lambda on: faulthandler.enable() if on else faulthandler.disable()
    ),
    Watched(
        "how processes are started",
        lambda: multiprocessing.get_start_method(allow_none=True),
        _restore_start_method,
        is_blamed=lambda before, after: before is not None or after != multiprocessing.get_all_start_methods()[0],
        detail=_to,
    ),
    Watched("the cores that may be used", _affinity, _restore_affinity, detail=_to),
    Watched("numpy's treatment of floating-point errors", np.geterr, lambda value: np.seterr(**value), detail=_entries),
    Watched("numpy's handler of floating-point errors", np.geterrcall, np.seterrcall),
    Watched("numpy's print options", _print_options, _restore_print_options, detail=_entries),
    Watched("pandas options", _pandas_options, _restore_pandas_options, "pandas", detail=_entries),
    Watched("threads of BLAS", _blas_threads, _restore_blas_threads, "threadpoolctl", detail=_to),
    Watched("torch's autocast", _autocast, _restore_autocast, "torch"),
    Watched("torch's deterministic algorithms", _deterministic, _restore_deterministic, "torch"),
    Watched("torch's switches", _torch_switches, _restore_torch_switches, "torch", detail=_entries),
    Watched("torch's float32 precision", torch_precisions, restore_torch_precisions, "torch", detail=_entries),
    Watched(
        "torch's number of threads",
        lambda: _torch().get_num_threads(),
        lambda value: _torch().set_num_threads(value),
        "torch",
        detail=_to,
    ),
    Watched("torch's anomaly mode", _anomaly_mode, _restore_anomaly_mode, "torch"),
    Watched("torch's flushing of denormal numbers", _flushes_denormals, _restore_denormals, "torch", detail=_to),
    Watched("torch's hooks on all networks", _module_hooks, _restore_module_hooks, "torch"),
)
