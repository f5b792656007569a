"""Cases on a cluster: results as on one machine, workers killed at any moment, a scheduler that is gone."""

from __future__ import annotations

import csv
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from tasks import die, square_slowly, told_of_kill, where
from test_cohort_faults import SCRIPT, hidden_in, masks_in, wait_for

from liver_monai import cluster as module
from liver_monai._version import __version__
from liver_monai.cluster import MAX_KILLED, gpu_of, open_cluster
from liver_monai.cohort import Extras, check_cohort, evaluate_cohort, predict_cohort
from liver_monai.data.cases import find_images
from liver_monai.data.phantom import write_phantoms
from liver_monai.data.preparation import prepare
from liver_monai.engine.inference import Choices
from liver_monai.errors import InputError
from liver_monai.model.bundle import find_bundle, read_spec

ON_CPU = Choices(device="cpu")


@pytest.fixture(scope="module")
def cluster():
    with open_cluster("local:2") as cluster:
        yield cluster


def do(cluster, call, *tasks):
    return list(cluster.results(call, tasks, killed=told_of_kill))


# What a local cluster is


def test_a_task_is_done_in_another_process_in_the_folder_of_the_command(cluster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    found = do(cluster, where, *[("OMP_NUM_THREADS",)] * 8)

    assert {(folder, threads) for folder, threads, _ in found} == {(str(tmp_path), "1")}
    assert os.getpid() not in {pid for *_, pid in found}


def test_it_listens_to_this_machine_alone_and_shows_no_dashboard(cluster):
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    sockets = [socket for process in processes for socket in process.net_connections() if socket.status == "LISTEN"]

    assert len(sockets) >= 4  # scheduler, two workers and what watches over them
    assert {socket.laddr.ip for socket in sockets} == {"127.0.0.1"}
    assert cluster.client.cluster is None
    assert not cluster.client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.http_application.applications))


def test_nothing_is_left_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))  # Python has read TMPDIR long ago, and keeps what it found
    before = set(psutil.Process().children(recursive=True))

    with open_cluster("local:1") as cluster:
        (found,) = do(cluster, where, ("HOME",))
        assert list(tmp_path.iterdir())

    assert not psutil.pid_exists(found[-1])
    left = {process for process in psutil.Process().children(recursive=True) if process not in before}
    assert not [process for process in left if "resource_tracker" not in " ".join(process.cmdline())]
    assert not list(tmp_path.iterdir())


def test_each_worker_sees_a_gpu_and_shares_it_only_where_there_are_fewer():
    seen = [gpu_of(number, ["0", "3"])["CUDA_VISIBLE_DEVICES"] for number in range(4)]

    assert seen == ["0", "3", "0", "3"]
    assert gpu_of(0, []) == {}


def test_a_worker_is_bound_to_its_gpu_before_it_works():
    with open_cluster("local:2", gpus=["4", "7"]) as cluster:
        wait_for(lambda: len(cluster.client.nthreads()) == 2)
        found = cluster.client.run(lambda: os.environ["CUDA_VISIBLE_DEVICES"])

    assert sorted(found.values()) == ["4", "7"]


# What cannot be done


@pytest.mark.parametrize(
    ("scheduler", "said"),
    [
        ("local:0", "must be 1 or more"),
        ("local:two", "must be 1 or more"),
        ("somewhere:80", "is no address"),
        ("tcp://127.0.0.1:1", "no Dask scheduler answers there"),
    ],
)
def test_another_scheduler_is_refused(scheduler, said):
    with pytest.raises(InputError, match=said), open_cluster(scheduler, connect_s=0.3):
        pass


def test_jobs_and_a_scheduler_are_one_too_many(cli, tmp_path):
    done = cli("check", tmp_path, "--jobs", 2, "--scheduler", "local:2")

    assert done.exit_code == 2
    assert "give one of them" in done.output


def test_a_worker_with_another_version_or_without_the_folders_is_refused(cluster):
    submit = cluster.client.submit

    with pytest.raises(InputError, match=r"worker tcp://.* has liver-monai .*, the command 0\.0"):
        submit(module._run, b"", version="0.0", folder=".").result()
    with pytest.raises(InputError, match=r"has no folder /none; all machines"):
        submit(module._run, b"", version=__version__, folder="/none").result()


# Results as of one process


