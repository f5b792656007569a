"""What stands in the documentation is so: its code runs, its options exist, its links lead somewhere."""

from __future__ import annotations

import re
import runpy
import shutil
from pathlib import Path

import click
import nibabel as nib
import numpy as np
import pytest
from code_blocks import EXECUTED, PARSED, ROOT, SHOWN, blocks_of, our_commands, pages, parse_command, run_block
from dicom_export import export

from liver_monai.cli import main

TUTORIAL = ROOT / "docs" / "tutorial.md"
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")


def is_slow(page: Path) -> bool:
    return any(block.language == "bash" for block in blocks_of(page))


def page_parameters(chosen: list[Path]) -> list[object]:
    return [
        pytest.param(page, id=str(page.relative_to(ROOT)), marks=[pytest.mark.slow] if is_slow(page) else [])
        for page in chosen
    ]


@pytest.fixture
def given(tmp_path, monkeypatch, request):
    """A current folder that holds, under the names of a page, what its reader has; not what the page itself makes."""

    def give(page: Path) -> None:
        text = "".join(block.text for block in blocks_of(page) if block.language in EXECUTED)
        made = set(re.findall(r"-o (\S+)", text))
        words = set(re.findall(r"[\w.-]+", text)) - made
        for name, make in MAKERS.items():
            if name in words:
                make(tmp_path / name, request.getfixturevalue)
        monkeypatch.chdir(tmp_path)

    return give


def _link_to(relative: str):
    return lambda path, fixture: path.symlink_to(fixture("phantom_dataset") / relative)


def _copy_run(path: Path, fixture) -> None:
    shutil.copytree(fixture("trained_run"), path, ignore=shutil.ignore_patterns("store", "checkpoint.pth"))


def _folds(path: Path, _) -> None:
    path.write_text("case_id,fold\n" + "".join(f"liver_{number:03},{number}\n" for number in range(4)))


def _other_data(path: Path, fixture) -> None:
    from liver_monai.data.phantom import write_phantoms

    write_phantoms(path, n_cases=2, shape=(96, 96, 24), seed=70)


def _series(path: Path, fixture) -> None:
    ct = nib.load(fixture("phantom_dataset") / "imagesTr" / "liver_001.nii.gz")
    ras = nib.as_closest_canonical(ct)
    export(path, np.asarray(ras.dataobj).astype(np.int16), ras.affine)


MAKERS = {
    "DATA": _link_to("."),
    "CTS": _link_to("imagesTr"),
    "ct.nii.gz": _link_to("imagesTr/liver_001.nii.gz"),
    "mask.nii.gz": _link_to("labelsTr/liver_001.nii.gz"),
    "reference.nii.gz": _link_to("labelsTr/liver_001.nii.gz"),
    "folds.csv": _folds,
    "RUN": _copy_run,
    "OTHER-RUN": _copy_run,
    "OTHER": _other_data,
    "SERIES": _series,
}
"""What the names on a page stand for."""


@pytest.mark.parametrize("page", page_parameters([page for page in pages() if page != TUTORIAL]))
def test_code_runs(page, given):
    given(page)
    names: dict[str, object] = {}
    for block in blocks_of(page):
        if block.language in EXECUTED:
            run_block(block, names, is_quick=True)


@pytest.mark.slow
def test_the_tutorial_shows_what_is_printed(given):
    """But for the figures, which differ between machines."""
    given(TUTORIAL)
    names: dict[str, object] = {}
    printed: set[str] = set()
    for block in blocks_of(TUTORIAL):
        if block.language in EXECUTED:
            printed = {without_figures(line) for line in run_block(block, names, is_quick=False).splitlines()}
        elif block.language == "text":
            shown = {without_figures(line) for line in block.text.splitlines() if line.strip() != "..."}
            assert shown <= printed, f"{block}: {sorted(shown - printed)} is not printed, but {sorted(printed)}"


def without_figures(line: str) -> str:
    return re.sub(r"[\d.]+", "#", " ".join(line.split()))


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_options_exist(page):
    for block in blocks_of(page):
        assert block.language in EXECUTED | SHOWN | PARSED, f"{block}: say what it is, such as bash, sh, python or text"
        if block.language == "py":
            compile(block.text, str(block), "exec")
        if block.language in {"bash", "sh"}:
            for arguments in our_commands(block.text):
                parse_command(arguments)


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    targets = [target for target in LINK.findall(text) if "://" not in target]
    assert not [target for target in targets if not (page.parent / target).exists()]
    if page.is_relative_to(ROOT / "docs"):  # which is all that the site has
        assert not [each for each in targets if not (page.parent / each).resolve().is_relative_to(ROOT / "docs")]


def test_every_page_has_a_place_in_the_menu():
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2].partition("\nhooks:")[0]
    named = set(re.findall(r": (\S+\.md)$", menu, flags=re.MULTILINE))
    assert named == {page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")}


def test_the_reference_has_every_command_and_option():
    hook = runpy.run_path(str(ROOT / "docs" / "reference" / "commands.py"))["on_page_markdown"]
    page = hook((ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8"))

    sections = {text.split("\n")[0]: text for text in page.split("\n## ")[1:]}
    for name, command in commands_by_name(main):
        assert sections[name].count("\n| `-") == sum(isinstance(each, click.Option) for each in command.params)
        for option in (each for each in command.params if isinstance(each, click.Option)):
            assert option.opts[-1] in sections[name]
    assert len(sections) == len(list(commands_by_name(main)))


def commands_by_name(group: click.Group, above: str = ""):
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands_by_name(command, f"{above}{name} ")
        else:
            yield f"{above}{name}", command


def test_commands_of_a_script_are_found():
    script = """pip install liver-monai
OMP_NUM_THREADS=4 liver-monai train \\
  -o RUN  # and so on
srun liver-monai "check" A > B"""

    assert our_commands(script) == [["train", "-o", "RUN"], ["check", "A"]]


def test_options_that_do_not_exist_are_found():
    with pytest.raises(click.NoSuchOption):
        parse_command(["predict", "CTS", "-o", "MASKS", "--bundle", "RUN", "--no-such-option"])
    with pytest.raises(click.UsageError):
        parse_command(["bundle", "no-such-command"])


def test_the_picture_of_the_readme_is_drawn_from_a_demo(phantom_dataset, tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    for name, place in {"test": phantom_dataset, "masks": phantom_dataset / "labelsTr"}.items():
        (tmp_path / "run" / name).symlink_to(place, target_is_directory=True)
    # the script is run as it is, in this process: what its command line would be
    monkeypatch.setattr("sys.argv", ["overview.py", str(tmp_path / "run"), "liver_001", str(tmp_path / "drawn.png")])

    runpy.run_path(str(ROOT / "docs" / "overview.py"))

    assert (tmp_path / "drawn.png").read_bytes().startswith(b"\x89PNG")
