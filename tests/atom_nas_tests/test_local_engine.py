"""The local engine: same scores for any number of workers, and no architecture takes the run down."""

import multiprocessing.process
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from trial_helpers import (
    LOST_SECONDS,
    SHAPE,
    CountingEstimator,
    Cramped,
    Noting,
    SuicidalOnArrival,
    build,
    search_data,
)

from atom_nas.engines._worker import Broken, Ready
from atom_nas.engines.base import EngineError, Outcome
from atom_nas.engines.local import LocalConfig, LocalEngine, _Worker
from atom_nas.estimators.base import Estimator
from atom_nas.estimators.proxy import ProxyConfig, ProxyEstimator
from atom_nas.workload import TrialJob, Workload
from distill.training import TrainingConfig


def engine(*estimators: Estimator, workers: int = 1, device: str = "cpu") -> LocalEngine:
    workload = Workload(build=build, estimators=estimators, image_shape=SHAPE)
    return LocalEngine(workload, LocalConfig(workers=workers, device=device))


def job(name: str, seed: int = 0, estimator: str = "counting") -> TrialJob:
    return TrialJob(estimator=estimator, architecture=name, seed=seed)


@pytest.fixture(scope="module")
def warm() -> Iterator[LocalEngine]:
    """One engine with one worker for the tests that do not mind what ran on it before."""
    proxy = ProxyEstimator(search_data(), ProxyConfig(training=TrainingConfig(epochs=3)))
    with engine(CountingEstimator(), proxy) as local:
        yield local


@pytest.fixture(scope="module")
def pair() -> Iterator[LocalEngine]:
    """As `warm`, with two workers."""
    proxy = ProxyEstimator(search_data(), ProxyConfig(training=TrainingConfig(epochs=3)))
    with engine(CountingEstimator(), proxy, workers=2) as local:
        yield local


def run(local: LocalEngine, names: Sequence[str]) -> dict[str, Outcome[TrialJob]]:
    jobs = [job(name, place, "proxy") for place, name in enumerate(names)]
    return {outcome.job.architecture: outcome for outcome in local.run(jobs)}


@pytest.mark.parametrize(("killed", "jobs"), [((0, 1, 2), 4), ((0, 1, 2), 1), ((0,), 1), ((0, 2), 2)])
def test_idle_workers_that_are_killed_are_replaced_when_there_is_work(
    killed: tuple[int, ...], jobs: int
) -> None:
    """Whoever frees memory kills them between two stages, too."""
    with engine(CountingEstimator(), workers=3) as local:
        assert len(list(local.run([job(f"fine-{i}") for i in range(6)]))) == 6
        idle = [worker.process for worker in local._workers]
        assert len(idle) == 3
        for place in killed:
            idle[place].kill()
            idle[place].join()
        again = list(local.run([job(f"fine-{i}") for i in range(jobs)]))
        assert [outcome.reason for outcome in again] == [None] * jobs


def test_scores_do_not_depend_on_the_number_of_workers(warm: LocalEngine, pair: LocalEngine) -> None:
    names = [f"fine-{i}" for i in range(5)]
    one, two = run(warm, names), run(pair, names)
    assert {name: one[name].scores for name in names} == {name: two[name].scores for name in names}
    assert len({outcome.scores["final_training_loss"] for outcome in one.values()}) == 5
    assert {len(outcome.scores) for outcome in one.values()} == {9}


def test_scores_do_not_depend_on_what_ran_before(warm: LocalEngine) -> None:
    alone = next(warm.run([job("fine", seed=7)]))
    after = list(warm.run([job(f"fine-{seed}", seed=seed) for seed in (3, 7)]))[1]
    # The same process: the worker stayed warm between the two runs.
    assert alone.scores == after.scores


def test_a_network_whose_scores_are_known_is_not_scored_again(warm: LocalEngine) -> None:
    known = replace(job("fine"), scored_as="fine-2", known={"weights": 3.0, "flops": 1.0})
    (outcome,) = warm.run([known])
    assert outcome.reason is None
    assert outcome.scores["weights"] == 3.0
    assert outcome.scores["flops"] > 1.0
    assert "process" not in outcome.scores


def test_failing_architectures_are_failed_results_and_the_run_goes_on(pair: LocalEngine) -> None:
    misfortunes = ["raises", "nan", "killed", "exits"]
    names = [name for misfortune in misfortunes for name in (misfortune, f"fine-{misfortune}")]
    outcomes = run(pair, names)
    reasons = {name: outcomes[name].reason for name in misfortunes}
    assert reasons["raises"] == "RuntimeError: two lines"
    assert "FloatingPointError" in str(reasons["nan"])
    assert reasons["killed"] == "the worker process was killed by SIGKILL (out of memory?), twice"
    assert reasons["exits"] == "the worker process ended with exit code 3, twice"
    assert all(outcomes[name].scores == {} for name in misfortunes)
    assert [outcomes[f"fine-{name}"].reason for name in misfortunes] == [None] * 4


