"""``python -m stbench.cli``: the command line without its installed script."""

from __future__ import annotations

from . import main

main()