def rows_of(path):
    """A table without what differs between any two runs: the folder, and how long it took."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [{name: Path(row[name]).name for name in row if name != "seconds"} for row in rows]


def test_a_cluster_predicts_what_one_process_does(cluster, phantom_dataset, trained_run, tmp_path):
    folder = tmp_path / "cts"
    shutil.copytree(phantom_dataset / "imagesTr", folder)
    whole = next(iter(sorted(folder.iterdir())))
    (folder / "cut.nii.gz").write_bytes(whole.read_bytes()[:999])
    said: dict[str, list[str]] = {}
    for name, pool in (("alone", None), ("together", cluster)):
        predict_cohort(
            find_images([folder]),
            bundle=trained_run,
            out=tmp_path / name,
            choices=Choices(device="cpu", maps=("liver",)),
            extras=Extras(report=True),
            pool=pool,
            say=said.setdefault(name, []).append,
        )

    alone, together = tmp_path / "alone", tmp_path / "together"
    assert len(masks_in(alone)) == 4
    assert masks_in(together) == masks_in(alone)
    assert masks_in(together / "probabilities") == masks_in(alone / "probabilities")
    assert rows_of(together / "cases.csv") == rows_of(alone / "cases.csv")
    assert [row["status"] for row in rows_of(together / "cases.csv")] == ["failed", *["done"] * 4]
    assert len(said["together"]) == len(said["alone"])
    records = [json.loads((each / "record.json").read_text()) for each in (alone, together)]
    assert records[0]["inputs_sha256"] == records[1]["inputs_sha256"]
    names = [{file.relative_to(each) for file in each.rglob("*")} for each in (alone, together)]
    assert names[0] == names[1]


def test_a_bundle_that_is_trained_anew_is_loaded_anew(cluster, phantom_dataset, trained_run, tmp_path):
    cases = find_images([phantom_dataset])[:2]
    run = tmp_path / "run"
    shutil.copytree(trained_run, run, ignore=shutil.ignore_patterns("store"))
    predict_cohort(cases, bundle=run, out=tmp_path / "before", choices=ON_CPU, pool=cluster, say=str)

    (run / "models" / "model.pt").unlink()

    with pytest.raises(InputError, match=r"model\.pt"):
        predict_cohort(cases, bundle=run, out=tmp_path / "after", choices=ON_CPU, pool=cluster, say=str)


@pytest.mark.slow
def test_a_cluster_checks_prepares_and_scores_what_one_process_does(cluster, phantom_dataset, tmp_path):
    spec = read_spec(find_bundle("mobilenet"))
    labels = phantom_dataset / "labelsTr"
    for name, pool in (("alone", None), ("together", cluster)):
        out = tmp_path / name
        check_cohort([phantom_dataset], out=out / "check", pool=pool, say=str)
        prepare(phantom_dataset, spec=spec, out=out / "store", pool=pool, say=str)
        evaluate_cohort(labels, phantom_dataset, out=out / "evaluation", pool=pool, say=str)

    for file in ("check/check.json", "check/findings.csv", "evaluation/cases.csv", "evaluation/summary.json"):
        assert (tmp_path / "together" / file).read_bytes() == (tmp_path / "alone" / file).read_bytes()
    stored = [
        {file.relative_to(each): file.read_bytes() for file in each.rglob("*.b2nd")}
        for each in (tmp_path / "alone" / "store", tmp_path / "together" / "store")
    ]
    assert len(stored[0]) == 3 * 4
    assert stored[0] == stored[1]


# Kills


def test_a_case_that_kills_its_workers_is_given_up_after_three(cluster, tmp_path):
    assert do(cluster, die, (tmp_path / "died",)) == [("killed", tmp_path / "died")]

    assert len(set((tmp_path / "died").read_text().split())) == MAX_KILLED == 3


def kill_a_worker(pid, generator):
    """One of those that work for a process; false if there is none at the moment."""
    children = psutil.Process(pid).children(recursive=True)
    workers = [process for process in children if "spawn_main" in " ".join(process.cmdline())]
    if workers:
        generator.choice(workers).kill()
    return bool(workers)


def test_workers_killed_until_the_end_lose_no_result():
    n_killed, generator, results = 0, random.Random(0), []
    with open_cluster("local:3") as cluster:
        for result in cluster.results(square_slowly, [(number,) for number in range(24)], killed=told_of_kill):
            results.append(result)
            if len(results) % 4 == 0:
                n_killed += kill_a_worker(os.getpid(), generator)

    assert results == [number**2 for number in range(24)]
    assert n_killed >= 4


@pytest.fixture(scope="module")
def cohort(cli, trained_run, tmp_path_factory):
    """24 CTs, and the masks that one process makes of them."""
    folder = tmp_path_factory.mktemp("cohort")
    data, alone = folder / "data", folder / "alone"
    write_phantoms(data, n_cases=24, shape=(192, 192, 64), seed=300)
    assert cli("predict", data, "-o", alone, "--bundle", trained_run, "--device", "cpu").exit_code == 0
    assert len(masks_in(alone)) == 24
    return data, alone


@pytest.mark.slow
def test_a_cohort_is_whole_though_a_worker_is_killed_every_few_seconds(cohort, trained_run, tmp_path):
    """Each time when a case is done, lest a machine that is slow to start workers never comes to an end."""
    (data, alone), out = cohort, tmp_path / "out"
    options = ("--bundle", trained_run, "--device", "cpu", "--scheduler", "local:4")
    command = [sys.executable, "-c", SCRIPT, "predict", data, "-o", out, *options]
    n_killed, generator, killed_s, said = 0, random.Random(0), 0.0, []

    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            said.append(line)
            if time.monotonic() - killed_s > 2:
                n_killed += kill_a_worker(process.pid, generator)
                killed_s = time.monotonic()

    assert process.returncode == 0, said
    assert n_killed >= 3
    assert masks_in(out) == masks_in(alone)
    assert len(masks_in(out)) == sum(" mL, tumour " in line for line in said) == 24
    assert rows_of(out / "cases.csv") == rows_of(alone / "cases.csv")


# A scheduler of its own


def start(*arguments):
    """``dask scheduler`` or ``dask worker``, which say nothing."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "dask", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)


