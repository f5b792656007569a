"""Pictures follow the radiological convention in every orientation; the page stands alone and escapes."""

import io
import re
import tracemalloc
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure as Picture
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

from liver_monai.report.canvas import LIVER_COLOUR, TUMOR_COLOUR
from liver_monai.report.overlays import STAMP_WIDTH, draw_overlays, draw_stamp, overlay_figure
from liver_monai.report.page import MISSING, CasePanel, Figure, Table, write_page
from liver_monai.report.plots import (
    LESION_KINDS,
    draw_lesion_plot,
    draw_score_plot,
    lesion_figure,
    score_figure,
)
from liver_monai.report.view import choose_slices

SPACING_MM = np.array([2.0, 4.0, 5.0])
SHAPE = (100, 60, 16)  # 200 x 240 x 80 mm


def ellipsoid(centre_mm: tuple[float, float, float], radii_mm: tuple[float, float, float]) -> np.ndarray:
    points = np.moveaxis(np.indices(SHAPE), 0, -1) * SPACING_MM
    return (((points - centre_mm) / radii_mm) ** 2).sum(axis=-1) <= 1


def make_scan() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A round trunk on a table in RAS, the liver on the patient's right, a tumour at the liver's front."""
    image = np.full(SHAPE, -1000, dtype=np.int16)
    image[ellipsoid((100, 130, 40), (70, 70, 1000))] = 40
    image[:, 2:4] = 300  # the table, 40 mm behind the back
    mask = np.zeros(SHAPE, dtype=np.uint8)
    mask[ellipsoid((130, 130, 40), (30, 40, 25))] = 1  # slices 3 to 13
    mask[ellipsoid((130, 150, 30), (10, 12, 8))] = 2  # slices 5 to 7, most in 6
    affine = np.diag([*SPACING_MM, 1.0])
    affine[:3, 3] = -100, -120, -200
    return image, mask, affine


def reorient(volume: np.ndarray, affine: np.ndarray, codes: str) -> tuple[np.ndarray, np.ndarray]:
    turn = ornt_transform(io_orientation(affine), axcodes2ornt(codes))
    return apply_orientation(volume, turn), affine @ inv_ornt_aff(turn, volume.shape)


def outlines(picture: Picture, colour: str) -> list[tuple[float, float, float, float]]:
    """Extents ``(x0, y0, x1, y1)`` in mm of every outline in a colour."""
    found = [drawn for panel in picture.axes for drawn in panel.collections]
    return [c.get_paths()[0].get_extents().extents for c in found if tuple(c.get_edgecolor()[0]) == to_rgba(colour)]


def texts(picture: Picture) -> list[str]:
    return [text.get_text() for text in (*picture.texts, *(t for panel in picture.axes for t in panel.texts))]


# Outlines ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codes", ["LPS", "PIR", "SAL"])
def test_the_picture_is_the_same_in_every_orientation(codes: str) -> None:
    image, mask, affine = make_scan()
    expected = draw_overlays(image, {"prediction": mask}, affine=affine)
    turned_image, turned_affine = reorient(image, affine, codes)
    turned_mask, _ = reorient(mask, affine, codes)
    assert draw_overlays(turned_image, {"prediction": turned_mask}, affine=turned_affine) == expected


def test_patient_right_is_left_in_the_picture_and_front_is_up() -> None:
    image, mask, affine = make_scan()
    picture = overlay_figure(image, {"mask": mask}, affine=affine, n_slices=1)
    (panel,) = picture.axes
    middle_mm = np.mean(panel.get_xlim())
    (liver,), (tumor,) = outlines(picture, LIVER_COLOUR), outlines(picture, TUMOR_COLOUR)
    assert liver[2] < middle_mm + SPACING_MM[0]  # the liver ends at the midline
    assert tumor[1] + tumor[3] > liver[1] + liver[3]
    assert panel.get_ylim()[0] < panel.get_ylim()[1]
    assert "\N{MINUS SIGN}170 mm" in texts(picture)  # slice 6: -200 + 6 * 5


def test_outlines_keep_the_size_of_the_structure() -> None:
    image, mask, affine = make_scan()
    mask[:] = 0
    mask[60:80, 30:40, 8] = 1
    (extent,) = outlines(overlay_figure(image, {"mask": mask}, affine=affine, n_slices=1), LIVER_COLOUR)
    assert extent[2] - extent[0] == pytest.approx(20 * 2.0)
    assert extent[3] - extent[1] == pytest.approx(10 * 4.0)


def test_panels_have_the_aspect_of_the_body_and_leave_out_the_table() -> None:
    image, mask, affine = make_scan()
    picture = overlay_figure(image, {"mask": mask}, affine=affine, n_slices=3)
    for panel in picture.axes:
        width_mm, height_mm = np.ptp(panel.get_xlim()), np.ptp(panel.get_ylim())
        assert width_mm == pytest.approx(140 + 16, abs=2 * SPACING_MM[0])  # the trunk and 8 mm around it
        assert height_mm == pytest.approx(140 + 16, abs=2 * SPACING_MM[1])
        box = panel.get_position()
        drawn_aspect = box.height * picture.get_figheight() / (box.width * picture.get_figwidth())
        assert drawn_aspect == pytest.approx(height_mm / width_mm)


def test_a_mask_outside_the_body_is_not_cropped_away() -> None:
    image, mask, affine = make_scan()
    mask[0:3, 0:3, 6] = 1
    outline = outlines(overlay_figure(image, {"mask": mask}, affine=affine, n_slices=1), LIVER_COLOUR)[0]
    assert outline[1] == pytest.approx(0.0)
    assert outline[3] - outline[1] > 140


def test_prediction_is_solid_and_reference_dashed_with_one_legend() -> None:
    image, mask, affine = make_scan()
    picture = overlay_figure(image, {"prediction": mask, "reference": mask}, affine=affine, n_slices=1)
    dashes = [drawn.get_linestyle()[0][1] for drawn in picture.axes[0].collections]
    assert sum(dash is None for dash in dashes) == sum(dash is not None for dash in dashes) == 2
    (legend,) = picture.legends
    assert [text.get_text() for text in legend.texts] == [
        "liver, prediction",
        "liver, reference",
        "tumour, prediction",
        "tumour, reference",
    ]


def test_empty_masks_are_drawn_and_named() -> None:
    image, mask, affine = make_scan()
    both = overlay_figure(image, {"prediction": mask * 0, "reference": mask}, affine=affine)
    assert any("no liver and no tumour in the prediction" in text for text in texts(both))
    none = overlay_figure(image, {"prediction": mask * 0}, affine=affine)
    assert any("slices from the middle of the scan" in text for text in texts(none))
    assert len(none.axes) == 6
    assert outlines(none, LIVER_COLOUR) == outlines(none, TUMOR_COLOUR) == []
    assert not any("no liver" in text for text in texts(overlay_figure(image, {"prediction": mask}, affine=affine)))


def test_overlays_are_a_png_and_leave_their_input_alone() -> None:
    image, mask, affine = make_scan()
    before = image.copy(), mask.copy(), affine.copy()
    png = draw_overlays(image, {"prediction": mask}, affine=affine)
    assert matplotlib.image.imread(io.BytesIO(png), format="png").shape[1] == 1200
    for array, copy in zip((image, mask, affine), before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_a_mask_on_another_grid_is_refused() -> None:
    image, mask, affine = make_scan()
    with pytest.raises(ValueError, match=r"mask 'reference' has shape \(100, 60, 15\), the image has \(100, 60, 16\)"):
        overlay_figure(image, {"reference": mask[..., 1:]}, affine=affine)


def test_a_thousand_slices_cost_no_more_memory_than_a_few() -> None:
    shape = (512, 512, 1000)
    image = np.broadcast_to(np.int16(40), shape)
    mask = np.broadcast_to(np.uint8(1), shape)
    tracemalloc.start()
    try:
        draw_overlays(image, {"prediction": mask}, affine=np.diag([0.8, 0.8, 1.0, 1.0]))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 100e6  # one volume of int16 is 524 MB


@given(
    seed=st.integers(0, 2**32 - 1),
    n_slices=st.integers(1, 8),
    order=st.permutations([0, 1, 2]),
    share=st.sampled_from([0.0, 0.005, 0.2]),
)
def test_chosen_slices_lie_on_the_liver_and_show_the_largest_tumor(
    seed: int, n_slices: int, order: list[int], share: float
) -> None:
    rng = np.random.default_rng(seed)
    mask = np.zeros((6, 5, 20), dtype=np.uint8)
    mask[..., 4:16] = rng.random((6, 5, 12)) < share
    mask[..., 6:14] *= (rng.random((6, 5, 8)) < 0.3) + np.uint8(1)
    laid_out = mask.transpose(order).copy().transpose(np.argsort(order))  # the same voxels, another memory layout

    chosen = choose_slices([laid_out], n_slices=n_slices)
    assert chosen == choose_slices([mask], n_slices=n_slices)
    assert chosen == sorted(set(chosen), reverse=True)
    assert 1 <= len(chosen) <= n_slices
    occupied = np.flatnonzero(mask.any(axis=(0, 1)))
    low, high = (occupied[0], occupied[-1]) if occupied.size else (5, 14)
    assert all(low <= z <= high for z in chosen)
    tumor_area = (mask == 2).sum(axis=(0, 1))
    assert max(tumor_area[chosen]) == tumor_area.max()


# Plots ---------------------------------------------------------------------------------------------------------------


def test_score_plot_counts_only_defined_scores_and_names_their_median() -> None:
    cases = [
        {"liver_dice": 0.9, "tumor_dice": None},
        {"liver_dice": 0.94, "tumor_dice": float("nan")},
        {"liver_dice": 0.95, "tumor_dice": 0.5},
    ]
    picture = score_figure(cases)
    assert [label.get_text() for label in picture.axes[0].get_yticklabels()] == ["liver\nn = 3", "tumour\nn = 1"]
    assert {"median 0.940", "median 0.500"} <= set(texts(picture))
    assert "not defined in any case" in texts(score_figure(cases[:1]))


def test_dots_of_equal_scores_do_not_hide_each_other() -> None:
    liver, _ = score_figure([{"liver_dice": 0.95, "tumor_dice": 0.1 * i} for i in range(9)]).axes[0].collections
    positions = np.asarray(liver.get_offsets())
    assert len(np.unique(positions[:, 1])) == 9
    assert positions[:, 1].mean() == pytest.approx(1.0)  # spread evenly about the liver's row


def test_a_plot_of_nothing_is_still_a_picture() -> None:
    assert matplotlib.image.imread(io.BytesIO(draw_score_plot([])), format="png").shape[1] == 900


# Page ----------------------------------------------------------------------------------------------------------------

PNG = b"\x89PNG not really"


class Parsed(HTMLParser):
    """The start tags of a page with their attributes, its text, and the text of each table cell."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.cells: list[tuple[str, str]] = []  # class, text
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data
        tag, attributes = self.tags[-1] if self.tags else ("", {})
        if tag in ("td", "th") and data.strip():
            self.cells.append((attributes.get("class") or "", data))

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


