"""The page of one mask, opened in a browser; and its pictures."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import matplotlib.image
import nibabel as nib
import numpy as np
import pytest
from chromium import chromium
from conftest import run_command
from PIL import Image

from liver_monai.data.phantom import make_phantom
from liver_monai.report.mask_pictures import draw_histogram, view_ends
from liver_monai.report.measurement import find_findings
from liver_monai.report.surface_picture import draw_surface
from liver_monai.report.view import RadiologicalView
from liver_monai.report.viewer import LABEL_STEP, MAX_SLICES, SHOWN_HU, build_viewer, choose_shown


def two_lesions():
    """CT, mask and affine: an elongated lesion and a small one, away from each other; stored as LPS."""
    mask = np.zeros((60, 50, 24), dtype=np.uint8)
    mask[5:45, 8:40, 4:20] = 1
    mask[10:24, 14:20, 6:10] = 2
    mask[34:37, 30:33, 15:17] = 2
    image = np.choose(mask, [-120, 110, 60]).astype(np.int16)
    image += np.random.default_rng(0).integers(-10, 10, mask.shape, dtype=np.int16)
    return image, mask, nib.affines.from_matvec(np.diag([-1.5, -1.5, 4.0]), (50, 40, -30))


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """``report`` of a mask with its CT."""
    folder = tmp_path_factory.mktemp("page")
    image, mask, affine = two_lesions()
    for name, voxels in (("ct", image), ("mask_3", mask)):
        nib.save(nib.Nifti1Image(voxels, affine), folder / f"{name}.nii.gz")
    done = run_command("report", folder / "mask_3.nii.gz", "--image", folder / "ct.nii.gz", "-o", folder / "out")
    assert done.exit_code == 0, done.output
    return folder / "out" / "report.html"


def numbers(view):
    return list(range(view.image.shape[2]))


# In the browser ------------------------------------------------------------------------------------------------------


BRIGHTNESS = """(() => {
    const canvas = document.querySelector("canvas"), copy = document.createElement("canvas");
    [copy.width, copy.height] = [canvas.width, canvas.height];
    const paper = copy.getContext("2d", { willReadFrequently: true });
    paper.drawImage(canvas, 0, 0);
    const values = paper.getImageData(0, 0, canvas.width, canvas.height).data;
    return values.reduce((sum, value, index) => sum + (index % 4 === 3 ? 0 : value), 0);
})()"""


def test_the_page_works_in_a_browser(page):
    """It asks for nothing, logs nothing, shows slices that can be gone through, and its table can be sorted."""
    with chromium() as browser:
        browser.open(page)
        browser.wait("document.getElementById('viewer').dataset.shown !== undefined")

        shown = "Number(document.getElementById('viewer').dataset.shown)"
        said = "document.querySelector('[data-part=said]').textContent"
        first, light = browser.ask(shown), browser.ask(BRIGHTNESS)
        assert light > 0
        assert "diameters of lesion 1" in browser.ask(said)

        browser.ask("document.querySelector('canvas').focus()")
        browser.press("ArrowUp")
        browser.wait(f"{shown} === {first + 1}")
        assert browser.ask(BRIGHTNESS) not in (0, light)
        browser.press("End")
        browser.wait(f"{shown} === 23")
        assert "no liver" in browser.ask(said)
        browser.ask(
            "(() => { const s = document.querySelector('[data-part=slice]'); s.value = 0;"
            " s.dispatchEvent(new Event('input')); })()"
        )
        browser.wait(f"{shown} === 0")
        browser.ask("document.querySelector('canvas').scrollIntoView({block: 'center'})")
        place = browser.ask(
            "(() => { const b = document.querySelector('canvas').getBoundingClientRect();"
            " return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        browser.call("Input.dispatchMouseEvent", type="mouseWheel", x=place[0], y=place[1], deltaX=0, deltaY=-100)
        browser.wait(f"{shown} === 1")
        browser.ask(
            "(() => { const s = document.querySelector('[data-part=lesion]'); s.selectedIndex = 2;"
            " s.dispatchEvent(new Event('change')); })()"
        )
        browser.wait(f"{said}.includes('diameters of lesion 2')")

        volumes = "[...document.querySelectorAll('tbody td:nth-child(2)')].map((cell) => Number(cell.textContent))"
        assert browser.ask(volumes) == pytest.approx(sorted(browser.ask(volumes), reverse=True))
        browser.ask("document.querySelectorAll('thead button')[1].click()")
        assert browser.ask(volumes) == sorted(browser.ask(volumes))
        assert browser.ask("document.querySelectorAll('thead th')[1].ariaSort") == "ascending"
        browser.ask("document.querySelectorAll('thead button')[1].click()")
        assert browser.ask(volumes) == sorted(browser.ask(volumes), reverse=True)

        asked = [event["request"]["url"] for event in browser.events("Network.requestWillBeSent")]
        assert [url for url in asked if not url.startswith("data:image/")] == [page.resolve().as_uri()]
        assert browser.events("Log.entryAdded") == []
        assert browser.events("Runtime.exceptionThrown") == []
        assert browser.events("Runtime.consoleAPICalled") == []


@pytest.mark.parametrize("width", [400, 1280])
def test_the_page_fits_its_window(page, width):
    with chromium(width=width) as browser:
        browser.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        browser.open(page)
        assert browser.ask("document.documentElement.scrollWidth") <= width
        beyond = (
            "[...document.querySelectorAll('.scroll')].filter((each) => each.scrollWidth > each.clientWidth).length"
        )
        assert width < 600 or browser.ask(beyond) == 0


def test_every_control_has_a_name(page):
    with chromium() as browser:
        browser.open(page)
        browser.wait("document.getElementById('viewer').dataset.shown !== undefined")
        browser.call("Accessibility.enable")
        nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
        roles = {"slider", "checkbox", "combobox", "button", "image", "img", "link"}
        controls = [node for node in nodes if node.get("role", {}).get("value") in roles and not node["ignored"]]
        assert len(controls) > 15
        assert [node for node in controls if not node["name"]["value"].strip()] == []


# What stands in it ---------------------------------------------------------------------------------------------------


def test_the_page_stands_alone(page):
    html = page.read_text(encoding="utf-8")
    assert "Research use only. Not a medical device." in html
    assert not re.search(r"https?:|url\(|@import|<link|<iframe", html)
    assert "RECIST-like, not a clinical assessment" in html
    assert re.search(r"script-src 'sha256-[^']+' 'sha256-[^']+'\"", html)
    assert "unsafe-eval" not in html


def test_a_mask_alone_has_a_page_too(cli, page, tmp_path):
    done = cli("report", page.parents[1] / "mask_3.nii.gz", "-o", tmp_path)
    assert done.exit_code == 0, done.output
    with chromium() as browser:
        browser.open(tmp_path / "report.html")
        browser.wait("document.getElementById('viewer').dataset.shown !== undefined")
        assert browser.ask("document.querySelector('[data-part=window]').closest('label').hidden")
        assert browser.events("Runtime.exceptionThrown") == []


def test_an_empty_mask_has_a_page_too(cli, tmp_path):
    nib.save(nib.Nifti1Image(np.zeros((12, 10, 8), dtype=np.uint8), np.eye(4)), tmp_path / "none.nii.gz")
    done = cli("report", tmp_path / "none.nii.gz", "-o", tmp_path / "out", "--json")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out" / "report.html").exists()


def picture(text):
    return matplotlib.image.imread(io.BytesIO(base64.b64decode(text)), format="png")


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR"])
def test_the_viewer_shows_the_file_however_it_is_stored(codes):
    image, mask, affine = two_lesions()
    turn = nib.orientations.ornt_transform(nib.io_orientation(affine), nib.orientations.axcodes2ornt(codes))
    stored = [nib.Nifti1Image(voxels, affine).as_reoriented(turn) for voxels in (image, mask)]
    arrays = [np.asarray(each.dataobj) for each in stored]
    view = RadiologicalView.of(arrays[0], {"mask": arrays[1]}, stored[0].affine)
    found = find_findings(arrays[1], stored[0].affine)
    data = build_viewer(view, found.lesions, numbers=numbers(view), has_ct=True)

    assert [len(data["slices"]), data["width"], data["height"]] == [24, 60, 50]
    for z, shown in enumerate(data["slices"]):
        labels = np.rint(picture(shown["labels"]) * 255 / LABEL_STEP) if shown["labels"] else np.zeros((50, 60))
        np.testing.assert_array_equal(labels, mask[:, :, z].T)  # LPS: columns to the left, rows to the back
    (x0, y0), (x1, y1) = data["lesions"][0]["lines"][0]
    assert np.hypot(x1 - x0, y1 - y0) * 1.5 == pytest.approx(found.lesions[0].longest.length_mm, abs=0.05)
    assert {int(x0), int(x1)} == {10, 23}
    assert {int(y0), int(y1)} == {14, 19}


def test_grey_values_are_near_the_ct():
    case = make_phantom(shape=(64, 64, 8), seed=1)
    image, mask, affine = (np.asarray(each) for each in (case.image, case.label, case.affine))
    view = RadiologicalView.of(image, {"mask": mask}, affine)
    data = build_viewer(view, [], numbers=numbers(view), has_ct=True)
    low, high = SHOWN_HU
    for z, shown in enumerate(data["slices"]):
        gray = np.asarray(Image.open(io.BytesIO(base64.b64decode(shown["ct"]))).convert("L"), dtype=float)
        true = np.clip(view.image[:, ::-1, z].T, low, high)
        assert np.abs(gray / 255 * (high - low) + low - true).mean() < 15


def test_of_a_long_scan_the_liver_is_shown_with_every_lesion():
    mask = np.zeros((4, 4, 900), dtype=np.uint8)
    mask[1, 1, 100:800] = 1
    view = RadiologicalView.of(mask, {"mask": mask}, np.eye(4))
    shown = choose_shown(view, [101, 407])
    assert {101, 407} <= set(shown)
    assert len(shown) <= MAX_SLICES + 2
    assert 80 <= min(shown) <= 100
    assert 796 <= max(shown) <= 820


def test_ends_of_diameters_lie_on_their_lesion():
    image, mask, affine = two_lesions()
    view = RadiologicalView.of(image, {"mask": mask}, affine)
    for lesion in find_findings(mask, affine).lesions:
        ends = view_ends(view, lesion.longest)
        assert all(view.masks["mask"][tuple(np.rint(end).astype(int))] == 2 for end in ends)


def test_the_surface_is_seen_as_one_sees_a_patient():
    """A tumour in front, on the patient's right, at the top: where it must be in each of the three views."""
    mask = np.ones((40, 40, 40), dtype=np.uint8)
    mask[28:38, 28:38, 28:38] = 2  # RAS, the first axis to the right
    view = RadiologicalView.of(mask, {"mask": mask}, np.eye(4))
    rgb = matplotlib.image.imread(io.BytesIO(draw_surface(view)), format="png")[50:, :, :3]
    is_tumor, is_liver = rgb[..., 0] > rgb[..., 2], rgb[..., 2] > 0.2
    thirds = [slice(0, 400), slice(400, 800), slice(800, 1200)]
    for third, (is_right, is_up) in zip(thirds, [(False, True), (True, True), (False, True)], strict=True):
        tumor, liver = (np.argwhere(each[:, third]).mean(axis=0) for each in (is_tumor, is_tumor | is_liver))
        assert (tumor[1] > liver[1]) == is_right
        assert (tumor[0] < liver[0]) == is_up


def test_the_histogram_is_a_picture():
    image, mask, _ = two_lesions()
    assert matplotlib.image.imread(io.BytesIO(draw_histogram(image, mask)), format="png").shape[1] == 900


def test_a_page_of_a_large_ct_stays_small(tmp_path):
    """Noise as of a CT on 512 x 512; what 119 such slices would take is below 15 MB."""
    n_slices = 6
    rng = np.random.default_rng(0)
    x, y = np.meshgrid(*[np.linspace(-1, 1, 512)] * 2, indexing="ij")
    body = np.where(x**2 / 0.7 + y**2 / 0.4 < 1, 60, -1000)
    image = np.repeat(body[..., None], n_slices, axis=2) + rng.normal(0, 20, (512, 512, n_slices))
    mask = np.zeros(image.shape, dtype=np.uint8)
    view = RadiologicalView.of(image.astype(np.int16), {"mask": mask}, np.eye(4))
    data = build_viewer(view, [], numbers=numbers(view), has_ct=True)
    mb = sum(len(shown["ct"]) for shown in data["slices"]) / n_slices * 119 / 1e6
    assert mb < 12
