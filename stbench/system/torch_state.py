"""torch's process-wide state: how each piece is read and put back. Nothing here imports torch."""

from __future__ import annotations

import sys
from typing import Any

TORCH_SWITCHES = (
    "backends.cudnn.enabled", "backends.cudnn.benchmark", "backends.cudnn.benchmark_limit",
    "backends.cudnn.deterministic", "backends.cuda.matmul.allow_fp16_reduced_precision_reduction",
    "backends.cuda.matmul.allow_bf16_reduced_precision_reduction", "backends.cuda.matmul.allow_fp16_accumulation",
    "backends.mkldnn.enabled", "backends.mkldnn.deterministic",
    "backends.opt_einsum.enabled", "backends.opt_einsum.strategy",
    "utils.deterministic.fill_uninitialized_memory",
)  # fmt: skip
# parents before children: setting a parent sets its children
TORCH_PRECISIONS = (
    "backends", "backends.cuda.matmul", "backends.cudnn", "backends.cudnn.conv", "backends.cudnn.rnn",
    "backends.mkldnn", "backends.mkldnn.matmul", "backends.mkldnn.conv", "backends.mkldnn.rnn",
)  # fmt: skip


def loaded_torch() -> Any:
    return sys.modules["torch"]


def value_at(path: str) -> Any:
    """What stands at ``torch.PATH``; ``None`` where this torch has no such thing."""
    found = loaded_torch()
    for name in path.split("."):
        found = getattr(found, name, None)
    return found


def put_at(path: str, value: Any) -> None:
    home, _, name = path.rpartition(".")
    if value is not None:
        setattr(value_at(home), name, value)


def torch_generator() -> bytes:
    return bytes(loaded_torch().random.get_rng_state().numpy())


def restore_torch_generator(state: bytes) -> None:
    torch = loaded_torch()
    torch.random.set_rng_state(torch.frombuffer(bytearray(state), dtype=torch.uint8))


def cuda_generators() -> list[bytes] | None:
    torch = loaded_torch()
    if not torch.cuda.is_initialized():
        return None
    return [bytes(state.numpy()) for state in torch.cuda.get_rng_state_all()]


def restore_cuda_generators(states: list[bytes] | None) -> None:
    torch = loaded_torch()
    if states is None:  # CUDA was started by the call
        torch.cuda.manual_seed_all(torch.initial_seed())
    else:
        torch.cuda.set_rng_state_all([torch.frombuffer(bytearray(state), dtype=torch.uint8) for state in states])


def torch_switches() -> dict[str, Any]:
    return {path.removeprefix("backends."): value_at(path) for path in TORCH_SWITCHES}


def restore_torch_switches(switches: dict[str, Any]) -> None:
    for path in TORCH_SWITCHES:
        value = switches[path.removeprefix("backends.")]
        if value_at(path) != value:
            put_at(path, value)


def torch_precisions() -> dict[str, Any]:
    """Torch's float32 precision, by its newer switches and by its older ones, which have a memory of their own."""
    torch = loaded_torch()
    found = {path: value_at(f"{path}.fp32_precision") for path in TORCH_PRECISIONS}
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
    torch = loaded_torch()
    if found["cudnn"] is not None:
        torch.backends.cudnn.allow_tf32 = found["cudnn"]
    if found["matmul"] is not None:
        torch.set_float32_matmul_precision(found["matmul"])
        if found["cudnn"] is not None:  # which the line before has changed, too
            torch.backends.cudnn.allow_tf32 = found["cudnn"]
    for path in TORCH_PRECISIONS:
        put_at(f"{path}.fp32_precision", found[path])


def deterministic() -> tuple[bool, bool]:
    torch = loaded_torch()
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


def restore_deterministic(state: tuple[bool, bool]) -> None:
    loaded_torch().use_deterministic_algorithms(state[0], warn_only=state[1])


def autocast() -> tuple[Any, ...]:
    torch = loaded_torch()
    kinds = ("cpu", "cuda")
    depth = torch.autocast_increment_nesting() - 1
    torch.autocast_decrement_nesting()
    return (
        *((kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in kinds),
        torch.is_autocast_cache_enabled(),
        depth,
    )


def restore_autocast(state: tuple[Any, ...]) -> None:
    torch = loaded_torch()
    *kinds, cached, depth = state
    for kind, is_on, dtype in kinds:
        torch.set_autocast_enabled(kind, is_on)
        torch.set_autocast_dtype(kind, dtype)
    torch.set_autocast_cache_enabled(cached)
    # one that was entered and never left: weights cast in it would be taken for those of every later training
    excess = autocast()[-1] - depth
    for _ in range(excess):
        torch.autocast_decrement_nesting()
    for _ in range(-excess):
        torch.autocast_increment_nesting()
    torch.clear_autocast_cache()


def restore_inference_mode(is_on: bool) -> None:
    LEFT_OPEN.append(loaded_torch().inference_mode(is_on))
    LEFT_OPEN[-1].__enter__()


LEFT_OPEN: list[Any] = []  # guards that must outlive the process's use of torch: leaving them would undo them


def anomaly_mode() -> tuple[bool, bool]:
    torch = loaded_torch()
    return torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()


def restore_anomaly_mode(state: tuple[bool, bool]) -> None:
    loaded_torch().autograd.set_detect_anomaly(*state)


def default_device() -> str:
    return str(loaded_torch().get_default_device())


def restore_default_device(device: str) -> None:
    torch = loaded_torch()
    torch.set_default_device(None)
    if default_device() != device and device == "cpu":  # set by set_default_tensor_type
        torch.set_default_tensor_type(torch.FloatTensor)
    elif device != "cpu":
        torch.set_default_device(device)


def flushes_denormals() -> bool:
    torch = loaded_torch()
    smallest = torch.full((1,), 5e-324, dtype=torch.float64, device="cpu")
    return not bool((smallest * 1 != 0).item())


def restore_denormals(flushes: bool) -> None:
    loaded_torch().set_flush_denormal(flushes)


def module_hooks() -> dict[str, dict[Any, Any]]:
    """Hooks on every network of the process."""
    found = vars(value_at("nn.modules.module"))
    return {
        name: dict(value)
        for name, value in found.items()
        if name.startswith("_global_") and value is not None and hasattr(value, "items")
    }


def restore_module_hooks(before: dict[str, dict[Any, Any]]) -> None:
    home = vars(value_at("nn.modules.module"))
    for name, hooks in before.items():
        home[name].clear()
        home[name].update(hooks)
