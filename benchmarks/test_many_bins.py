"""Half a million bins with windows of 112 µm: what preparing them takes, and what reading and training on them does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import many_bins

N_BINS = 500_000
PATCHES = N_BINS * 224**2 * 3  # bytes, were each patch stored

PREPARE = """
import json, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from many_bins import Bins
from stbench.data.physical import with_patch_um
from stbench.data.prepare import prepare

def peak():
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024

root = Path(sys.argv[2])
bins = Bins(root)
(source,) = bins.find()[0]
source.read()
alone = peak()
start = time.perf_counter()
slide = prepare(with_patch_um(bins, 112), "spot-log10-cp10k", root / "cache").slides["S"]
seconds = time.perf_counter() - start
print(json.dumps({"alone": alone, "peak": peak(), "seconds": seconds, "shape": slide.patches.shape}))
"""

TRAIN = """
import json, sys, time
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import numpy as np
from many_bins import Bins
from stbench import registry
from stbench.data.physical import with_patch_um
from stbench.data.prepare import prepare
from stbench.method import Run, configure

def peak():
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024

root = Path(sys.argv[2])
slide = prepare(with_patch_um(Bins(root), 112), "spot-log10-cp10k", root / "cache").slides["S"].for_training()
spots = np.arange(0, slide.n_spots, slide.n_spots // 2000)
start = time.perf_counter()
few = replace(
    slide, patches=slide.patches[spots], array_xy=slide.array_xy[spots], pixel_xy=slide.pixel_xy[spots],
    target=slide.target[spots], counts=slide.counts[spots], total_counts=slide.total_counts[spots],
)
cut = time.perf_counter() - start
opened = peak()
method = registry.method("stnet")
stnet = method(configure(method, "quick", changes={"weights": "random", "epochs": 1, "patch_px": 224}))
start = time.perf_counter()
stnet.fit([few], Run(device="cpu"))
print(json.dumps({"opened": opened, "peak": peak(), "per_s": len(spots) / cut, "fit": time.perf_counter() - start}))
"""


def child(work: str, root: Path) -> dict:
    environment = os.environ | {"STBENCH_BINS": str(N_BINS)}
    words = [sys.executable, "-c", work, str(Path(__file__).parent), str(root)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def test_half_a_million_bins_stay_bounded(tmp_path: Path, tell: Callable[[str], None]) -> None:
    many_bins.write_image(tmp_path / "bins.tif", N_BINS)
    try:
        made = child(PREPARE, tmp_path)
        on_disk = {path.name: path.stat().st_size for path in (tmp_path / "cache").rglob("*.npy")}
        trained = child(TRAIN, tmp_path)
    finally:
        for path in tmp_path.rglob("*.npy"):  # pytest keeps what tests leave
            path.unlink()
    gib = 2**30
    patches = on_disk["tiles.npy"]
    tell(
        f"{N_BINS:,} bins prepared in {made['seconds']:.0f} s, {made['peak'] / gib:.2f} GiB at the peak (the section "
        f"alone {made['alone'] / gib:.2f}); tiles {patches / gib:.2f} GiB for patches of {PATCHES / gib:.0f} GiB, "
        f"counts {on_disk['counts.npy'] / gib:.2f}, target {on_disk['target.npy'] / gib:.2f}"
    )
    tell(
        f"2,001 of them cut at {trained['per_s']:.0f} a second, STnet (quick) trained on them for an epoch in "
        f"{trained['fit']:.0f} s, {trained['peak'] / gib:.2f} GiB at the peak"
    )
    assert made["shape"] == [N_BINS, 224, 224, 3]
    assert patches < PATCHES / 50
    assert made["peak"] < made["alone"] + 2 * gib
    assert trained["peak"] < 4 * gib
