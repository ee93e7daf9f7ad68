"""``stbench doctor``: what is installed and what is missing, on one screen."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from .. import registry
from ..system.locate import cache_root, data_root
from .console import out
from .options import DataOption


def doctor(data: DataOption = None) -> None:
    """Show what a bug report needs: what is installed, and which GPU, data and pretrained weights are at hand."""
    import importlib.util

    import torch

    from ..data.inventory import list_dataset
    from ..system.environment import machine, versions
    from ..system.file_system import abilities
    from ..training.foundation.hub_cache import file_in_cache
    from ..training.foundation.table import published_encoders

    facts = Table(box=None, show_header=False, pad_edge=False)
    facts.add_column(style="bold")
    facts.add_column(overflow="fold")
    facts.add_row("versions", ", ".join(f"{name} {number}" for name, number in versions().items()))
    facts.add_row("machine", ", ".join(f"{name} {value}" for name, value in machine().items()))
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    facts.add_row("GPU", ", ".join(gpus) or "none: everything runs on the CPU, use --preset quick")
    root = data_root(data)
    facts.add_row("data", str(root or "no folder: give --data DIR or set STBENCH_DATA"))
    for name in registry.dataset_names():
        listing = list_dataset(registry.dataset(name, root))
        facts.add_row(f"  {name}", f"{len(listing.present)}/{listing.n_expected} slices")
    facts.add_row("cache", f"{cache_root()}: {', '.join(abilities(cache_root()))}")
    facts.add_row("results here", f"{Path('results').absolute()}: {', '.join(abilities(Path('results')))}")
    cached = sorted(path.name for path in Path(torch.hub.get_dir(), "checkpoints").glob("*.pth"))
    facts.add_row(
        "weights", ", ".join(cached) or "none in torch's cache: they are downloaded on first use, or --weights PATH"
    )
    published = [row.name for row in published_encoders().values() if file_in_cache(row) is not None]
    facts.add_row(
        "encoders",
        ", ".join(published) or "none of 'stbench encoders list' in the Hugging Face cache: --encoders NAME@PATH",
    )
    has_openslide = importlib.util.find_spec("openslide") is not None
    facts.add_row("extra wsi", "installed" if has_openslide else "not installed: pip install 'stbench[wsi]'")
    out.print(facts)
