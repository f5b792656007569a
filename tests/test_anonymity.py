"""The key of anonymous results: names that stay, that tell nothing, and that no two patients share."""

from __future__ import annotations

import csv
import stat
from multiprocessing import get_context
from pathlib import Path

import pytest

from liver_monai.cohort import Extras, predict_cohort
from liver_monai.data.anonymity import ANONYMOUS, Key
from liver_monai.data.cases import Case
from liver_monai.errors import InputError

NAMES = [f"patient{n}" for n in range(40)]


def cases(names):
    return [Case(case_id=name, image=Path("/data") / f"{name}.nii.gz") for name in names]


def names_in(path: Path) -> dict[str, str]:
    return {row["name"]: row["case_id"] for row in csv.DictReader(path.read_text().splitlines())}


def test_every_case_gets_a_name_of_its_own_and_keeps_it(tmp_path):
    path = tmp_path / "keys" / "key.csv"

    first = Key(path).anonymize(cases(NAMES[:30]))
    before = names_in(path)
    second = Key(path).anonymize(cases(NAMES[20:]))

    assert [case.case_id for case in first] == [f"case-{n:04d}" for n in range(1, 31)]
    assert all(case.result_name == case.case_id for case in (*first, *second))
    assert names_in(path).items() >= before.items()
    assert len(set(names_in(path).values())) == len(NAMES)
    assert {before[name] for name in NAMES[20:30]} <= {case.case_id for case in second}
    assert {case.image.name for case in second} == {f"{name}.nii.gz" for name in NAMES[20:]}


def test_neither_names_nor_order_tell_the_order_of_the_files(tmp_path):
    """Forty cases stay in order by chance once in 10^47 times."""
    named = Key(tmp_path / "key.csv").anonymize(cases(NAMES))

    assert [case.image.name for case in named] != [f"{name}.nii.gz" for name in NAMES]
    assert [case.case_id for case in named] == sorted(case.case_id for case in named)


def test_the_key_is_its_owners_alone(tmp_path):
    key = Key(tmp_path / "key.csv")
    (case,) = key.anonymize(cases(["a"]))
    key.note_error(case.case_id, "a.nii.gz: is damaged")

    for file in tmp_path.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0, file


def test_an_error_stays_until_all_went_well(tmp_path):
    key = Key(tmp_path / "key.csv")
    (case,) = key.anonymize(cases(["a"]))

    def noted():
        (row,) = csv.DictReader(key.path.read_text().splitlines())
        return row["error"]

    key.note_error(case.case_id, "a.nii.gz: is damaged")
    Key(key.path).anonymize(cases(["a"]))
    assert noted() == "a.nii.gz: is damaged"
    key.note_error(case.case_id, "")
    assert noted() == ""


def anonymize(path: Path, names: list[str]) -> None:
    for name in names:
        Key(path).anonymize(cases([name]))


def test_commands_that_write_one_key_lose_nothing(tmp_path):
    path = tmp_path / "key.csv"
    context = get_context("spawn")
    processes = [context.Process(target=anonymize, args=(path, NAMES[start::2])) for start in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()

    assert sorted(names_in(path)) == sorted(NAMES)
    assert len(set(names_in(path).values())) == len(NAMES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("case_id,age\nx,3\n", "lacks the column name"),
        ("case_id,name,file,error\nDoe,Doe,,\n", "calls a case 'Doe'"),
        ("case_id,name,file,error\ncase-0001,a,,\ncase-0001,b,,\n", "has case_id 'case-0001' 2 times"),
        ("case_id,name,file,error\ncase-0001,a,,\ncase-0002,a,,\n", "has name 'a' 2 times"),
    ],
)
def test_what_is_no_key_is_refused_and_stays(tmp_path, content, message):
    path = tmp_path / "key.csv"
    path.write_text(content)

    with pytest.raises(InputError, match=message):
        Key(path)

    assert path.read_text() == content


@pytest.mark.parametrize(
    ("extras", "place", "message"),
    [
        ({"to": ("dicom-seg",)}, "key.csv", "name the patient"),
        ({"report": True, "with_patient": True}, "key.csv", "name the patient"),
        ({}, "out/key.csv", "would go where the results go"),
    ],
)
def test_what_would_name_the_patient_is_refused_before_anything_is_written(tmp_path, extras, place, message):
    extras = Extras(**extras, anonymous=tmp_path / place)

    with pytest.raises(InputError, match=message):
        predict_cohort(cases(["a"]), bundle="x", out=tmp_path / "out", extras=extras)

    assert list(tmp_path.iterdir()) == []


def test_names_are_what_the_key_says_they_are():
    assert ANONYMOUS.fullmatch("case-10000")
    assert not ANONYMOUS.fullmatch("case-1")


def test_results_go_on_by_the_key(phantom_dataset, trained_run, tmp_path, cli):
    key, out = tmp_path / "key.csv", tmp_path / "out"
    options = ("--bundle", trained_run, "-o", out, "--anonymous", key)
    cts = sorted((phantom_dataset / "imagesTr").glob("*.nii.gz"))

    assert cli("predict", cts[0], *options).exit_code == 0
    assert cli("predict", *cts, *options).exit_code == 1, "a mask is there"
    first = {path.name: path.read_bytes() for path in out.glob("*.nii.gz")}
    assert cli("predict", *cts, *options, "--resume").exit_code == 0

    assert {path.name for path in out.glob("*.nii.gz")} == {f"{name}.nii.gz" for name in names_in(key).values()}
    assert len(names_in(key)) == len(cts)
    assert all((out / name).read_bytes() == content for name, content in first.items())
    rows = list(csv.DictReader((out / "cases.csv").read_text().splitlines()))
    assert sorted(row["mask"] for row in rows) == sorted(path.name for path in out.glob("*.nii.gz"))
