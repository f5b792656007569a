"""The public Python interface: every name in it and its signature stand in ``public_api.txt``.

A change of the interface is so a change of that file, which a reviewer sees. To write it anew:
``python tests/test_public_api.py``.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import liver_monai

SNAPSHOT = Path(__file__).with_name("public_api.txt")
REFERENCE = Path(__file__).parents[1] / "docs" / "reference" / "python.md"


class Bare(str):
    """An annotation as it stands in the source."""

    __repr__ = str.__str__


def public_names() -> list[str]:
    """Those of the package itself, then the others of the reference in its order."""
    own = [f"liver_monai.{name}" for name in sorted(liver_monai.__all__) if not name.startswith("_")]
    documented = re.findall(r"^::: ([\w.]+)$", REFERENCE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    is_own = {resolve_name(name) for name in own}
    return own + [name for name in documented if resolve_name(name) not in is_own]


def lines() -> Iterator[str]:
    for name in public_names():
        thing = resolve_name(name)
        yield f"{name}{signature(thing)}"
        if inspect.isclass(thing):
            yield from (f"{name}.{member}" for member in members(thing))


def members(thing: type) -> Iterator[str]:
    """Public methods and properties of a class; its fields are arguments of the class."""
    for name, member in sorted(vars(thing).items()):
        if not name.startswith("_") and isinstance(member, property):
            yield f"{name}: {member.fget.__annotations__['return']}"
        elif not name.startswith("_") and inspect.isroutine(member):
            yield f"{name}{signature(member)}"


def signature(thing: Any) -> str:
    if inspect.isclass(thing) and issubclass(thing, Exception):
        return f"({thing.__base__.__name__})"
    found = inspect.signature(thing)
    arguments = [each.replace(annotation=bare(each.annotation)) for each in found.parameters.values()]
    returned = inspect.Signature.empty if inspect.isclass(thing) else bare(found.return_annotation)
    return str(found.replace(parameters=arguments, return_annotation=returned))


def bare(annotation: Any) -> Any:
    return Bare(annotation) if isinstance(annotation, str) else annotation


def test_the_interface_is_the_one_that_was_agreed_on():
    agreed = SNAPSHOT.read_text(encoding="utf-8").splitlines()

    assert list(lines()) == agreed, "if this is meant, run python tests/test_public_api.py and tell it in CHANGELOG.md"


def test_what_is_public_has_a_docstring_and_types():
    for name in public_names():
        thing = resolve_name(name)
        assert inspect.getdoc(thing), name
        if inspect.isfunction(thing):
            assert thing.__annotations__.keys() == {*inspect.signature(thing).parameters, "return"}, name


if __name__ == "__main__":
    SNAPSHOT.write_text("".join(f"{line}\n" for line in lines()), encoding="utf-8")