def test_a_row_may_have_a_small_picture_and_a_page_of_its_own(tmp_path: Path) -> None:
    image, mask, affine = make_scan()
    stamp = draw_stamp(image, {"prediction": mask}, affine=affine)
    rows = [["case_1", 0.9], ["case_2", None]]
    table = Table(title="Cases", columns=["case", "Dice"], rows=rows, links={"case_1": "findings/case_1/report.html"},
                  pictures={"case_1": stamp})  # fmt: skip
    parts: dict[str, Any] = {"title": "t", "summary": [], "figures": [], "panels": [], "provenance": {}}
    write_page(tmp_path / "report.html", tables=[table], **parts)
    page = Parsed((tmp_path / "report.html").read_text(encoding="utf-8"))
    (shown,) = page.all("img")
    assert str(shown["src"]).startswith("data:image/jpeg;base64,")
    assert shown["loading"] == "lazy"
    assert [link["href"] for link in page.all("a")] == ["findings/case_1/report.html"]


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR"])
def test_a_stamp_is_small_and_shows_the_tumor_in_every_orientation(codes: str) -> None:
    image, mask, affine = make_scan()
    (turned, turned_affine), (labels, _) = reorient(image, affine, codes), reorient(mask, affine, codes)
    jpeg = draw_stamp(turned, {"prediction": labels}, affine=turned_affine)
    assert jpeg == draw_stamp(image, {"prediction": mask}, affine=affine)
    assert len(jpeg) < 10_000
    picture = matplotlib.image.imread(io.BytesIO(jpeg), format="jpeg").astype(float)
    assert picture.shape[1] == STAMP_WIDTH
    is_orange = np.abs(picture - 255 * np.array(to_rgba(TUMOR_COLOUR)[:3])).max(axis=-1) < 60
    rows, columns = np.nonzero(is_orange)
    assert rows.size > 50
    assert columns.mean() < picture.shape[1] / 2  # the patient's right is on the left
    assert rows.mean() < picture.shape[0] / 2  # the front is up


