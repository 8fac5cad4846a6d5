"""The page in a real browser: Debian's Chromium, headless, driven by Playwright, on a plain static server."""

import gzip
import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import SimpleITK
import torch
from numpy.typing import NDArray

from seg25d.core.device import choose_execution
from seg25d.data.description import DatasetDescription
from seg25d.data.image_io import read_geometry, read_image, read_labels
from seg25d.data.labels import Labels
from seg25d.inference.predictor import Predictor
from seg25d.networks.unet import UNetSpec
from seg25d.planning.model_file import ModelHeader, save_model
from seg25d.planning.normalization import ChannelNormalization
from seg25d.planning.plan import ConfigurationPlan
from seg25d.portable.export import PACKAGES, export_graph
from seg25d.portable.page_model import MODEL
from seg25d.portable.web_page import describe_page
from seg25d.representations.slices import Slices
from tests.data.dicom_files import write_frames, write_slices
from tests.web.bgzip import bgzip

CHROMIUM = next((path for name in ("chromium", "google-chrome") if (path := shutil.which(name))), None)
FLAGS = (
    *("--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"),
)
"""WebGL without a GPU, and nothing that asks for a network."""
LABELS = Labels(names={"background": 0, "organ": 1, "lesion": 3})
SHAPE = (12, 40, 48)
PATIENCE_MS = 120_000
LEAST_DICE = 0.995
pytestmark = pytest.mark.slow


class Exported(NamedTuple):
    """A page and the model file that it was made of."""

    folder: Path
    model: Path


class Opened(NamedTuple):
    """A page, and what it complained about and asked for."""

    page: Any
    problems: list[str]
    requests: list[str]
    exported: Exported


class Quiet(SimpleHTTPRequestHandler):
    """What `python -m http.server` serves with."""

    graphs_take_s = 0.0

    def do_GET(self) -> None:
        """Serve a file; graphs perhaps late."""
        if ".onnx" in self.path:
            time.sleep(self.graphs_take_s)
        super().do_GET()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def make_page(
    built: Path, folder: Path, channels: tuple[str, ...], dataset_name: str = "Dataset007_Tiny", seed: int = 3
) -> Exported:
    """A page of a model with random weights for slices with neighbours."""
    network = UNetSpec(widths=(4, 6), strides=((1, 1), (2, 2)), kernels=((3, 3), (3, 3)))
    plan = ConfigurationPlan(
        spacing_mm=(2.0, 1.0, 1.0),
        normalization=tuple(ChannelNormalization(channel=name, scheme="zscore") for name in channels),
        store="store",
        window=(4, 32, 32),
        batch_size=2,
        representation=Slices(axis=0, context=1),
        network=network,
        mirror_axes=(1, 2),
        estimated_memory_gb=0.1,
        num_parameters=1,
        reasons={},
    )
    description = DatasetDescription(channel_names=channels, labels=LABELS, file_ending=".nii.gz", num_training=1)
    header = ModelHeader(dataset_name=dataset_name, configuration="axial", fold=0, plan=plan, description=description)
    torch.manual_seed(seed)
    model = folder / "model_final.safetensors"
    save_model(model, header.build_model().state_dict(), header)
    page = folder / "page"
    shutil.copytree(built, page)
    name = "axial/fold_0/model_final.onnx"
    (page / MODEL / name).parent.mkdir(parents=True)
    export_graph(model, page / MODEL / name, "float32")
    describe_page(page, [name], None)
    return Exported(page, model)


def write_image(path: Path, seed: int = 0, orientation: str = "RAS") -> Path:
    """Smooth blobs, so that a random network's scores are seldom equal, in voxels of 0.9 x 0.9 x 2.2 mm."""
    rng = np.random.default_rng(seed)
    image = SimpleITK.GetImageFromArray(rng.normal(0, 1, SHAPE).astype(np.float32))
    image.SetSpacing((0.9, 0.9, 2.2))
    smooth = SimpleITK.SmoothingRecursiveGaussian(image, 3.0)
    scaled = SimpleITK.Cast(smooth * 3000 + 500, SimpleITK.sitkInt16)
    SimpleITK.WriteImage(SimpleITK.DICOMOrient(scaled, orientation), str(path))
    return path


def predicted(model: Path, paths: list[Path]) -> NDArray[np.uint8]:
    """What seg25d predicts, internal indices (D, H, W)."""
    predictor = Predictor.load([model], choose_execution("cpu", "float32"))
    image, geometry = read_image(paths)
    return predictor.predict_array(image, geometry.canonical_spacing_mm)


