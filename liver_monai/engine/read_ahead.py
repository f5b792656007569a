"""The next volume is read while the network is at work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def read_ahead(read: Callable[[Item], Result], items: Sequence[Item], *, n: int = 1) -> Iterator[Callable[[], Result]]:
    """For each item what gives, or raises, the result of ``read``; up to ``n`` items are read before their turn.

    Memory: ``n`` results more than without. With ``n`` 0 nothing is read before it is asked for.
    """
    if n == 0:
        yield from (partial(read, item) for item in items)
        return
    with ThreadPoolExecutor(max_workers=1) as reader:
        started: list[Future[Result]] = []
        try:
            for index in range(len(items)):
                while len(started) <= n and index + len(started) < len(items):
                    started.append(reader.submit(read, items[index + len(started)]))
                yield started.pop(0).result
        finally:
            reader.shutdown(wait=True, cancel_futures=True)
