"""Processes that share work: results in order, the killed told, and nobody left when the first one is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
import tasks as tasks_module
from click.testing import CliRunner
from filelock import FileLock

from liver_monai.cli.terminal import Commands
from liver_monai.cluster import open_cluster
from liver_monai.processes import ALONE, Processes

PARENT = """
import sys
from pathlib import Path
from liver_monai.cluster import open_cluster
from liver_monai.processes import Processes

sys.path.insert(0, sys.argv[1])
from test_processes import hold

if __name__ == "__main__":
    tasks = [(str(Path(sys.argv[2]) / name),) for name in ("a", "b", "c")]
    if sys.argv[3] == "processes":
        list(Processes(2).results(hold, tasks, killed=hold))
    else:
        with open_cluster("local:2") as cluster:
            list(cluster.results(hold, tasks, killed=hold))
"""


def hold(path):
    """Keep a lock, which the system gives back when the process ends, and be busy for long."""
    with FileLock(f"{path}.lock"):
        Path(f"{path}.held").touch()
        time.sleep(600)


def double(number):
    if number < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 0:
        raise ValueError("nothing")
    return 2 * number


def killed(number):
    return f"{number} killed"


@pytest.fixture(scope="module")
def cluster():
    with open_cluster("local:2") as cluster:
        yield cluster


@pytest.fixture(params=["processes", "cluster"])
def pool(request):
    """Whoever works in other processes than this one."""
    return request.getfixturevalue("cluster") if request.param == "cluster" else Processes(2)


def test_results_come_in_the_order_of_the_tasks(pool):
    tasks = [(number,) for number in (5, 3, 4)]

    assert [list(each.results(double, tasks, killed=killed)) for each in (ALONE, pool)] == [[10, 6, 8]] * 2


def test_an_error_is_the_callers(pool):
    with pytest.raises(ValueError, match="nothing"):
        list(pool.results(double, [(1,), (0,)], killed=killed))


def test_who_is_killed_is_told_and_the_others_have_their_results(pool):
    tasks = [(number,) for number in (1, -2, 3)]

    assert list(pool.results(double, tasks, killed=killed)) == [2, "-2 killed", 6]


@pytest.mark.parametrize("pool", ["processes", "cluster"])
def test_no_process_outlives_the_one_that_started_it_however_that_ends(tmp_path, pool):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    command = [sys.executable, script, Path(__file__).parent, tmp_path, pool]
    parent = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while len(list(tmp_path.glob("*.held"))) < 2:
        assert parent.poll() is None
        time.sleep(0.05)

    parent.send_signal(signal.SIGKILL)
    parent.wait()

    for held in tmp_path.glob("*.held"):
        with FileLock(held.with_suffix(".lock"), timeout=10):
            pass
    assert len(list(tmp_path.glob("*.held"))) == 2  # nobody went on to the third task


def test_an_interruption_while_a_result_is_told_does_not_wait_for_all_tasks(tmp_path):
    """The generator that holds the processes is a comprehension's variable, which the traceback keeps."""

    def tell(_: object) -> None:
        raise KeyboardInterrupt

    @click.group(cls=Commands)
    def main():
        pass

    @main.command()
    def work():
        tasks = [(str(tmp_path / str(number)),) for number in range(40)]
        results = Processes(2).results(tasks_module.leave_a_file, tasks, killed=tasks_module.told_of_kill)
        return [tell(result) for result in results]

    result = CliRunner().invoke(main, ["work"])

    assert "interrupted" in result.output
    n_done = len(list(tmp_path.iterdir()))
    time.sleep(1.5)
    assert len(list(tmp_path.iterdir())) == n_done