def least_dice(found: NDArray[Any], wanted: NDArray[Any]) -> float:
    """The smallest Dice of all values that occur."""
    values = [value for value in np.unique(wanted) if value]
    assert values, "the model finds something"
    return min(
        2 * ((found == value) & (wanted == value)).sum() / ((found == value).sum() + (wanted == value).sum())
        for value in values
    )


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("Chromium is absent: apt-get install chromium")
    for package in PACKAGES:
        pytest.importorskip(package, reason="needs ONNX: pip install 'seg25d[onnx]'")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def one_channel(browser, built_page, tmp_path_factory) -> Exported:
    return make_page(built_page, tmp_path_factory.mktemp("one"), ("MRI",))


@pytest.fixture(scope="module")
def two_channels(browser, built_page, tmp_path_factory) -> Exported:
    return make_page(built_page, tmp_path_factory.mktemp("two"), ("MRI", "CT"))


@contextmanager
def serving(folder: Path) -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def server(one_channel, two_channels, request) -> Iterator[tuple[ThreadingHTTPServer, Exported]]:
    exported = two_channels if getattr(request, "param", 1) == 2 else one_channel
    with serving(exported.folder) as server:
        yield server, exported


@pytest.fixture
def opened(browser, server, request) -> Iterator[Opened]:
    width, height, scheme = getattr(request, "param", (1400, 900, "light"))
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, accept_downloads=True, reduced_motion="reduce"
    )
    page = context.new_page()
    problems: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    context.on("request", lambda asked: requests.append(asked.url))
    page.goto(f"http://localhost:{server[0].server_port}/")
    wait_for(page, "ready")
    yield Opened(page, problems, requests, server[1])
    context.close()


def wait_for(page: Any, *states: str) -> None:
    selector = ", ".join(f"body[data-state={state}]" for state in states)
    page.wait_for_selector(selector, timeout=PATIENCE_MS)


def segment(opened: Opened, paths: list[Path], place: Path) -> NDArray[Any]:
    """Let the page segment files and save the result; gives the values in canonical axes."""
    opened.page.set_input_files("#files", [str(path) for path in paths])
    wait_for(opened.page, "done", "failed")
    assert opened.page.locator("#problem").is_hidden(), opened.page.locator("#problem").text_content()
    return saved(opened.page, place)


def saved(page: Any, place: Path) -> NDArray[Any]:
    with page.expect_download() as download:
        page.get_by_role("button", name="Save the segmentation").click()
    download.value.save_as(place)
    return read_labels(place)[0]


def problem_of(opened: Opened) -> str:
    wait_for(opened.page, "failed")
    return opened.page.get_by_role("alert").text_content()


def test_an_image_is_segmented_as_python_segments_it(opened, tmp_path):
    path = write_image(tmp_path / "case_7.nii.gz")
    values = segment(opened, [path], tmp_path / "found.nii.gz")
    wanted = LABELS.decode(predicted(opened.exported.model, [path]))
    assert least_dice(values, wanted) >= LEAST_DICE
    assert read_geometry(tmp_path / "found.nii.gz") == read_geometry(path)
    rows = opened.page.locator("#structures tr")
    assert rows.count() == 2
    for row, value, name in zip((rows.nth(0), rows.nth(1)), (1, 3), ("organ", "lesion"), strict=True):
        cells = row.locator("td").all_text_contents()
        assert row.locator("th").text_content() == name
        assert int(cells[1]) == (values == value).sum()
        assert float(cells[0]) == pytest.approx((values == value).sum() * 0.9 * 0.9 * 2.2 / 1000, rel=0.05)
    about = opened.page.locator("#model").text_content()
    assert "MRI: less the mean of the image, divided by its standard deviation" in about
    assert "Post-processingnone" in about
    assert opened.problems == []
    assert all(address.startswith(("http://localhost:", "blob:", "data:")) for address in opened.requests)


def test_the_page_is_isolated_by_its_service_worker_and_computes_in_threads(opened, tmp_path):
    assert opened.page.evaluate("crossOriginIsolated")
    segment(opened, [write_image(tmp_path / "a.nii.gz")], tmp_path / "found.nii.gz")
    cores = opened.page.evaluate("navigator.hardwareConcurrency")
    assert ("threads" in opened.page.locator("#engine").text_content()) == (cores > 1)


def test_folders_beside_each_other_are_all_isolated_and_stay_so(browser, one_channel, two_channels, tmp_path):
    """In one tab, whose storage they share; also if a reload passes by the service worker."""
    for name, exported in (("one", one_channel), ("two", two_channels)):
        shutil.copytree(exported.folder, tmp_path / "served" / name)
    context = browser.new_context()
    page = context.new_page()
    with serving(tmp_path / "served") as server:
        for name in ("one", "two", "one"):
            page.goto(f"http://localhost:{server.server_port}/{name}/")
            wait_for(page, "ready")
            assert page.evaluate("crossOriginIsolated"), name
        for _ in range(2):
            page.evaluate("document.body.dataset.old = true")
            context.new_cdp_session(page).send("Page.reload", {"ignoreCache": True})
            page.wait_for_selector("body[data-state=ready]:not([data-old])", timeout=PATIENCE_MS)
            assert page.evaluate("crossOriginIsolated")
    context.close()


