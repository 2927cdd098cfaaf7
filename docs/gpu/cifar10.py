"""CIFAR-10 on one GPU: the papers' settings with times, then an ablation, in one call that can be repeated.

    python docs/gpu/cifar10.py FOLDER RESULTS [SECONDS]

FOLDER holds train/CLASS/* and test/CLASS/*. RESULTS/results.jsonl gets a line a set, RESULTS/sets the sets;
what stands there already is not done again, and what was begun goes on. After SECONDS (default 400) nothing
new is begun and distillations stop, for the next call to go on with. The first three jobs have the card to
themselves, one after the other; the others share it, so that a distillation alone takes less than theirs.
"""

import json
import multiprocessing
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch

import atom_nas
from distill import methods
from distill.environment import usable_cores
from distill.evaluation import Evaluator
from distill.session import Interrupted
from distill.sources import load_dataset
from distill.training import TrainingConfig

SIDE_BY_SIDE = 6
NETWORKS = 5

Job = dict[str, Any]


def paper(method: str, ipc: int, **more: Any) -> Job:
    """20,000 iterations at a constant rate on all training images, whitened; networks train for 1,000 epochs
    on the set, as in DM's paper, and where that is no work for 1,800 in small batches, too."""
    real = {"batch_real": 256} if method == "dm" else {}
    config = {"iterations": 20000, **real, **more}
    return {
        "name": f"paper-{method}-{ipc}",
        "method": method,
        "ipc": ipc,
        "seed": 0,
        "split": "test",
        "validation_fraction": 0.0,
        "trainings": [{"epochs": 1000}, *([{"epochs": 1800, "batch_size": 64}] if ipc <= 10 else [])],
        "config": config,
    }


def arm(name: str, seed: int = 0, method: str = "atom", ipc: int = 10, zca: bool = True, **more: Any) -> Job:
    """An ablation's: 400 iterations at a rate that falls to zero, unless it says otherwise."""
    config = {"iterations": 400, "schedule": "cosine", "compile": False, **more}
    whole = f"{name}-{method}-{ipc}-s{seed}"
    return {
        "name": whole,
        "method": method,
        "ipc": ipc,
        "seed": seed,
        "zca": zca,
        "split": "validation",
        "validation_fraction": 0.1,
        "trainings": [{"epochs": 300}],
        "config": config,
    }


def arms(seed: int) -> list[Job]:
    """One of each, the most telling first."""
    return [
        arm("base", seed),
        arm("factor 2", seed, factor=2),
        arm("factor 2, 10 matched", seed, factor=2, batch_synthetic=10),
        arm("base", seed, method="datadam"),
        arm("base", seed, method="dm"),
        arm("1,000 iterations", seed, iterations=1000),
        arm("factor 2, 1,000 iterations", seed, iterations=1000, factor=2),
        arm("factor 2, rate 3", seed, factor=2, learning_rate=3.0),
        arm("rate 3", seed, learning_rate=3.0),
        arm("rate 10", seed, learning_rate=10.0),
        arm("rate 0.3", seed, learning_rate=0.3),
        arm("256 real", seed, batch_real=256),
        arm("16 real", seed, batch_real=16),
        arm("no ZCA", seed, zca=False),
        arm("noise", seed, initialization="noise"),
        arm("no augmentation", seed, augmentation="none"),
        arm("attention alone", seed, lambda_mmd=0.0),
        arm("attention x10", seed, lambda_mmd=0.001),
        arm("channel x100", seed, lambda_channel=100.0),
        arm("channel alone", seed, lambda_spatial=0.0, lambda_mmd=0.0),
        arm("spatial alone", seed, lambda_channel=0.0, lambda_mmd=0.0),
        arm("p_s 2", seed, spatial_power=2.0),
        arm("p_s 4", seed, spatial_power=4.0),
        arm("p_c 2", seed, channel_power=2.0),
        arm("p_c 4", seed, channel_power=4.0),
        arm("momentum 0.9", seed, momentum=0.9),
        arm("width 64", seed, width=64),
        arm("base", seed, ipc=1),
        arm("factor 2", seed, ipc=1, factor=2),
        arm("base", seed, ipc=1, method="dm"),
        arm("factor 4", seed, factor=4, batch_synthetic=40),
        arm("200 iterations", seed, iterations=200),
        arm("base", seed, ipc=50),
        arm("factor 2, 50 matched", seed, ipc=50, factor=2, batch_synthetic=50),
    ]


