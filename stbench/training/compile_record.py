"""What a trial's record says of compiling, and the rules by which ``compile = "auto"`` decides.

Nothing here imports torch: whoever looks at a run reads these records, and starts fast.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

# Compiling is tried where what remains of the training, faster by this share, would save at least these seconds. Both
# are guesses on the careful side (ten minutes must remain), as neither is known before a network has been compiled.
EXPECTED_GAIN = 0.1
EXPECTED_COMPILE_S = 60.0
# The compiled network is kept where it is faster by at least this share: less is within what times differ by.
LEAST_GAIN = 0.02


class CompileRecord(BaseModel):
    """How a training ran that was to be compiled, and what was measured. Times are in seconds."""

    model_config = ConfigDict(frozen=True)

    choice: Literal["compiled", "eager"]  # how its last steps ran
    why: Literal["asked", "faster", "not_faster", "too_short", "failed", "on_cpu"]
    eager_s: float | None = None  # of an optimiser step
    compiled_s: float | None = None  # of the same step, compiled
    compile_s: float | None = None  # of the first compiled batch of each size, most of which is compiling
    steps: int = 0  # that were timed each way
    problem: str = ""  # why compiling failed

    @property
    def gain(self) -> float | None:
        """The share of a step's time that compiling saves, below zero where it costs time; ``None``: not measured."""
        if self.eager_s is None or self.compiled_s is None:
            return None
        return 1 - self.compiled_s / self.eager_s


def worth_trying(steps: int, eager_s: float) -> bool:
    """Whether so many further steps of ``eager_s`` seconds would pay for compiling, if it gained what is expected."""
    return steps * eager_s * EXPECTED_GAIN >= EXPECTED_COMPILE_S


def worth_keeping(eager_s: float, compiled_s: float) -> bool:
    """Whether a compiled step is faster. What compiling took is spent when this is asked, and decides nothing."""
    return compiled_s <= eager_s * (1 - LEAST_GAIN)