def test_the_page_works_without_the_server_once_it_is_loaded(opened, server, tmp_path):
    page = opened.page
    page.wait_for_selector("body[data-offline=ready]", timeout=PATIENCE_MS)
    path = write_image(tmp_path / "a.nii.gz")
    before = segment(opened, [path], tmp_path / "before.nii.gz")
    server[0].shutdown()
    page.context.set_offline(True)
    page.reload()
    wait_for(page, "ready")
    after = segment(opened, [path], tmp_path / "after.nii.gz")
    np.testing.assert_array_equal(after, before)


def test_another_model_at_the_same_address_is_there_at_once(browser, built_page, one_channel, tmp_path):
    """Also if its files are older, of which a server that goes by times says that nothing has changed."""
    other = make_page(built_page, tmp_path, ("MRI",), "Dataset008_Other", seed=4)
    served = tmp_path / "served"
    shutil.copytree(one_channel.folder, served)
    context = browser.new_context(accept_downloads=True)
    page = context.new_page()
    with serving(served) as server:
        page.goto(f"http://localhost:{server.server_port}/")
        wait_for(page, "ready")
        page.wait_for_selector("body[data-offline=ready]", timeout=PATIENCE_MS)
        assert page.locator("#title").text_content() == "Dataset007_Tiny"
        shutil.rmtree(served)
        shutil.copytree(other.folder, served)
        for path in served.rglob("*"):
            os.utime(path, (0, 0))
        page.reload()
        wait_for(page, "ready")
        page.wait_for_selector("body[data-offline=ready]", timeout=PATIENCE_MS)
        assert page.locator("#title").text_content() == "Dataset008_Other"
        path = write_image(tmp_path / "a.nii.gz")
        values = segment(Opened(page, [], [], other), [path], tmp_path / "found.nii.gz")
        assert least_dice(values, LABELS.decode(predicted(other.model, [path]))) >= LEAST_DICE
    page.reload()
    wait_for(page, "ready")
    assert page.locator("#title").text_content() == "Dataset008_Other"
    segment(Opened(page, [], [], other), [path], tmp_path / "again.nii.gz")
    context.close()


def test_a_graph_that_page_json_does_not_name_is_not_used(browser, built_page, one_channel, tmp_path):
    served = tmp_path / "served"
    shutil.copytree(one_channel.folder, served)
    graph = next(served.rglob("*.onnx"))
    content = bytearray(graph.read_bytes())
    content[-1] ^= 1
    graph.write_bytes(bytes(content))
    page = browser.new_page()
    with serving(served) as server:
        page.goto(f"http://localhost:{server.server_port}/")
        wait_for(page, "ready")
        page.set_input_files("#files", str(write_image(tmp_path / "a.nii.gz")))
        wait_for(page, "failed")
        assert "it is not the one that page.json names" in page.get_by_role("alert").text_content()
    page.close()


ASK_ELSEWHERE = """async (address) => {
  const refused = new Promise((resolve) =>
    self.addEventListener("securitypolicyviolation", (event) => resolve(event.effectiveDirective)));
  fetch(address).catch(() => undefined);
  return Promise.race([refused, new Promise((resolve) => setTimeout(resolve, 5000, "allowed"))]);
}"""


def test_workers_may_load_nothing_from_elsewhere(opened, server):
    scripts = sorted((opened.exported.folder / "assets").glob("worker*.js"))
    assert len(scripts) == 2, "that which segments, and that of dcm2niix"
    for script in scripts:
        with opened.page.expect_worker() as started:
            opened.page.evaluate(f"void new Worker('assets/{script.name}', {{ type: 'module' }})")
        elsewhere = f"http://127.0.0.1:{server[0].server_port}/page.json"
        assert started.value.evaluate(ASK_ELSEWHERE, elsewhere) == "connect-src"