FIRST = [paper("atom", ipc) for ipc in (10, 1, 50)]
REST = [*(paper(method, ipc) for ipc in (10, 1, 50) for method in ("datadam", "dm")), *arms(0), *arms(1)]


def run(job: Job, folder: str, results: Path, deadline: float) -> None:
    """Distill, or go on with it, and evaluate; write what came of it."""
    started = time.perf_counter()
    data = load_dataset(f"folder:{folder}")
    out = results / "sets" / job["name"].replace(" ", "_").replace(",", "")
    config = methods.load(job["method"]).Config(**job["config"])
    settings = atom_nas.DistillSettings(
        dataset=data.name,
        method=job["method"],
        method_config=config,
        ipc=job["ipc"],
        seed=job["seed"],
        zca=job.get("zca", True),
        validation_fraction=job["validation_fraction"],
        device="cuda",
        out=out,
    )
    synthetic = atom_nas.distill(settings, resume=True, should_stop=lambda: time.time() > deadline)
    done = time.perf_counter()
    test = data.test if job["split"] == "test" else synthetic.split_real(data)[1]
    values = [
        [
            Evaluator(
                synthetic,
                data,
                config=TrainingConfig(**training),
                seed=0,
                device=torch.device("cuda"),
                test=test,
            ).accuracy("synthetic", "convnet3", repeat)
            for repeat in range(NETWORKS)
        ]
        for training in job["trainings"]
    ]
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    record = {
        **job,
        "accuracies": values,
        "wall_seconds": synthetic.card["wall_seconds"],
        "evaluate_seconds": time.perf_counter() - done,
        "peak_memory_mb": synthetic.card["peak_memory_mb"],
        "last_loss": log[-1] if log else None,
        "kernels": synthetic.card["environment"]["kernels"],
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "side_by_side": job["name"] not in {first["name"] for first in FIRST},
    }
    with (results / "results.jsonl").open("a") as file:
        file.write(json.dumps(record) + "\n")
    means = ", ".join(f"{100 * sum(each) / len(each):.2f}" for each in values)
    print(f"{job['name']}: {means} in {done - started:.1f} s", flush=True)


def guarded(job: Job, folder: str, results: Path, deadline: float) -> None:
    """As `run`; a failure is told and harms no other job."""
    try:
        run(job, folder, results, deadline)
    except Interrupted:
        print(f"{job['name']}: to be gone on with", flush=True)
    except Exception:  # noqa: BLE001
        print(job["name"], traceback.format_exc()[-1500:], flush=True)


def finished(results: Path) -> set[str]:
    """Names of the jobs that are done."""
    path = results / "results.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    records = [json.loads(line) for line in lines]
    return {record["name"] for record in records if "trainings" in record}  # earlier scripts judged otherwise


def main(folder: str, results: Path, seconds: float) -> None:
    """All jobs, each in a process of its own."""
    begun = time.perf_counter()
    deadline = time.time() + seconds
    load_dataset(f"folder:{folder}")  # decoded here once, and found in the cache by the others
    print(f"read in {time.perf_counter() - begun:.1f} s", flush=True)
    context = multiprocessing.get_context("spawn")
    (results / "sets").mkdir(parents=True, exist_ok=True)
    done = finished(results)
    for jobs, width in ((FIRST, 1), (REST, SIDE_BY_SIDE)):
        waiting = [job for job in jobs if job["name"] not in done]
        running: list[Any] = []
        while waiting or running:
            running = [process for process in running if process.is_alive()]
            while waiting and len(running) < width and time.time() < deadline:
                os.environ["OMP_NUM_THREADS"] = str(max(1, usable_cores() // width))
                running.append(
                    context.Process(target=guarded, args=(waiting.pop(0), folder, results, deadline))
                )
                running[-1].start()
            if not running:
                break
            time.sleep(0.1)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]) if len(sys.argv) > 3 else 400.0)
