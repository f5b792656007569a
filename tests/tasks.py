"""What tests have other processes do, without anything that takes long to import."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def where(name):
    """The folder, a variable and the number of a process."""
    return str(Path.cwd()), os.environ.get(name), os.getpid()


def die(path):
    """Leave a line, and end the process."""
    with Path(path).open("a") as file:
        file.write(f"{os.getpid()}\n")
    os.kill(os.getpid(), signal.SIGKILL)


def square_slowly(number):
    time.sleep(0.1)
    return number**2


def told_of_kill(*task):
    return "killed", *task


def leave_a_file(path):
    """In a moment."""
    time.sleep(0.3)
    Path(path).touch()