def test_a_cancel_in_the_middle_ends_the_work_at_once_and_the_next_image_is_segmented(opened, tmp_path):
    page = opened.page
    large = np.random.default_rng(0).normal(size=(160, 300, 300)).astype(np.float32)
    image = SimpleITK.GetImageFromArray(large)
    image.SetSpacing((1.0, 1.0, 2.0))
    SimpleITK.WriteImage(image, str(tmp_path / "large.nii"))
    page.set_input_files("#files", str(tmp_path / "large.nii"))
    page.wait_for_selector("#phase:text('Segmenting')", timeout=PATIENCE_MS)
    page.get_by_text("per cent, ").wait_for(timeout=PATIENCE_MS)
    assert page.locator("#left").text_content().endswith("left")
    page.get_by_role("button", name="Cancel").click()
    wait_for(page, "cancelled")
    assert page.locator("#work").is_hidden()
    assert "Cancelled" in page.get_by_role("status").text_content()
    small = write_image(tmp_path / "small.nii.gz")
    values = segment(opened, [small], tmp_path / "found.nii.gz")
    assert least_dice(values, LABELS.decode(predicted(opened.exported.model, [small]))) >= LEAST_DICE


def test_the_time_goes_on_while_nothing_is_known_of_what_is_left(opened, tmp_path, monkeypatch):
    monkeypatch.setattr(Quiet, "graphs_take_s", 3.0)
    opened.page.evaluate(
        """() => {
          const said = window.said = [];
          new MutationObserver(() => said.push(["phase", "left"].map((id) => document.getElementById(id).textContent)))
            .observe(document.getElementById("left"), { childList: true });
        }"""
    )
    segment(opened, [write_image(tmp_path / "a.nii.gz")], tmp_path / "found.nii.gz")
    said = opened.page.evaluate("said")
    times = {left for phase, left in said if phase == "Loading the model"}
    assert {"1 s so far", "2 s so far"} <= times
    number = len(said)
    opened.page.wait_for_timeout(1500)
    assert len(opened.page.evaluate("said")) == number, "nothing is renewed once the work is done"


def test_files_of_bgzip_are_read_and_shown(opened, tmp_path):
    usual = write_image(tmp_path / "usual.nii.gz")
    path = tmp_path / "case.nii.gz"
    path.write_bytes(bgzip(gzip.decompress(usual.read_bytes())))
    values = segment(opened, [path], tmp_path / "found.nii.gz")
    opened.page.wait_for_selector("body[data-shown=structures]", timeout=PATIENCE_MS)
    assert opened.page.locator("#view").is_visible()
    np.testing.assert_array_equal(values, segment(opened, [usual], tmp_path / "again.nii.gz"))


LARGEST_BUFFER = """() => {
  window.largest = 0;
  window.ArrayBuffer = new Proxy(ArrayBuffer, {
    construct(kind, [size, ...others]) {
      window.largest = Math.max(window.largest, size);
      return new kind(size, ...others);
    },
  });
}"""


@pytest.mark.parametrize("compress", [gzip.compress, bgzip], ids=["gzip", "bgzip"])
def test_what_follows_the_voxels_takes_no_memory_where_an_image_is_shown(compress, opened, tmp_path):
    """A small file may hold much of that, which no header announces."""
    page, more = opened.page, 1 << 23
    usual = write_image(tmp_path / "usual.nii.gz")
    path = tmp_path / "case.nii.gz"
    path.write_bytes(compress(gzip.decompress(usual.read_bytes()) + bytes(more)))
    page.evaluate(LARGEST_BUFFER)
    values = segment(opened, [path], tmp_path / "found.nii.gz")
    page.wait_for_selector("body[data-shown=structures]", timeout=PATIENCE_MS)
    assert 2 * np.prod(SHAPE) < page.evaluate("largest") < more
    np.testing.assert_array_equal(values, segment(opened, [usual], tmp_path / "again.nii.gz"))
    assert opened.problems == []


def test_a_folder_of_dicom_files_is_one_image(opened, tmp_path):
    path = write_image(tmp_path / "image.nii.gz", orientation="LPS")
    folder = tmp_path / "series"
    write_series(folder, SimpleITK.ReadImage(str(path)))
    opened.page.set_input_files("#folder", str(folder))
    wait_for(opened.page, "done", "failed")
    assert opened.page.locator("#problem").is_hidden(), opened.page.locator("#problem").text_content()
    values = saved(opened.page, tmp_path / "found.nii.gz")
    assert least_dice(values, LABELS.decode(predicted(opened.exported.model, [folder]))) >= LEAST_DICE
    difference = read_geometry(tmp_path / "found.nii.gz").canonical_spacing_mm
    assert difference == pytest.approx((2.2, 0.9, 0.9), abs=1e-4)