def test_a_trial_whose_worker_was_killed_is_tried_again_and_pays_for_both(
    warm: LocalEngine, tmp_path: Path
) -> None:
    name = f"unlucky-{tmp_path / 'memory'}"
    outcomes = run(warm, [name, "fine"])
    again = run(warm, [name, "fine"])
    assert outcomes[name].reason is None
    assert outcomes[name].scores == again[name].scores
    assert outcomes[name].cpu_seconds > LOST_SECONDS > again[name].cpu_seconds
    assert outcomes[name].seconds > LOST_SECONDS


def test_what_finds_no_memory_beside_others_is_tried_again_alone(
    pair: LocalEngine, warm: LocalEngine, tmp_path: Path
) -> None:
    first, second = (f"starved-{tmp_path / name}" for name in ("memory", "more"))
    outcomes = run(pair, [first, "fine-1", "fine-2", "memory"])
    assert outcomes[first].reason is None
    assert str(outcomes["memory"].reason).startswith("MemoryError")  # not even alone
    assert {name: outcomes[name].reason for name in ("fine-1", "fine-2")} == {"fine-1": None, "fine-2": None}
    assert outcomes[first].scores == run(warm, [first])[first].scores
    assert run(pair, ["fine-1", "fine-2"]).keys() == {"fine-1", "fine-2"}  # and then side by side again
    assert str(run(warm, [second])[second].reason).startswith("MemoryError")  # it was alone the first time


def test_jobs_that_come_up_meanwhile_are_run_too(
    pair: LocalEngine, warm: LocalEngine, tmp_path: Path
) -> None:
    starved, follows = (
        f"starved-{tmp_path / 'memory'}",
        {"fine-1": ["fine-3"], "fine-3": ["fine-4", "fine-5"]},
    )
    follows[starved] = ["fine-6"]  # by when everything else is done, and it has run alone
    new, outcomes = [job("fine-1"), job(starved)], {}

    def more() -> list[TrialJob]:
        given = list(new)
        new.clear()
        return given

    for outcome in pair.run([job("fine-2")], more=more):
        outcomes[outcome.job.architecture] = outcome.reason
        new += [job(name) for name in follows.get(outcome.job.architecture, [])]
    assert outcomes == dict.fromkeys([*(f"fine-{number}" for number in range(1, 7)), starved])
    assert [outcome.job.architecture for outcome in warm.run((), more=more)] == []


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux alone")
def test_a_worker_has_what_it_needs_when_it_starts(tmp_path: Path) -> None:
    """Torch's compiler, which its optimizers load, is 800 modules: a second and 120 MiB of each worker."""
    proxy = ProxyEstimator(search_data(), ProxyConfig(training=TrainingConfig(epochs=1)))
    work = Noting(Workload(build=build, estimators=(proxy,), image_shape=SHAPE), tmp_path / "modules")
    with LocalEngine(work, LocalConfig(workers=1)) as local:
        (outcome,) = local.run([job("fine", estimator="proxy")])
    assert outcome.reason is None
    at_start, in_the_end = map(int, work.file.read_text().split())
    assert in_the_end - at_start < 50


def test_only_a_spoiled_worker_is_replaced(warm: LocalEngine) -> None:
    def process(name: str) -> float:
        return dict(next(warm.run([job(name)])).scores).get("process", 0.0)

    first, _, after_error, _, after_memory = map(process, ["fine", "raises", "fine", "memory", "fine"])
    assert first == after_error != after_memory


def test_there_are_as_many_workers_as_there_is_memory_for(tmp_path: Path) -> None:
    workload = Workload(build=build, estimators=(CountingEstimator(),), image_shape=SHAPE)
    jobs = [job(f"fine-{number}") for number in range(8)]
    with LocalEngine(Cramped(workload, tmp_path, 2, refused=2), LocalConfig(workers=4)) as local:
        with pytest.warns(UserWarning, match="cpu has memory for no more than . worker") as told:
            outcomes = list(local.run(jobs))
        assert str(told[-1].message).endswith("2 workers")
        assert len(local._workers) == 2
        assert sorted(outcome.job.architecture for outcome in outcomes) == [
            each.architecture for each in jobs
        ]
        assert [outcome.reason for outcome in outcomes] == [None] * 8
    (tmp_path / "none").mkdir()
    with (
        LocalEngine(Cramped(workload, tmp_path / "none", 0, refused=2), LocalConfig(workers=2)) as local,
        pytest.warns(UserWarning, match="no more than 1 worker$"),
        pytest.raises(
            EngineError, match="a worker cannot start on cpu: RuntimeError: CUDA error: out of mem"
        ),
    ):
        next(local.run(jobs))