def write(folder: Path, *, text: str = "plain", rows: list[list[str | int | float | None]] | None = None) -> Parsed:
    columns = [f"name {text}", "Dice", "volume", "found", "remark"]
    path = folder / "report.html"
    write_page(
        path,
        title=f"title {text}",
        summary=[(f"label {text}", f"value {text}")],
        tables=[Table(title=f"table {text}", columns=columns, rows=rows or [[text] * 5], note=f"note {text}")],
        figures=[Figure(title=f"figure {text}", png=PNG, alt=f"alt {text}")],
        panels=[CasePanel(case_id=f"case {text}", picture_png=PNG, facts={f"fact {text}": f"is {text}"})],
        provenance={f"key {text}": f"from {text}"},
    )
    return Parsed(path.read_text(encoding="utf-8"))


def test_page_stands_alone(tmp_path: Path) -> None:
    page = write(tmp_path)
    addresses = [value for _, attributes in page.tags for key, value in attributes.items() if key in ("src", "href")]
    assert addresses
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in addresses)
    assert not {"link", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert not re.search(r"https?:|url\(|@import", (tmp_path / "report.html").read_text(encoding="utf-8"))
    targets = {attributes.get("id") for _, attributes in page.tags}
    assert {address[1:] for address in addresses if address.startswith("#")} <= targets


def test_page_says_that_it_is_for_research_only(tmp_path: Path) -> None:
    assert "Research use only. Not a medical device." in write(tmp_path).text


def test_page_is_accessible(tmp_path: Path) -> None:
    page = write(tmp_path)
    assert page.all("html") == [{"lang": "en"}]
    assert all(image["alt"] for image in page.all("img"))
    assert len(page.all("img")) == 2
    assert {header["scope"] for header in page.all("th")} == {"col", "row"}
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {a["aria-labelledby"] for _, a in page.tags if "aria-labelledby" in a} <= set(ids)


def relative_luminance(colour: str) -> float:
    """WCAG 2.2's definition."""
    channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_text_contrasts_with_its_ground_in_light_and_dark(tmp_path: Path) -> None:
    write(tmp_path)
    blocks = re.findall(r":root \{(.*?)\}", (tmp_path / "report.html").read_text(encoding="utf-8"), flags=re.DOTALL)
    themes = [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block)) for block in blocks]
    light, dark, _ = themes
    pairs = [("text", "page"), ("text", "surface"), ("quiet", "page"), ("quiet", "surface"), ("link", "page")]
    for theme in (light, dark):
        for ink, ground in [*pairs, ("notice-text", "notice")]:
            low, high = sorted(relative_luminance(theme[name]) for name in (ink, ground))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (ink, ground)
    assert relative_luminance(light["page"]) > 0.5 > relative_luminance(dark["page"])