def write_series(folder: Path, image: Any, others: dict[str, str] | None = None) -> None:
    """A file per slice, with other attributes by their tags."""
    folder.mkdir(parents=True)
    writer = SimpleITK.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for index in range(image.GetSize()[2]):
        plane = image[:, :, index]
        position = "\\".join(f"{number:.6f}" for number in image.TransformIndexToPhysicalPoint((0, 0, index)))
        tags = {
            "0008|0020": "20260101",
            "0008|0021": "20260101",
            "0008|0022": "20260101",
            "0008|0030": "120000",
            "0008|0031": "120000",
            "0008|0032": "120000",
            "0008|0060": "MR",
            "0008|103e": "smooth",
            "0020|000d": "1.2.3",
            "0020|000e": "1.2.3.4",
            "0020|0011": "1",
            "0020|0013": str(index + 1),
            "0020|0032": position,
            "0020|0037": "1\\0\\0\\0\\1\\0",
            "0018|0050": "2.2",
        }
        for key, text in (tags | (others or {})).items():
            plane.SetMetaData(key, text)
        writer.SetFileName(str(folder / f"{index:03d}.dcm"))
        writer.Execute(plane)


def test_series_that_are_no_volume_are_left_out_and_named(opened, tmp_path):
    """Localizers at once, as they are none by their nature; others after they were told."""
    page, study = opened.page, tmp_path / "study"
    path = write_image(tmp_path / "image.nii.gz", orientation="LPS")
    image = SimpleITK.ReadImage(str(path))
    write_series(study / "brain", image)
    kind = "ORIGINAL\\PRIMARY\\LOCALIZER"
    scout = {"0020|000e": "1.2.3.5", "0020|0011": "2", "0008|103e": "scout", "0008|0008": kind}
    write_series(study / "scout", image[:, :, :3], scout)
    page.set_input_files("#folder", str(study))
    wait_for(page, "done", "failed")
    assert "Left out: 2_scout (3 files): 000.dcm, 001.dcm, 002.dcm of 3 are localizers" in page.inner_text("#doubts")
    values = saved(page, tmp_path / "found.nii.gz")
    assert least_dice(values, LABELS.decode(predicted(opened.exported.model, [path]))) >= LEAST_DICE
    write_series(study / "cut", image, {"0020|000e": "1.2.3.6", "0020|0011": "3"})
    cut = study / "cut" / "004.dcm"
    cut.write_bytes(cut.read_bytes()[:-100])
    page.set_input_files("#folder", str(study))
    wait_for(page, "assigning", "failed")
    assert "Images found: 1, series left out: 2." in page.get_by_role("status").text_content()
    assert "Left out: 3_smooth (12 files): 004.dcm: the file is cut off: 3740 of 3840" in page.inner_text("#doubts")
    page.get_by_role("button", name="Segment", exact=True).click()
    wait_for(page, "done", "failed")
    np.testing.assert_array_equal(saved(page, tmp_path / "again.nii.gz"), values)
    assert opened.problems == []


def test_a_series_that_predict_refuses_is_refused(opened, tmp_path):
    image = SimpleITK.ReadImage(str(write_image(tmp_path / "image.nii.gz", orientation="LPS")))
    write_series(tmp_path / "series", image)
    (tmp_path / "series" / "004.dcm").unlink()
    opened.page.set_input_files("#folder", str(tmp_path / "series"))
    problem = problem_of(opened)
    assert "1_smooth (11 files): 1 slice is missing between 003.dcm and 005.dcm; the others are 2.2 mm apart" in problem
    assert "--accept-gaps" in problem


def test_a_file_of_many_slices_is_one_image_if_they_are_regular(opened, tmp_path):
    """dcm2niix would take any distances for equal."""
    page, numbers = opened.page, np.random.default_rng(0).integers(0, 1000, SHAPE).astype(np.int16)
    write_frames(tmp_path / "regular" / "a.dcm", numbers, [(0, 0, 2.0 * index) for index in range(len(numbers))])
    page.set_input_files("#folder", str(tmp_path / "regular"))
    wait_for(page, "done", "failed")
    assert page.locator("#problem").is_hidden(), page.locator("#problem").text_content()
    values = saved(page, tmp_path / "found.nii.gz")
    wanted = LABELS.decode(predicted(opened.exported.model, [tmp_path / "regular"]))
    assert least_dice(values, wanted) >= LEAST_DICE
    places = [(0, 0, 2.0 * index + 5 * (index > 6)) for index in range(len(numbers))]
    write_frames(tmp_path / "uneven" / "a.dcm", numbers, places)
    page.set_input_files("#folder", str(tmp_path / "uneven"))
    assert "such as 7 mm between a.dcm frame 7 and a.dcm frame 8. Add what is missing" in problem_of(opened)


