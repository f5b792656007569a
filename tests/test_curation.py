"""Cases to leave out and spacings to put right: tables that people write by hand."""

from __future__ import annotations

import pytest

from liver_monai.data.curation import curated_cases
from liver_monai.errors import InputError


@pytest.fixture
def folder(tmp_path):
    for number in (1, 2, 3):
        for name in ("volume", "segmentation"):
            (tmp_path / f"{name}-{number}.nii").touch()
    return tmp_path


def ids(data):
    return [case.case_id for case in data.cases]


def test_without_tables_every_case_is_there(folder):
    data = curated_cases(folder)

    assert ids(data) == ["1", "2", "3"]
    assert data.excluded == {}
    assert [case.spacing_mm for case in data.cases] == [None] * 3


def test_tables_beside_the_data_are_honoured(folder):
    (folder / "excludes.csv").write_text("case_id,reason\n2,label ends at the dome\n", encoding="utf-8-sig")
    (folder / "spacing_overrides.csv").write_text("case_id,x,y,z\n3, 0.743,0.743,1.6\n")

    data = curated_cases(folder)

    assert ids(data) == ["1", "3"]
    assert data.excluded == {"2": "label ends at the dome"}
    assert [case.spacing_mm for case in data.cases] == [None, (0.743, 0.743, 1.6)]
    assert data.cases[1].to_item()["spacing_mm"] == (0.743, 0.743, 1.6)


def test_tables_beside_a_list_are_honoured(folder):
    (folder / "cases.csv").write_text(
        "case_id,image,label\na,volume-1.nii,segmentation-1.nii\nb,volume-2.nii,volume-2.nii"
    )
    (folder / "excludes.csv").write_text("case_id,reason\nb,no mask\n")

    assert ids(curated_cases(folder / "cases.csv")) == ["a"]


def test_a_table_that_is_given_takes_the_place_of_the_one_beside_the_data(folder, tmp_path_factory):
    (folder / "excludes.csv").write_text("case_id,reason\n2,old\n")
    other = tmp_path_factory.mktemp("tables") / "mine.csv"
    other.write_text("case_id,reason,by\n3,new,me\n")

    assert curated_cases(folder, excludes=other).excluded == {"3": "new"}


@pytest.mark.parametrize(
    ("table", "content", "rule"),
    [
        ("excludes", "case_id\n2\n", r"excludes.csv: lacks the column reason; it must have case_id, reason"),
        ("excludes", "case_id,reason\n2, \n", r"case '2' is excluded without a reason"),
        ("excludes", "case_id,reason\n2\n", r"case '2' is excluded without a reason"),
        ("excludes", "case_id,reason\n7,x\n", r"has no case '7'"),
        ("excludes", "case_id,reason\n1,x\n2,x\n3,x\n", r"all 3 cases are excluded"),
        ("spacing_overrides", "case_id,x,y\n2,1,1\n", r"lacks the column z"),
        ("spacing_overrides", "case_id,x,y,z\n2,1,1,0\n", r"case '2' has the spacing 1, 1, 0; it must be three"),
        ("spacing_overrides", "case_id,x,y,z\n2,1,1,mm\n", r"case '2' has the spacing 1, 1, mm"),
        ("spacing_overrides", "case_id,x,y,z\n2,1,1,nan\n", r"case '2' has the spacing 1, 1, nan"),
        ("spacing_overrides", "case_id,x,y,z\n2,1,1,1600\n", r"above 0 and below 100"),
        ("spacing_overrides", "case_id,x,y,z\n12,1,1,1\n", r"has no case '12'"),
    ],
)
def test_what_a_table_cannot_mean_is_refused(folder, table, content, rule):
    (folder / f"{table}.csv").write_text(content)

    with pytest.raises(InputError, match=rule):
        curated_cases(folder)


def test_a_table_that_is_not_there_is_told(folder):
    with pytest.raises(InputError, match=r"nowhere.csv: no such file"):
        curated_cases(folder, excludes=folder / "nowhere.csv")