def test_everything_is_escaped(tmp_path: Path) -> None:
    text = "<script>alert(\"1\")</script> & 'x'"
    page = write(tmp_path, text=text)
    assert page.all("script") == [{}]  # the one that sorts
    for word in ("title", "label", "value", "table", "note", "figure", "case", "fact", "is", "key", "from", "name"):
        assert f"{word} {text}" in page.text, word
    assert f"alt {text}" in [image["alt"] for image in page.all("img")]


def test_numbers_stand_right_with_the_decimals_of_their_column(tmp_path: Path) -> None:
    page = write(
        tmp_path,
        rows=[
            ["001", 0.95, 1520.25, "3 of 4", "prediction is empty"],
            ["002", None, 45.0, "12 of 12", ""],
            ["003", float("nan"), float("inf"), None, None],
        ],
    )
    assert page.cells == [
        ("", "name plain"),
        ("number", "Dice"),
        ("number", "volume"),
        ("number", "found"),
        ("", "remark"),
        ("", "001"),
        ("number", "0.950"),
        ("number", "1520.2"),
        ("number", "3 of 4"),
        ("", "prediction is empty"),
        ("", "002"),
        ("number", MISSING),
        ("number", "45.0"),
        ("number", "12 of 12"),
        ("", "003"),
        ("number", MISSING),
        ("number", "∞"),
        ("number", MISSING),
        ("", MISSING),
    ]


def test_page_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    parts = {"title": "t", "summary": [], "tables": [], "figures": [], "panels": []}
    write_page(path, **parts, provenance={"run": "first"})
    before = path.read_bytes()
    with pytest.raises(UnicodeEncodeError):
        write_page(path, **parts, provenance={"run": "\ud800"})  # no UTF-8 for half a surrogate pair
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]


def test_a_row_without_one_cell_a_column_is_refused() -> None:
    with pytest.raises(ValueError, match=r"table 'Cases' has 2 columns, but a row is \['a'\]"):
        Table(title="Cases", columns=["case", "Dice"], rows=[["a"]])


# Lesions -------------------------------------------------------------------------------------------------------------


def test_every_lesion_is_a_dot_at_its_size_and_what_has_no_dice_stands_below() -> None:
    lesions = [(30.0, "IoU above 0.5", 0.8), (8.0, "no", None), (12.0, "overlap", None), (3.0, "false positive", None)]
    picture = lesion_figure(lesions)
    (axes,) = picture.axes
    dots = {tuple(point) for drawn in axes.collections for point in drawn.get_offsets().tolist()}
    assert {x for x, _ in dots} == {30.0, 8.0, 12.0, 3.0}
    assert {y for x, y in dots if x == 30.0} == {0.8}
    assert all(y < 0 for x, y in dots if x != 30.0)
    assert axes.get_xlim()[0] < 3.0
    assert axes.get_xlim()[1] > 30.0
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["IoU above 0.5 (1)", "overlap (1)", "not found (1)", "false positive (1)"]
    assert len(LESION_KINDS) == 4
    assert draw_lesion_plot(lesions) == draw_lesion_plot(lesions)