def test_slices_of_one_series_are_one_volume_whatever_dcm2niix_makes_of_them(opened, tmp_path):
    """It takes slices apart whose studies or echoes differ, takes the distance of the first two for all, and adds
    volumes with other slices where their distances vary."""
    page, numbers = opened.page, np.random.default_rng(0).integers(0, 1000, SHAPE).astype(np.int16)
    folder = write_slices(
        tmp_path / "series",
        numbers,
        lambda index: (0, 0, 12.0 * index + [0.1, -0.1][index % 2]),
        lambda index: {"StudyDate": "20260101", "StudyTime": f"1200{index:02d}", "EchoTime": 10 + index // 6},
    )
    page.set_input_files("#folder", str(folder))
    wait_for(page, "done", "failed")
    assert page.locator("#problem").is_hidden(), page.locator("#problem").text_content()
    values = saved(page, tmp_path / "found.nii.gz")
    assert least_dice(values, LABELS.decode(predicted(opened.exported.model, [folder]))) >= LEAST_DICE
    found, wanted = read_geometry(tmp_path / "found.nii.gz"), read_geometry(folder)
    assert found.canonical_spacing_mm == pytest.approx(wanted.canonical_spacing_mm, rel=1e-6)
    assert found.canonical_spacing_mm[0] == pytest.approx(12 - 0.2 / 11)


def test_hidden_files_are_left_alone(opened, tmp_path):
    (tmp_path / "._a.nii.gz").write_bytes(b"of macOS")
    (tmp_path / "._b.dcm").write_bytes(b"of macOS")
    hidden = [tmp_path / "._a.nii.gz", tmp_path / "._b.dcm"]
    segment(opened, [*hidden, write_image(tmp_path / "a.nii.gz")], tmp_path / "found.nii.gz")
    opened.page.set_input_files("#files", [str(path) for path in hidden])
    assert "There is no image among the files" in problem_of(opened)


def test_folders_of_dicom_files_that_are_too_large_are_told_before_they_are_converted(browser, server, tmp_path):
    page = browser.new_page()
    page.add_init_script("Object.defineProperty(Navigator.prototype, 'deviceMemory', { value: 0.0001 })")
    page.goto(f"http://localhost:{server[0].server_port}/")
    wait_for(page, "ready")
    write_series(tmp_path / "series", SimpleITK.ReadImage(str(write_image(tmp_path / "image.nii.gz"))))
    page.set_input_files("#folder", str(tmp_path / "series"))
    problem = problem_of(Opened(page, [], [], server[1]))
    assert "The volume is too large for this machine: 12 DICOM files have" in problem
    page.close()


def test_windows_of_dicom_headers_are_taken(browser, one_channel, tmp_path):
    """As if the plan had them."""
    image = SimpleITK.ReadImage(str(write_image(tmp_path / "image.nii.gz", orientation="LPS")))
    write_series(tmp_path / "series", image, {"0028|1050": "300.5\\40", "0028|1051": "900\\400"})
    results, about = [], []
    for scheme, ends in (("ct_window_dicom", (-9000.0, 9000.0)), ("ct_window", (-149.5, 750.5))):
        served = tmp_path / scheme
        shutil.copytree(one_channel.folder, served)
        described = json.loads((served / "page.json").read_text())
        described["channels"][0] |= {"scheme": scheme, "lower": ends[0], "upper": ends[1]}
        (served / "page.json").write_text(json.dumps(described))
        page = browser.new_page(accept_downloads=True)
        with serving(served) as server:
            page.goto(f"http://localhost:{server.server_port}/")
            wait_for(page, "ready")
            page.set_input_files("#folder", str(tmp_path / "series"))
            wait_for(page, "done", "failed")
            results.append(saved(page, tmp_path / f"{scheme}.nii.gz"))
            about.append(page.inner_text("#doubts"))
        page.close()
    np.testing.assert_array_equal(results[0], results[1])
    assert len(np.unique(results[0])) > 1
    assert not any("window" in each for each in about)


def test_a_cancel_while_dicom_files_are_read_ends_their_reader(opened, tmp_path):
    page = opened.page
    image = SimpleITK.GetImageFromArray(np.random.default_rng(0).integers(0, 4000, (120, 256, 256)).astype(np.int16))
    write_series(tmp_path / "series", image)
    page.evaluate(
        """() => new MutationObserver(() => {
          if (document.getElementById("phase").textContent.includes("DICOM")) document.getElementById("cancel").click();
        }).observe(document.getElementById("phase"), { childList: true })"""
    )
    page.set_input_files("#folder", str(tmp_path / "series"))
    wait_for(page, "cancelled")
    page.wait_for_timeout(200)
    assert page.workers == [], "to convert 15 MB takes longer"
    assert page.evaluate("document.activeElement.id") == "files"
    segment(opened, [write_image(tmp_path / "a.nii.gz")], tmp_path / "found.nii.gz")


def test_the_focus_goes_to_the_progress_and_to_what_came_of_it(opened, tmp_path):
    page = opened.page
    page.evaluate("document.addEventListener('focusin', (event) => (window.focused ??= []).push(event.target.id))")
    page.locator("#files").focus()
    segment(opened, [write_image(tmp_path / "a.nii.gz")], tmp_path / "found.nii.gz")
    assert page.evaluate("focused").index("work") < page.evaluate("focused").index("result")
    (tmp_path / "bad.nii").write_bytes(bytes(400))
    page.set_input_files("#files", str(tmp_path / "bad.nii"))
    assert "bad.nii" in problem_of(opened)
    assert page.evaluate("document.activeElement.id") == "problem"
    page.keyboard.press("Shift+Tab")
    assert page.evaluate("document.activeElement.id") == "folder"


@pytest.mark.parametrize("server", [2], indirect=True)
def test_channels_go_by_their_numbers_or_are_asked_for(opened, tmp_path):
    page = opened.page
    numbered = [write_image(tmp_path / f"case_{channel:04d}.nii.gz", channel) for channel in range(2)]
    values = segment(opened, numbered[::-1], tmp_path / "found.nii.gz")
    wanted = LABELS.decode(predicted(opened.exported.model, numbered))
    assert least_dice(values, wanted) >= LEAST_DICE
    named = [tmp_path / "one.nii.gz", tmp_path / "other.nii.gz"]
    for path, new in zip(numbered, named, strict=True):
        path.rename(new)
    page.set_input_files("#files", [str(path) for path in named])
    wait_for(page, "assigning")
    page.locator("select[name=channel-0]").select_option(label="one.nii.gz")
    page.locator("select[name=channel-1]").select_option(label="one.nii.gz")
    page.get_by_role("button", name="Segment").click()
    page.get_by_text("One file was chosen for two channels").wait_for()
    page.locator("select[name=channel-1]").select_option(label="other.nii.gz")
    page.get_by_role("button", name="Segment").click()
    wait_for(page, "done")
    np.testing.assert_array_equal(saved(page, tmp_path / "again.nii.gz"), values)


@pytest.mark.parametrize("server", [2], indirect=True)
def test_too_few_files_are_told(opened, tmp_path):
    opened.page.set_input_files("#files", str(write_image(tmp_path / "a.nii.gz")))
    assert "needs 2 images, one for each channel (MRI, CT); got 1" in problem_of(opened)


def test_files_that_do_not_fit_are_told_and_the_page_goes_on(opened, tmp_path):
    page = opened.page
    whole = write_image(tmp_path / "whole.nii.gz")
    (tmp_path / "cut.nii.gz").write_bytes(whole.read_bytes()[:5000])
    page.set_input_files("#files", str(tmp_path / "cut.nii.gz"))
    assert "cut.nii.gz: the file cannot be read, its compressed data are damaged or cut off" in problem_of(opened)
    content = bytearray(gzip.decompress(whole.read_bytes()))
    content[40:42] = np.array([2], "<i2").tobytes()
    (tmp_path / "flat.nii").write_bytes(bytes(content))
    page.set_input_files("#files", str(tmp_path / "flat.nii"))
    page.get_by_text("flat.nii: the file is 2D, expected is a 3D volume").wait_for()
    header = bytearray(gzip.decompress(whole.read_bytes())[:352])
    header[40:48] = np.array([3, 3000, 3000, 3000], "<i2").tobytes()
    (tmp_path / "huge.nii").write_bytes(bytes(header))
    page.set_input_files("#files", str(tmp_path / "huge.nii"))
    page.get_by_text("too large for this machine").wait_for()
    (tmp_path / "notes.md").write_text("no image")
    page.set_input_files("#files", str(tmp_path / "notes.md"))
    page.get_by_text("notes.md is neither a NIfTI nor a DICOM file").wait_for()
    segment(opened, [whole], tmp_path / "found.nii.gz")
    assert opened.problems == []


@pytest.mark.parametrize("opened", [(390, 844, "dark"), (1400, 900, "light")], indirect=True)
def test_it_fits_phones_and_desktops(opened, tmp_path):
    page = opened.page
    segment(opened, [write_image(tmp_path / "a.nii.gz")], tmp_path / "found.nii.gz")
    page.wait_for_selector("body[data-shown=structures]", timeout=PATIENCE_MS)
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
    small = page.evaluate(
        "[...document.querySelectorAll('button, .button, select')].filter((each) => each.offsetParent)"
        ".filter((each) => each.offsetHeight < 40).map((each) => each.textContent)"
    )
    assert small == [], "targets for fingers"
    picture = page.locator("#stage")
    assert picture.bounding_box()["width"] <= page.viewport_size["width"]
    assert opened.problems == []


def test_the_keyboard_reaches_everything_and_it_has_names(opened, tmp_path):
    page = opened.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "files"
    segment(opened, [write_image(tmp_path / "a.nii.gz")], tmp_path / "found.nii.gz")
    page.wait_for_selector("body[data-shown=structures]", timeout=PATIENCE_MS)
    nameless = page.evaluate(
        "[...document.querySelectorAll('input, button, select, canvas, progress')].filter((each) => each.offsetParent)"
        ".filter((each) => !(each.labels?.[0]?.textContent || each.textContent || each.ariaLabel).trim())"
        ".map((each) => each.outerHTML)"
    )
    assert nameless == []
    page.locator("#opacity").focus()
    page.keyboard.press("ArrowLeft")
    assert page.locator("#opacity").get_attribute("aria-valuetext") == "59 per cent"
    axial = page.locator("#axial")
    assert axial.get_attribute("aria-valuetext") == "50 per cent"
    axial.focus()
    page.keyboard.press("End")
    assert axial.get_attribute("aria-valuetext") == "100 per cent"
    sliders = [page.locator(f"#{name}") for name in ("axial", "coronal", "sagittal")]
    before = [slider.input_value() for slider in sliders]
    box = page.locator("#stage").bounding_box()
    page.mouse.click(box["x"] + 0.15 * box["width"], box["y"] + 0.3 * box["height"])
    assert before != [slider.input_value() for slider in sliders], "a click into a plane moves the crosshair"
    for slider in sliders:
        number, unit = slider.get_attribute("aria-valuetext").split(" ", maxsplit=1)
        assert (float(number), unit) == (pytest.approx(100 * float(slider.input_value()), abs=0.51), "per cent")
    page.get_by_label("Show organ").press("Space")
    assert not page.get_by_label("Show organ").is_checked()
    assert "organ" in page.get_by_role("status").text_content()


@pytest.mark.parametrize("opened", [(1400, 900, "dark"), (1400, 900, "light")], indirect=True)
def test_letters_stand_out(opened):
    """WCAG 2.2, 1.4.3: at least 4.5 to 1."""
    ratios = opened.page.evaluate(
        """() => {
          const channels = (text) => text.match(/[\\d.]+/g).slice(0, 4).map(Number);
          const light = (part) => (part /= 255) <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
          const luminance = ([r, g, b]) => 0.2126 * light(r) + 0.7152 * light(g) + 0.0722 * light(b);
          const behind = (each) => {
            for (; each; each = each.parentElement) {
              const colour = channels(getComputedStyle(each).backgroundColor);
              if (colour.length < 4 || colour[3] > 0) return colour;
            }
            return [255, 255, 255];
          };
          return [...document.querySelectorAll('p, h1, h2, label, button, dt, dd, a, strong')]
            .filter((each) => each.offsetParent && each.textContent.trim())
            .map((each) => {
              const pair = [channels(getComputedStyle(each).color), behind(each)].map(luminance).sort((a, b) => b - a);
              return [(pair[0] + 0.05) / (pair[1] + 0.05), each.textContent.slice(0, 40)];
            });
        }"""
    )
    assert len(ratios) > 10
    assert [each for each in ratios if each[0] < 4.5] == []


def test_without_webgl_it_segments_all_the_same(browser, server, tmp_path):
    page = browser.new_page()
    page.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")
    page.goto(f"http://localhost:{server[0].server_port}/")
    wait_for(page, "ready")
    opened = Opened(page, [], [], server[1])
    values = segment(opened, [write_image(tmp_path / "a.nii.gz")], tmp_path / "found.nii.gz")
    assert values.any()
    assert page.locator("#view").is_hidden()
    page.close()


def test_webgpu_gives_the_same_scores(browser, server, tmp_path):
    """On a graphics processor made of software, which a page takes only when it is told to."""
    flags = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan")
    chromium = browser.browser_type.launch(executable_path=CHROMIUM, args=[*FLAGS, *flags])
    page = chromium.new_page()
    page.goto(f"http://localhost:{server[0].server_port}/?backend=webgpu")
    wait_for(page, "ready")
    if not page.evaluate("navigator.gpu?.requestAdapter().then(Boolean)"):
        chromium.close()
        pytest.skip("this Chromium has no WebGPU")
    path = write_image(tmp_path / "a.nii.gz")
    values = segment(Opened(page, [], [], server[1]), [path], tmp_path / "found.nii.gz")
    assert "WebGPU" in page.locator("#engine").text_content()
    assert least_dice(values, LABELS.decode(predicted(server[1].model, [path]))) >= LEAST_DICE
    chromium.close()
