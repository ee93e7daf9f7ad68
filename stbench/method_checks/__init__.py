"""The battery of checks that every method must pass, the way scikit-learn's estimators pass theirs.

Run by ``stbench methods check NAME`` and by the test suite over every registered method, on slides of a few spots that
are made here. A check that does not pass says what to fix in the method.
"""

from __future__ import annotations

from .battery import CHECKS, CheckResult, run_checks

__all__ = ["CHECKS", "CheckResult", "run_checks"]