@contextmanager
def scheduler_and_worker(folder, *, n_threads=1):
    """Both as processes of their own, and the scheduler's address."""
    facts = folder / "scheduler.json"
    scheduler = start("scheduler", "--host", "127.0.0.1", "--port", 0, "--no-dashboard", "--dashboard-address",
                      "127.0.0.1:0", "--scheduler-file", facts)  # fmt: skip
    worker = start("worker", "--scheduler-file", facts, "--nthreads", n_threads, "--no-dashboard", "--host",
                   "127.0.0.1", "--local-directory", folder / "scratch")  # fmt: skip
    try:
        wait_for(lambda: facts.exists() and facts.read_text().endswith("}"))
        yield scheduler, json.loads(facts.read_text())["address"]
    finally:
        for process in (scheduler, worker):
            process.terminate()
        for process in (scheduler, worker):
            process.wait()


def test_a_scheduler_that_is_killed_is_told(tmp_path):
    with scheduler_and_worker(tmp_path) as (scheduler, address), open_cluster(address) as cluster:
        results = cluster.results(square_slowly, [(number,) for number in range(1000)], killed=told_of_kill)
        assert list(itertools.islice(results, 3)) == [0, 1, 4]

        scheduler.kill()

        with pytest.raises(InputError, match=r"tcp://.*: the scheduler is gone or out of reach"):
            list(results)


@pytest.mark.slow
def test_a_worker_that_does_several_tasks_at_a_time_is_refused(tmp_path):
    with (
        scheduler_and_worker(tmp_path, n_threads=2) as (_, address),
        open_cluster(address) as cluster,
        pytest.raises(InputError, match="does 2 tasks at a time; start it with --nthreads 1"),
    ):
        do(cluster, square_slowly, (2,))


@pytest.mark.slow
def test_a_cohort_whose_scheduler_was_killed_goes_on(cli, cohort, trained_run, tmp_path):
    (data, alone), out = cohort, tmp_path / "out"
    options = ["predict", data, "-o", out, "--bundle", trained_run, "--device", "cpu"]
    with scheduler_and_worker(tmp_path) as (scheduler, address):
        command = [sys.executable, "-c", SCRIPT, *options, "--scheduler", address]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            assert " mL" in process.stderr.readline()
            scheduler.kill()
            said = process.stderr.read()
    assert process.returncode == 1, said
    assert "Error: tcp://" in said
    assert "--resume" in said
    assert "Traceback" not in said
    assert 0 < len(masks_in(out)) < 24

    resumed = cli(*options, "--resume", "--scheduler", "local:1")

    assert resumed.exit_code == 0, resumed.output
    assert masks_in(out) == masks_in(alone)
    assert not hidden_in(out)
    assert {row["status"] for row in rows_of(out / "cases.csv")} == {"done", "kept"}