def test_a_worker_that_found_no_memory_beside_others_is_started_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both take what is there while they start, and neither gets enough."""
    starts = iter([Broken("MemoryError", starved=True), Broken("MemoryError", starved=True)])
    received = _Worker.receive

    def receive(worker: _Worker) -> object:
        message = received(worker)
        return next(starts, message) if isinstance(message, Ready) else message

    monkeypatch.setattr(_Worker, "receive", receive)
    jobs = [job(f"fine-{number}") for number in range(3)]
    with (
        engine(CountingEstimator(), workers=2) as local,
        pytest.warns(UserWarning, match="no more than 1 worker$"),
    ):
        outcomes = list(local.run(jobs))
    assert [outcome.reason for outcome in outcomes] == [None] * 3


def test_workers_that_cannot_start_are_a_clear_error() -> None:
    with pytest.raises(EngineError, match=r"3 worker processes in a row died .*exit code 7.*__main__"):
        next(engine(SuicidalOnArrival()).run([job("fine", estimator="suicidal")]))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_an_unusable_device_is_a_clear_error() -> None:
    with (
        engine(CountingEstimator(), device="cuda") as local,
        pytest.raises(EngineError, match="a worker cannot start on cuda: "),
    ):
        next(local.run([job("fine")]))


def test_leaving_early_stops_the_busy_workers(warm: LocalEngine) -> None:
    outcomes = warm.run([job(f"fine-{i}") for i in range(10**6)])
    next(outcomes)
    process = int(next(outcomes).scores["process"])
    assert Path(f"/proc/{process}").exists()
    outcomes.close()
    warm.close()
    assert not Path(f"/proc/{process}").exists()


def test_the_caller_can_do_something_while_workers_are_busy(warm: LocalEngine) -> None:
    calls: list[int] = []
    outcomes = list(warm.run([job("fine")], on_wait=lambda: calls.append(1)))
    assert len(outcomes) == 1
    assert calls


def test_too_little_shared_memory_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: object) -> None:
        # What torch raises where /dev/shm is as small as containers have it.
        raise RuntimeError(
            "unable to allocate shared memory(shm) for file </torch_1>: No space left on device"
        )

    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", start)
    with (
        engine(CountingEstimator()) as local,
        pytest.raises(EngineError, match=r"make /dev/shm larger \(in a container: --shm-size=2g\)"),
    ):
        next(local.run([job("fine")]))


def test_no_workers_are_refused() -> None:
    with pytest.raises(ValueError, match="workers must be at least 1, not 0"):
        LocalConfig(workers=0)


SLOW_PARENT = """
import sys
sys.path.insert(0, {folder!r})
from test_local_engine import engine, job
from trial_helpers import CountingEstimator

if __name__ == "__main__":
    with engine(CountingEstimator()) as local:
        for outcome in local.run([job("fine") for i in range(10**6)]):
            print(int(outcome.scores["process"]), flush=True)
"""


Parent = tuple["subprocess.Popen[str]", int]


@pytest.fixture
def busy_parent(tmp_path: Path) -> Iterator[Parent]:
    """A process that runs an endless search, and the id of its worker."""
    script = tmp_path / "parent.py"
    script.write_text(SLOW_PARENT.format(folder=str(Path(__file__).parent)))
    with subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    ) as parent:
        assert parent.stdout is not None
        yield parent, int(parent.stdout.readline())
        parent.kill()


def ends(process: int) -> bool:
    """Whether the process is gone within some seconds."""
    deadline = time.monotonic() + 120
    while Path(f"/proc/{process}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return not Path(f"/proc/{process}").exists()


def test_workers_die_with_a_killed_parent(busy_parent: Parent) -> None:
    parent, worker = busy_parent
    parent.kill()
    assert ends(worker)


def test_ctrl_c_stops_all_without_noise_from_workers(
    busy_parent: Parent,
) -> None:
    parent, worker = busy_parent
    os.killpg(parent.pid, 2)
    _, errors = parent.communicate(timeout=120)
    assert ends(worker)
    assert errors.count("Traceback") == 1
    assert errors.rstrip().endswith("KeyboardInterrupt")


def test_what_networks_draw_from_python_and_numpy_is_the_trials(warm: LocalEngine, pair: LocalEngine) -> None:
    names = [f"draws-{i}" for i in range(4)]
    one, two = run(warm, names), run(pair, list(reversed(names)))
    jobs = {name: job(name, place, "proxy") for place, name in enumerate(names)}
    again = {outcome.job.architecture: outcome for outcome in pair.run(list(jobs.values()))}
    assert {name: one[name].scores for name in names} == {name: again[name].scores for name in names}
    assert one["draws-0"].scores != two["draws-0"].scores  # of another seed


def test_what_a_trial_does_to_its_process_ends_with_it(capfd: pytest.CaptureFixture[str]) -> None:
    proxy = ProxyEstimator(search_data(), ProxyConfig(training=TrainingConfig(epochs=1)))
    with engine(proxy) as local:
        found = run(local, ["leaves", "fine", "closes", "fine-2"])
    assert found["leaves"].reason == "RuntimeError: and what it did stays"
    assert found["closes"].reason == "the worker process ended with exit code 1, twice"
    assert found["fine"].reason is found["fine-2"].reason is None
    assert "Traceback" not in capfd.readouterr().err
