"""What is decided for Slurm without any process: times, options, lists of trials, the queue, how a worker left."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stbench.errors import UserError
from stbench.trials.engines.slurm import commands
from stbench.trials.engines.slurm.commands import Answer, ClusterLimits, clean_environment, is_doubtful, was_turned_away
from stbench.trials.engines.slurm.lists import HOUR_S, Job, ResourceClass, memory_class, plan_lists, shares
from stbench.trials.engines.slurm.node import Left
from stbench.trials.engines.slurm.options import SbatchOptions, defaults, lines, warning_s
from stbench.trials.engines.slurm.queue import HEADER, QueuedJob, hint, parse_queue, why_waiting
from stbench.trials.engines.slurm.sight import Pace, Sight, was_out_of_memory
from stbench.trials.engines.slurm.times import seconds_of_limit

GIB = 2**30

# Times ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 5400),
        ("90:30", 5430),
        ("4:00:00", 14400),
        ("04:00:01", 14401),
        ("1-02", 93600),
        ("1-02:00", 93600),
        ("1-02:30", 95400),
        ("2-00:00:05", 172805),
        ("0", None),
        ("0:00:00", None),
        ("UNLIMITED", None),
        ("infinite", None),
    ],
)
def test_every_form_of_slurms_time_is_understood(text: str, seconds: int | None) -> None:
    assert seconds_of_limit(text) == seconds


@pytest.mark.parametrize("text", ["4h", "", "1-", "1:2:3:4", "1-1:1:1:1", "soon", "-5", "1.5"])
def test_what_is_no_time_is_one_line(text: str) -> None:
    with pytest.raises(UserError, match="is no time of Slurm's - write minutes, or for example 4:00:00") as caught:
        seconds_of_limit(text)
    assert "\n" not in str(caught.value)


# Options -------------------------------------------------------------------------------------------------------------


def merged(*words: str) -> dict[str, str]:
    options = SbatchOptions.parse(words)
    return options.over(defaults(8 * GIB, False, options.seconds))


def test_options_are_added_changed_and_taken_out() -> None:
    assert merged()["mem"] == "8192M"
    assert merged("partition=gpu", "exclusive")["partition"] == "gpu"
    assert lines(merged("exclusive"))[-1] == "#SBATCH --exclusive"
    for word in ("mem=", "no-mem"):
        assert "mem" not in merged(word)
    assert merged("-p=gpu")["partition"] == merged("--partition=gpu")["partition"] == "gpu"
    assert merged("cpus_per_task=8")["cpus-per-task"] == "8"
    assert "wckey" not in merged("wckey=")  # there is no such default: as is wished


@pytest.mark.parametrize(("typed", "gone"), [("mem-per-cpu=2G", "mem"), ("cpus-per-gpu=4", "cpus-per-task")])
def test_what_says_the_same_in_another_way_replaces_the_default(typed: str, gone: str) -> None:
    assert gone in merged()
    assert gone not in merged(typed)


def test_options_of_sbatch_that_begin_with_no_are_passed_on() -> None:
    assert "requeue" in merged()
    options = merged("no-requeue")
    assert "requeue" not in options
    assert "#SBATCH --no-requeue" in lines(options)


def test_a_gpu_is_asked_for_where_the_device_says_so_and_can_be_asked_for_otherwise() -> None:
    assert defaults(GIB, True, None)["gres"] == "gpu:1"
    assert "gres" not in SbatchOptions.parse(["gpus-per-task=a100:1"]).over(defaults(GIB, True, None))


@pytest.mark.parametrize(
    ("words", "asks"),
    [
        ([], False),
        (["gres=gpu:1"], True),
        (["gpus-per-task=a100:1"], True),
        (["gres=disk:1"], False),
        (["gres="], False),
    ],
)
def test_costs_are_those_of_what_a_job_will_have(words: list[str], asks: bool) -> None:
    assert SbatchOptions.parse(words).asks_for_gpus is asks


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("array=0-9", "--max-parallel says how many workers run at a time"),
        ("wrap=ls", "what a job runs is written by stbench"),
        ("=5", "names no option of sbatch"),
        ("time=4h", "time=4h is no time of Slurm's"),
        ("comment=a\nb", "its value holds characters that no line of a file can hold"),
        ("signal=B:USR1@60", "workers heed USR2, TERM, INT and HUP, and die of others"),
        ("job-name=", "job-name is how jobs are found again"),
    ],
)
def test_what_cannot_be_given_is_one_line(word: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        SbatchOptions.parse([word])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_short_job_is_warned_later() -> None:
    assert [warning_s(seconds) for seconds in (None, 14400, 60)] == [120, 120, 15]


def test_values_are_quoted_where_they_need_it() -> None:
    assert lines({"comment": 'two "words"', "gres": "gpu:a100:1", "licenses": "a#b"}) == [
        r'#SBATCH --comment="two \"words\""',
        "#SBATCH --gres=gpu:a100:1",
        '#SBATCH --licenses="a#b"',
    ]


# Lists ---------------------------------------------------------------------------------------------------------------


def job(number: int, seconds: float = 600.0, memory: int = GIB, **more: object) -> Job:
    return Job(f"k{number}", seconds, memory, **more)  # type: ignore[arg-type]


def flat(lists: list[list[str]]) -> list[str]:
    return [key for keys in lists for key in keys]


def test_lists_hold_an_hour_of_work_and_fit_into_the_time_limit() -> None:
    jobs = [job(number) for number in range(318)]
    (lists,) = plan_lists(jobs, None, None).values()
    assert sorted(flat(lists)) == sorted(each.key for each in jobs)
    assert len(lists) == 318 * 600 / HOUR_S
    (lists,) = plan_lists(jobs, 1800.0, None).values()
    assert max(map(len, lists)) * 600 <= 1800
    (lists,) = plan_lists([job(1, 9000.0), job(2, 9000.0)], 1800.0, None).values()
    assert lists == [["k1"], ["k2"]]  # longer than the limit: it goes on in a second job


def test_workers_that_may_run_get_something_to_do_where_that_pays() -> None:
    (lists,) = plan_lists([job(number) for number in range(4)], None, 4).values()
    assert len(lists) == 4
    (lists,) = plan_lists([job(number, 1.0) for number in range(40)], None, 4).values()
    assert len(lists) == 1


def test_a_trial_stands_behind_the_one_whose_model_it_reuses() -> None:
    jobs = [job(1, teacher="k3"), job(2), job(3), job(4, teacher="k3"), job(5, teacher="gone")]
    (lists,) = plan_lists(jobs, None, 5).values()
    keys = next(keys for keys in lists if "k3" in keys)
    assert keys[keys.index("k3") :][:3] == ["k3", "k1", "k4"]


def test_what_may_take_others_with_it_is_alone() -> None:
    (lists,) = plan_lists([job(number) for number in range(6)], None, None, alone=["k3"]).values()
    assert ["k3"] in lists


def test_each_class_of_memory_is_an_array() -> None:
    jobs = [job(1), job(2, memory=20 * GIB), job(3, memory=20 * GIB, on_gpu=True)]
    planned = plan_lists(jobs, None, None)
    assert planned == {
        ResourceClass(32 * GIB, False): [["k2"]],
        ResourceClass(32 * GIB, True): [["k3"]],
        ResourceClass(4 * GIB, False): [["k1"]],
    }
    assert len(plan_lists(jobs[:2], None, None, one_class=True)) == 1
    assert memory_class(3 * GIB) == 4 * GIB


@given(st.integers(1, 40), st.lists(st.integers(1, 50), min_size=1, max_size=4))
def test_shares_use_the_room_and_no_more(room: int, numbers: list[int]) -> None:
    wanted = {ResourceClass(number, False): size for number, size in enumerate(numbers)}
    given_out = shares(room, wanted)
    assert sum(given_out.values()) == min(room, sum(numbers)) if room >= len(numbers) else room
    assert all(1 <= number <= wanted[each] for each, number in given_out.items())


def test_a_hundred_thousand_trials_are_given_out_in_seconds() -> None:
    jobs = [job(number, 60.0 + number % 7) for number in range(100_000)]
    (lists,) = plan_lists(jobs, 14400.0, 32).values()
    assert sum(map(len, lists)) == 100_000


# Slurm's words -------------------------------------------------------------------------------------------------------


def said(*rows: str) -> Answer:
    return Answer(0, "\n".join([HEADER, *rows]) + "\n", "")


def test_the_queue_is_read() -> None:
    jobs = parse_queue(
        said(
            "7|0|RUNNING|node3|stbench-r-t|None",
            "7|1|PENDING||stbench-r-t|(launch failed requeued held)",
            "8|N/A|PENDING||a|b|ReqNodeNotAvail, UnavailableNodes:n[1-3]",
        )
    )
    assert jobs is not None
    assert jobs[0] == QueuedJob("7", 0, "RUNNING", "node3", "stbench-r-t", "None")
    assert (jobs[1].reason, jobs[1].is_waiting, jobs[1].has_ended) == ("launch failed requeued held", True, False)
    assert jobs[2].task is None
    assert parse_queue(said()) == []


@pytest.mark.parametrize(
    "answer",
    [
        Answer(1, "", "slurm_load_jobs error: Unable to contact slurm controller"),
        Answer(None, "", ""),
        Answer(0, "", ""),
        Answer(0, "welcome to the cluster\n", ""),
        Answer(0, f"{HEADER}\n7|0|RUNN", ""),
        Answer(0, f"{HEADER}\n7|0|RUNNING\n", ""),
    ],
)
def test_what_is_no_proper_answer_says_nothing(answer: Answer) -> None:
    assert parse_queue(answer) is None


@pytest.mark.parametrize("state", ["CONFIGURING", "SUSPENDED", "REQUEUE_HOLD", "COMPLETING", "STOPPED", "INVENTED"])
def test_a_state_that_is_not_known_to_be_the_end_is_none(state: str) -> None:
    assert not QueuedJob("1", 0, state, "", "n", "").has_ended


def test_reasons_are_told_with_what_helps() -> None:
    jobs = [QueuedJob("1", n, "PENDING", "", "n", reason) for n, reason in enumerate(["Priority", "JobHeldUser"] * 2)]
    assert why_waiting([*jobs, QueuedJob("1", 9, "RUNNING", "", "n", "None")]) == [
        "2 workers wait in Slurm's queue: Priority",
        "2 workers wait in Slurm's queue: JobHeldUser - this does not pass by itself: it is held: scontrol release",
    ]
    for stuck in ("PartitionTimeLimit", "QOSMaxGRESPerUser", "PartitionConfig", "launch failed requeued held"):
        assert hint(stuck)
    for passing in ("Resources", "Priority", "BeginTime", "JobArrayTaskLimit", "QOSGrpCpuLimit"):
        assert not hint(passing)


def test_a_refusal_for_now_is_told_from_one_for_good_and_from_a_doubt() -> None:
    full = "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying"
    assert was_turned_away(Answer(None, "", full))
    assert was_turned_away(Answer(1, "", "sbatch: error: QOSMaxSubmitJobPerUserLimit\nBatch job submission failed"))
    assert was_turned_away(Answer(1, "", "sbatch: error: AssocMaxSubmitJobLimit"))
    wrong = Answer(1, "", "sbatch: error: invalid partition specified: nix")
    assert not was_turned_away(wrong)
    assert not is_doubtful(wrong)
    assert is_doubtful(Answer(1, "", "sbatch: error: Socket timed out on send/recv operation"))
    assert is_doubtful(Answer(None, "", ""))
    assert is_doubtful(Answer(0, "", ""))
    assert not is_doubtful(Answer(0, "12\n", ""))


def test_limits_of_the_cluster_are_read() -> None:
    text = "MaxArraySize            = 6\nMaxJobCount             = 4\nMaxJobId = 9\n"
    assert ClusterLimits.parse(text) == ClusterLimits(6, 4)
    assert ClusterLimits.parse("") == ClusterLimits(1001, 10000)


def test_within_an_allocation_nothing_of_it_leaks_into_new_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm.conf")
    monkeypatch.setenv("SBATCH_PARTITION", "mine")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    monkeypatch.setenv("SQUEUE_FORMAT", "%i")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    outside = clean_environment(["time", "array"])
    assert outside["SBATCH_PARTITION"] == "mine"
    assert "SQUEUE_FORMAT" not in outside
    monkeypatch.setenv("SBATCH_TIMELIMIT", "1")
    assert "SBATCH_TIMELIMIT" not in clean_environment(["time"])  # it would win over the file
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    inside = clean_environment()
    assert [name for name in inside if name.startswith(("SLURM_", "SBATCH_"))] == ["SLURM_CONF"]


def test_there_is_no_slurm_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="there is no sbatch on PATH"):
        commands.require_slurm()


# How a worker left ---------------------------------------------------------------------------------------------------

PACE = Pace(cache_s=60.0, answers=3)
RUNNING = QueuedJob("7", 0, "RUNNING", "n", "name", "None")


def ended(state: str) -> QueuedJob:
    return QueuedJob("7", 0, state, "n", "name", "")


def test_what_a_worker_says_itself_needs_no_word_of_slurms() -> None:
    for why in ("done", "time", "place"):
        assert Sight().how_it_left(Left(why=why), False, 0.0, PACE) == "left"


def test_a_worker_that_was_asked_to_leave_may_be_run_again_by_slurm() -> None:
    sight = Sight()
    sight.saw(QueuedJob("7", 0, "PENDING", "", "name", "BeginTime"), 0.0)
    for now in (1.0, 500.0):
        assert sight.how_it_left(Left(why="asked"), False, now, PACE) is None
    sight.saw(ended("CANCELLED"), 501.0)
    assert sight.how_it_left(Left(why="asked"), False, 501.0, PACE) == "left"


def test_a_worker_that_was_asked_to_leave_is_waited_for_while_its_job_ends() -> None:
    """As after preemption: squeue says COMPLETING, then PENDING."""
    sight = Sight()
    sight.saw(QueuedJob("7", 0, "COMPLETING", "n", "name", "None"), 0.0)
    assert sight.how_it_left(Left(why="asked"), False, 1.0, PACE) is None
    assert sight.how_it_left(Left(why="asked"), False, 55.0, PACE) is None
    assert sight.how_it_left(Left(why="asked"), False, 65.0, PACE) == "left"  # squeue does not answer any more
    for now in (66.0, 110.0, 290.0):
        sight.saw(QueuedJob("7", 0, "COMPLETING", "n", "name", "None"), now)
        assert sight.how_it_left(Left(why="asked"), False, now, PACE) is None
    assert sight.how_it_left(Left(why="asked"), False, 302.0, PACE) == "left"
    sight.saw(QueuedJob("7", 0, "PENDING", "", "name", "BeginTime"), 303.0)
    assert sight.how_it_left(Left(why="asked"), False, 600.0, PACE) is None
    sight.saw(RUNNING, 601.0)  # again: in a moment it takes away what it said when it left
    assert sight.how_it_left(Left(why="asked"), False, 602.0, PACE) is None


def test_a_worker_that_asked_to_be_run_again_has_not_left() -> None:
    sight = Sight()
    sight.saw(RUNNING, 0.0)
    assert sight.how_it_left(Left(why="time", requeued=True), False, 500.0, PACE) is None


@pytest.mark.parametrize(
    ("state", "how"),
    [("FAILED", "killed"), ("OUT_OF_MEMORY", "oom"), ("TIMEOUT", "timeout"), ("NODE_FAIL", "site")],
)
def test_slurms_word_is_believed_once_the_directory_can_be_trusted(state: str, how: str) -> None:
    sight = Sight()
    sight.saw(ended(state), 10.0)
    assert sight.how_it_left(None, False, 60.0, PACE) is None
    assert sight.how_it_left(None, False, 71.0, PACE) == how


def test_absence_is_believed_after_several_answers_and_longer_than_they_are_cached() -> None:
    sight = Sight()
    sight.saw(RUNNING, 0.0)
    for now in (10.0, 20.0):
        sight.saw(None, now)
    assert sight.how_it_left(None, False, 100.0, PACE) is None  # answers are too few
    sight.saw(None, 30.0)
    assert sight.how_it_left(None, False, 50.0, PACE) is None  # the time is too short
    assert sight.how_it_left(None, True, 100.0, PACE) is None  # it is at work, by the directory
    assert sight.how_it_left(None, False, 100.0, PACE) == "lost"
    sight.saw(RUNNING, 101.0)
    assert sight.how_it_left(None, False, 200.0, PACE) is None


def test_silence_says_nothing() -> None:
    assert Sight().how_it_left(None, False, 1e9, PACE) is None


def test_what_was_never_seen_never_came() -> None:
    sight = Sight()
    for now in (0.0, 1.0, 2.0):
        sight.saw(None, now)
    assert sight.how_it_left(None, False, 100.0, PACE) == "never"


@pytest.mark.parametrize(
    ("text", "is_oom"),
    [
        ("slurmstepd-vm: error: Exceeded job memory limit", True),
        ("slurmstepd: error: Detected 1 oom_kill event in StepId=7.batch", True),
        ("slurmstepd: error: Detected 1 oom-kill event(s) in StepId=7.batch", True),
        ("slurmstepd: error: *** JOB 7 CANCELLED DUE TO TIME LIMIT ***", False),
        ("a method prints: exceeded memory limit", False),
    ],
)
def test_slurm_says_in_the_log_that_memory_ran_out(tmp_path: Path, text: str, is_oom: bool) -> None:
    (tmp_path / "0.log").write_text(f"{'x' * 10_000}\n{text}\n")
    assert was_out_of_memory(tmp_path / "0.log") is is_oom
    assert not was_out_of_memory(tmp_path / "1.log")
