"""Methods out of TOML files: commands are run, followed, stopped and believed as far as they can be."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import anndata
import foreign_toml
import h5py
import numpy as np
import psutil
import pytest

from stbench import registry
from stbench.errors import Interrupted, MethodFailed, NotApplicable
from stbench.external.predictions import read_prediction
from stbench.foreign.exchange import write_patches, write_test, write_training
from stbench.foreign.method import open_method
from stbench.method import Needs, Run, TestSlide, TrainingSlide
from stbench.system.calls import Calls
from stbench.trials.asking import predict_again, predict_all
from stbench.trials.predictions import as_prediction

Slides = list[TrainingSlide]
SAVES = "open(os.path.join(task.model, 'mean.txt'), 'w').write('1')\n"
WRITES = "import numpy as np\nfor slide in task.slides: slide.write(np.ones((len(slide.spots), len(slide.genes))))\n"


@pytest.fixture(scope="module")
def slides(make_training_slides: Callable[..., Slides]) -> Slides:
    return make_training_slides(n_slides=3, n_spots=12, n_genes=4, side=8)


@pytest.fixture(scope="module")
def test_slide(slides: Slides, hide_expression: Callable[[TrainingSlide], TestSlide]) -> TestSlide:
    return hide_expression(slides[2])


def fitted(toml: Path, slides: Slides, run: Run | None = None):
    method = open_method(toml)
    made = method(method.Config())
    made.fit(slides[:2], run or Run(seed=1))
    return made


def test_commands_and_python_compute_the_same_numbers(tmp_path: Path, slides: Slides, test_slide: TestSlide) -> None:
    made = fitted(foreign_toml.colour_line(tmp_path), slides)
    here = registry.method(f"{foreign_toml.COLOUR_LINE}/in_process.py:ColourLine")
    expected = here(here.Config())
    expected.fit(slides[:2], Run(seed=1))
    np.testing.assert_array_equal(made.predict(test_slide), expected.predict(test_slide))
    assert made.versions["own python"].startswith("3.")
    assert made.peak_mem_mb > 5

    saved = tmp_path / "saved"
    saved.mkdir()
    made.save(saved)
    loaded = open_method(tmp_path / "line.toml").load(saved)
    np.testing.assert_array_equal(loaded.predict(test_slide), expected.predict(test_slide))


def test_the_predict_command_finds_no_expression_and_nothing_of_the_training_but_the_model(
    tmp_path: Path, slides: Slides, test_slide: TestSlide
) -> None:
    look = (
        "for top in (sys.argv[1], os.path.dirname(task.model)):\n"
        "    for folder, _, names in os.walk(top):\n"
        "        for name in names: print('SEEN', os.path.join(folder, name))\n"
        "import h5py\n"
        "for slide in task.slides:\n"
        "    assert not any(hasattr(slide, name) for name in ('target', 'counts', 'total_counts'))\n"
        "for name in os.listdir(sys.argv[1]):\n"
        "    if name.endswith('5ad'):\n"
        "        h5py.File(os.path.join(sys.argv[1], name), 'r').visit(lambda inner: print('HOLDS', inner))\n"
    )
    toml = foreign_toml.scripted(tmp_path, SAVES, look + WRITES)
    place = tmp_path / "checkpoint"
    method = open_method(toml)
    made = method(method.Config())
    made.fit(slides[:2], Run(seed=1, checkpoint_directory=place))
    assert sorted(path.name for path in place.iterdir()) == ["model", "trained.json"]
    lines = []
    handler = logging.Handler(logging.INFO)
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = logging.getLogger("stbench")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        made.predict(test_slide)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    seen = {Path(line.split("SEEN ")[1]).name for line in lines if "SEEN" in line}
    assert {"exchange.json", "mean.txt", "000_S2.h5", "000_S2.h5ad"} <= seen
    assert not [name for name in seen if "S0" in name or "S1" in name]
    held = {line.split("HOLDS ")[1] for line in lines if "HOLDS" in line}
    assert {"obs/array_row", "obsm/spatial", "var/_index"} <= held
    assert not held & {"X", "layers/counts", "obs/total_counts", "raw"}
    assert sorted(path.name for path in place.iterdir()) == ["model", "trained.json"]  # nothing is left behind


def test_what_is_written_opens_in_anndata(tmp_path: Path, slides: Slides, test_slide: TestSlide) -> None:
    about = {"genes": list(slides[0].genes)}
    write_training(tmp_path, slides[:1], about)
    table = anndata.read_h5ad(tmp_path / "000_S0.h5ad")
    np.testing.assert_array_equal(table.X, slides[0].target)
    np.testing.assert_array_equal(table.layers["counts"], slides[0].counts)
    np.testing.assert_array_equal(table.obs[["array_col", "array_row"]], slides[0].array_xy)
    np.testing.assert_array_equal(table.obs["total_counts"], slides[0].total_counts)
    np.testing.assert_array_equal(table.obsm["spatial"], slides[0].pixel_xy)
    assert tuple(table.var_names) == slides[0].genes
    (tmp_path / "test").mkdir()
    asked = write_test(tmp_path / "test", [test_slide, test_slide], slides[0].genes, about)
    assert [each.path.name for each in asked] == ["000_S2.h5ad", "001_S2.h5ad"]
    assert anndata.read_h5ad(tmp_path / "test/000_S2.h5ad").X is None


def test_patches_are_written_piece_by_piece_however_they_are_kept(
    tmp_path: Path, test_slide: TestSlide, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stbench.foreign.exchange.AT_A_TIME", 3 * 8 * 8 * 3)
    taken = []

    class Kept:
        shape = test_slide.patches.shape

        def __getitem__(self, key: slice) -> np.ndarray:
            taken.append(key.stop - key.start)
            return test_slide.patches[key]

        def __len__(self) -> int:
            return len(test_slide.patches)

    margins = np.arange(48).reshape(12, 4)
    write_patches(tmp_path / "kept.h5", replace(test_slide, patches=Kept(), margins=margins))
    assert taken == [3, 3, 3, 3]
    with h5py.File(tmp_path / "kept.h5") as file:
        np.testing.assert_array_equal(file["patches"][:], test_slide.patches)
        np.testing.assert_array_equal(file["margins"][:], margins)


def test_spots_without_places_of_their_own_get_numbers(tmp_path: Path, test_slide: TestSlide) -> None:
    same = replace(test_slide, array_xy=np.zeros((12, 2), dtype=np.int64))
    (asked,) = write_test(tmp_path, [same], ("A",), {})
    assert asked.spot_ids[:2] == ("spot0", "spot1")


@pytest.mark.parametrize(
    ("train", "predict", "message"),
    [
        (
            "raise ValueError('no such gene')",
            "",
            "the train command ended with status 1; its last lines: .*no such gene",
        ),
        ("os.kill(os.getpid(), 9)", "", r"was ended by SIGKILL \(memory may have run out\)"),
        ("pass", "", "left no file in {model}"),
        (
            SAVES,
            "print('all is well')",
            "left no prediction of slice S2 at predictions/000_S2.h5ad; its last lines: all",
        ),
        (
            SAVES,
            "slide = task.slides[0]; slide.spots[3] = 'x'\n" + WRITES,
            "1 of 12 spots of slice S2 have no prediction",
        ),
    ],
)
def test_a_failure_says_what_the_command_said(
    tmp_path: Path, slides: Slides, test_slide: TestSlide, train: str, predict: str, message: str
) -> None:
    toml = foreign_toml.scripted(tmp_path, train, predict)
    with pytest.raises(MethodFailed, match=message):
        fitted(toml, slides).predict(test_slide)


def test_the_command_speaks_to_the_harness_and_to_the_log(
    tmp_path: Path, slides: Slides, caplog: pytest.LogCaptureFixture
) -> None:
    says = (
        "task.progress(1, 4, 'loading')\ntask.log(2, loss=0.25, pcc=float('nan'))\nprint('stbench-note no stain')\n"
        "print('a\\rbar\\rlast', end='')\nsys.stdout.flush()\nos.write(2, b'\\n\\xff not text\\n')\n"
        "print('stbench-log x')\n"
    )
    progress, rows = [], []
    run = Run(
        seed=1,
        on_progress=lambda *words: progress.append(words),
        on_log=lambda epoch, values: rows.append((epoch, dict(values))),
    )
    with caplog.at_level(logging.INFO, logger="stbench"):
        fitted(foreign_toml.scripted(tmp_path, SAVES + says), slides, run)
    assert progress == [(1, 4, "loading")]
    assert [epoch for epoch, _ in rows] == [2]
    assert rows[0][1]["loss"] == 0.25
    assert run.notes == ["no stain", "it printed a line for the harness that is none of docs/adding.md: stbench-log x"]
    lines = [record.getMessage() for record in caplog.records]
    assert "train | last" in lines
    assert "train | � not text" in lines


def test_a_fold_that_gives_it_nothing_is_skipped(tmp_path: Path, slides: Slides) -> None:
    toml = foreign_toml.scripted(tmp_path, "print('stbench-skip one patient alone'); sys.exit(3)")
    with pytest.raises(NotApplicable, match=r"^one patient alone$"):
        fitted(toml, slides)


def test_genes_that_are_not_predicted_are_the_training_mean_and_are_named(
    tmp_path: Path, slides: Slides, test_slide: TestSlide, caplog: pytest.LogCaptureFixture
) -> None:
    without = "for slide in task.slides: slide.genes = slide.genes[1:]\n"
    made = fitted(foreign_toml.scripted(tmp_path, SAVES, without + WRITES), slides)
    predicted = made.predict(test_slide)
    mean = np.concatenate([slide.target for slide in slides[:2]]).mean(axis=0, dtype=np.float64)
    np.testing.assert_array_equal(predicted[:, 0], np.full(12, mean[0], dtype=np.float32))
    np.testing.assert_array_equal(predicted[:, 1:], 1)
    assert "1 of 4 genes is missing: GENE0; scored as the training mean" in caplog.text


SLEEPS = (
    "import subprocess\nchild = subprocess.Popen(['sleep', '600'])\n"
    "open(os.path.join(task.checkpoint, 'begun'), 'a').write('x')\n"
    "open({pids!r}, 'w').write('%d %d' % (os.getpid(), child.pid))\ntime.sleep(600)\n"
)


def _gone(path: Path, within: float = 5.0) -> bool:
    until = time.monotonic() + within
    pids = [int(word) for word in path.read_text(encoding="utf-8").split()]
    while time.monotonic() < until:
        if not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("resumes", [False, True])
def test_asked_to_stop_nothing_of_it_is_left_and_what_it_kept_is_there_if_it_resumes(
    tmp_path: Path, slides: Slides, resumes: bool
) -> None:
    pids = tmp_path / "pids"
    script = SLEEPS.format(pids=str(pids))
    again = f"if os.path.exists(os.path.join(task.checkpoint, 'begun')):\n    {SAVES}    sys.exit()\n"
    toml = foreign_toml.scripted(
        tmp_path, (again if resumes else "") + script, more=f"resumes = {str(resumes).lower()}"
    )
    place = tmp_path / "checkpoint"
    with pytest.raises(Interrupted, match="goes on from what it kept" if resumes else "begins anew"):
        fitted(toml, slides, Run(seed=1, checkpoint_directory=place, should_stop=pids.exists))
    assert _gone(pids)
    assert (place / "work/begun").is_file()
    if resumes:
        fitted(toml, slides, Run(seed=1, checkpoint_directory=place))


def test_an_exception_of_the_harness_ends_the_command(tmp_path: Path, slides: Slides) -> None:
    pids = tmp_path / "pids"

    def stop() -> bool:
        if pids.exists():
            raise KeyboardInterrupt
        return False

    toml = foreign_toml.scripted(tmp_path, SLEEPS.format(pids=str(pids)))
    with pytest.raises(KeyboardInterrupt):
        fitted(toml, slides, Run(seed=1, should_stop=stop))
    assert _gone(pids)


def test_a_command_that_ignores_being_asked_is_ended(
    tmp_path: Path, slides: Slides, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stbench.foreign.command.GRACE_S", 0.3)
    pids = tmp_path / "pids"
    deaf = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SLEEPS.format(pids=str(pids))
    with pytest.raises(Interrupted):
        fitted(foreign_toml.scripted(tmp_path, deaf), slides, Run(seed=1, should_stop=pids.exists))
    assert _gone(pids)


def test_what_a_command_leaves_running_is_ended(tmp_path: Path, slides: Slides) -> None:
    pids = tmp_path / "pids"
    leaves = (
        "import subprocess\nchild = subprocess.Popen(['sleep', '600'])\n"
        f"open({str(pids)!r}, 'w').write(str(child.pid))\n"
    )
    started = time.monotonic()
    fitted(foreign_toml.scripted(tmp_path, SAVES + leaves), slides)
    assert _gone(pids)
    assert time.monotonic() - started < 60


def test_what_left_its_group_is_ended_too_and_holds_nothing_up(
    tmp_path: Path, slides: Slides, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stbench.foreign.command.MEMORY_S", 0.1)
    pids = tmp_path / "pids"
    leaves = (
        "import subprocess\nchild = subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
        f"open({str(pids)!r}, 'w').write(str(child.pid))\ntime.sleep(1.5)\n"
    )
    fitted(foreign_toml.scripted(tmp_path, SAVES + leaves), slides)
    assert _gone(pids)


def test_a_full_disk_is_not_the_methods_fault(tmp_path: Path, slides: Slides) -> None:
    full = "import errno\nraise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), 'model.pt')"
    with pytest.raises(OSError, match="No space left on device, the train command says") as caught:
        fitted(foreign_toml.scripted(tmp_path, full), slides)
    assert caught.value.errno == errno.ENOSPC


def test_killed_with_its_harness_nothing_of_it_is_left(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    # the pipe and the group alone: the shell that watches has to end a command whose parent is killed
    program = (
        "import sys\nfrom pathlib import Path\nfrom stbench.foreign.command import run_command\n"
        "from stbench.foreign.environment import Launch\nimport os\n"
        f"code = \"import os, time; open({str(pids)!r}, 'w').write(str(os.getpid())); time.sleep(600)\"\n"
        "run_command(Launch((sys.executable, '-c', code), dict(os.environ)), Path('.'), print, lambda: False)\n"
    )
    harness = subprocess.Popen([sys.executable, "-c", program])
    while not (pids.exists() and pids.read_text(encoding="utf-8")):
        assert harness.poll() is None
        time.sleep(0.05)
    harness.kill()
    harness.wait()
    assert _gone(pids)


def test_a_flood_of_output_is_neither_lost_track_of_nor_kept_whole(tmp_path: Path) -> None:
    from stbench.foreign.command import run_command
    from stbench.foreign.environment import Launch
    from stbench.foreign.output import LONGEST, Output

    output = Output("train", None)
    code = (
        "import sys\nsys.stdout.write('\\r'.join('%07d' % i for i in range(300000)))\n"
        "print('z' * 5_000_000)\nprint('last')"
    )
    ending = run_command(Launch((sys.executable, "-c", code), dict(os.environ)), tmp_path, output, lambda: False)
    output.close()
    assert ending.status == 0
    assert output.last[-1] == "last"
    assert max(map(len, output.last)) <= LONGEST


def test_several_slides_take_one_start(tmp_path: Path, slides: Slides, test_slide: TestSlide) -> None:
    count = f"open({str(tmp_path / 'starts')!r}, 'a').write('x')\n"
    made = fitted(foreign_toml.scripted(tmp_path, SAVES, count + WRITES), slides)
    predicted = made.predict_slides(iter([test_slide, replace(test_slide, id="other/name")]))
    assert [values.shape for values in predicted] == [(12, 4), (12, 4)]
    assert (tmp_path / "starts").read_text(encoding="utf-8") == "x"


def test_a_trial_asks_twice_however_many_slides_it_tests(slides: Slides, hide_expression: Callable) -> None:
    asked: list[list[TestSlide]] = []

    class Answers:
        needs = Needs()

        def predict_slides(self, given: Iterator[TestSlide]) -> list[np.ndarray]:
            asked.append(list(given))
            return [np.full((slide.n_spots, 4), slide.patches.mean()) for slide in asked[-1]]

    seen = {slide.id: hide_expression(slide) for slide in slides}
    method = Calls("answers").guard(
        Answers(), lambda value, slide: as_prediction(value, slide, slides[0].genes, "answers")
    )
    assert len(predict_all(method, seen.values())) == 3
    again = predict_again(method, seen, "made up", 0, lambda name: np.random.default_rng(0))
    assert [[slide.id for slide in call] for call in asked] == [["S0", "S1", "S2"], ["S0", "S1", "S2"] * 2]
    for name, slide in seen.items():
        assert again.exchanged[name].shape == (12, 4)
        spots, values = again.parts[name]
        np.testing.assert_array_equal(values, np.full((7, 4), slide.patches[spots].mean(), dtype=np.float32))

    class TooFew(Answers):
        def predict_slides(self, given: Iterator[TestSlide]) -> list[np.ndarray]:
            return super().predict_slides(given)[:2]

    short = Calls("short").guard(TooFew(), lambda value, slide: value)
    with pytest.raises(MethodFailed, match="its predict_slides gave 2 predictions of 3 slides"):
        predict_all(short, seen.values())


def test_a_copy_of_the_reader_reads_what_it_wrote(tmp_path: Path, slides: Slides, test_slide: TestSlide) -> None:
    from stbench.foreign.reader import Task

    (asked,) = write_test(
        tmp_path,
        [test_slide],
        slides[0].genes,
        {
            "genes": list(slides[0].genes),
            "settings": {},
            "seed": 1,
            "device": "cpu",
            "threads": 1,
            "model": "m",
            "checkpoint": None,
        },
    )
    (slide,) = Task(str(tmp_path)).slides
    assert isinstance(slide.patches, np.memmap)
    np.testing.assert_array_equal(slide.patches, test_slide.patches)
    np.testing.assert_array_equal(slide.array_xy, test_slide.array_xy)
    values = np.arange(48, dtype=np.float32).reshape(12, 4)
    slide.write(values)
    np.testing.assert_array_equal(read_prediction(asked.path, asked).values, values)
