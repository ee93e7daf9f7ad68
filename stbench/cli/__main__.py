"""``python -m stbench.cli``: the command line where its script is not installed."""

from __future__ import annotations

from . import main

main()
