"""The page in Chromium: one browser and one server for all tests."""

import base64
import itertools
import os
import sys
import threading

import pytest

from serving.browser import INSTALL, PROGRAM, Browser
from serving.sendable import astronaut, header_of_png, webp_lying

pytestmark = [pytest.mark.slow, pytest.mark.skipif(PROGRAM is None, reason=INSTALL)]

STATUS = "document.getElementById('status').textContent"
PROBLEM = "document.getElementById('problem').textContent"
FOUND = f"{STATUS}.includes('found') && {STATUS}"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    astronaut().save(folder / "astronaut.jpg", quality=95)
    astronaut().save(folder / "astronaut.tif")
    (folder / "junk.jpg").write_text("no picture")
    (folder / "huge.png").write_bytes(header_of_png(20_000, 10_000))
    with (folder / "heavy.jpg").open("wb") as stream:
        stream.truncate(40 * 2**20)
    return folder


@pytest.fixture(scope="module")
def address(predictor):
    from fer.serving import app, card, server
    from fer.serving.limits import Limits

    listening = server.bound("127.0.0.1", 0)
    text = card.text_of("tiny", predictor.network)
    running = server.server(app.build(predictor, "tiny", card.page(text)), Limits())
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
    thread.start()
    yield server.address(listening, "127.0.0.1")
    running.should_exit = True
    thread.join(20)
    listening.close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("browser"))
    yield browser
    browser.close()


@pytest.fixture
def opened(browser, address):
    """Return a function that opens the page; its tabs must load nothing from elsewhere and report no error."""
    tabs = []

    def opened(**options):
        tabs.append(browser.tab(address, **options))
        tabs[-1].until("document.documentElement?.dataset.ready")
        return tabs[-1]

    yield opened
    for tab in tabs:
        requested = [event["request"]["url"] for event in tab.events("Network.requestWillBeSent")]
        assert requested
        assert not [url for url in requested if not url.startswith((address, "blob:", "data:"))]
        assert tab.events("Runtime.exceptionThrown") == []
        blocked = [event["entry"]["text"] for event in tab.events("Log.entryAdded")]
        assert not [text for text in blocked if "Content Security Policy" in text]
        tab.close()


def answered(tab):
    """Return the title of the first face of an answer, once it is there."""
    tab.until(FOUND)
    return tab.run("document.querySelector('#faces h3').textContent")


def test_a_chosen_picture_is_marked_and_described_and_mapped_on_request(opened, pictures):
    tab = opened()
    tab.choose(pictures / "astronaut.jpg")
    assert answered(tab) == "Face 1: happy"
    assert tab.run(STATUS) == "1 face found: face 1 happy."
    assert tab.run("document.querySelector('#faces p').textContent") == "Only happy fits."
    assert "in 90 of 100 cases" in tab.run("document.getElementById('notes').textContent")
    bars = tab.run("[...document.querySelectorAll('#faces tr')].map(row => row.innerText.split(/\\s+/)[0])")
    assert bars[0] == "happy"
    assert len(bars) == 7
    width = tab.run("document.querySelector('.track div').getBoundingClientRect().width")
    track = tab.run("document.querySelector('.track').getBoundingClientRect().width")
    assert 0.8 < width / track < 1
    picture, box = (
        tab.run(f"(r => [r.x, r.y, r.width, r.height])(document.querySelector('{name}').getBoundingClientRect())")
        for name in ("#image", "#boxes .box")
    )
    shares = [(box[0] - picture[0]) / picture[2], (box[1] - picture[1]) / picture[3], box[2] / picture[2]]
    assert shares == pytest.approx([52 / 200, 51 / 200, 97 / 200], abs=0.04)  # where the face is
    tab.run("document.getElementById('maps').click()")
    tab.until("document.querySelector('.map')?.naturalWidth")
    assert tab.run("document.getElementById('maps').getAttribute('aria-pressed')") == "true"
    # the pressed state says it; a label that changed too would say the opposite
    assert tab.run("document.getElementById('maps').textContent") == "Show what the network looks at"
    tab.run("document.getElementById('maps').click()")
    tab.until("!document.querySelector('.map')")


def dropped(tab, *files, items=()):
    """Drop files, or other things, on the page."""
    data = {"items": list(items), "files": [str(file) for file in files], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        tab.do("Input.dispatchDragEvent", type=kind, x=600, y=300, data=data)


def test_dropped(opened, pictures):
    tab = opened()
    dropped(tab, pictures / "astronaut.jpg")
    assert answered(tab) == "Face 1: happy"
    dropped(tab, items=[{"mimeType": "text/plain", "data": "words"}])
    assert "no file" in tab.until(PROBLEM)


def test_of_several_files_the_first_is_taken_and_that_is_said(opened, pictures):
    tab = opened()
    dropped(tab, pictures / "astronaut.jpg", pictures / "junk.jpg")
    assert answered(tab) == "Face 1: happy"
    assert "2 files the first" in tab.run(STATUS)
    dropped(tab, pictures / "junk.jpg", pictures / "astronaut.jpg")
    assert "expected JPEG" in tab.until(PROBLEM)
    assert "junk.jpg" in tab.run(STATUS)
    dropped(tab, pictures / "astronaut.jpg")
    tab.until(FOUND)
    assert "2 files" not in tab.run(STATUS)


def test_a_folder_is_no_file_and_a_file_that_changes_is_kept(opened, pictures, tmp_path):
    tab = opened()
    dropped(tab, tmp_path)
    assert "a folder" in tab.until(PROBLEM)
    assert tab.run(STATUS) == ""
    file = tmp_path / "changing.jpg"
    file.write_bytes((pictures / "astronaut.jpg").read_bytes())
    tab.choose(file)
    assert answered(tab) == "Face 1: happy"
    file.write_bytes(b"another")
    tab.run("document.getElementById('maps').click()")
    assert tab.until(f"document.querySelector('.map')?.naturalWidth || {PROBLEM}") > 0


def test_webp_lies_upright_under_its_boxes(opened, tmp_path):
    """Chromium does not turn WebP by its EXIF."""
    picture = astronaut().crop((0, 0, 200, 180))
    picture.paste((255, 0, 0), (0, 0, 20, 20))
    tab = opened()
    for orientation in (3, 6):
        (tmp_path / "lying.webp").write_bytes(webp_lying(picture, orientation))
        tab.choose(tmp_path / "lying.webp")
        assert answered(tab) == "Face 1: happy"
        tab.run("document.getElementById('image').decode()")
        assert tab.run("document.getElementById('image').naturalWidth") == 200
        corner = tab.run("""(() => {
            const context = new OffscreenCanvas(200, 180).getContext("2d");
            context.drawImage(document.getElementById("image"), 0, 0);
            return [...context.getImageData(10, 10, 1, 1).data];
        })()""")
        assert corner == [255, 0, 0, 255]


HELD = """const real = window.fetch;
window.fetch = async (address, options) => {
    if (address === "about") await new Promise((resolve) => { window.release = resolve; });
    return real(address, options);
};"""


def test_a_picture_chosen_before_the_page_is_ready_is_taken_then(browser, address, pictures):
    tab = browser.tab("about:blank")
    tab.do("Page.addScriptToEvaluateOnNewDocument", source=HELD)
    tab.do("Page.navigate", url=address)
    tab.until("!!window.release")
    tab.choose(pictures / "astronaut.jpg")
    assert "loading" in tab.until(STATUS)
    tab.run("release()")
    assert answered(tab) == "Face 1: happy"
    tab.close()


def test_numbers_on_boxes_keep_their_size_on_the_screen(opened, pictures):
    tab = opened()
    tab.choose(pictures / "astronaut.jpg")
    answered(tab)
    heights = (
        "['.plate', 'text'].map((part) => document.querySelector(`#boxes ${part}`).getBoundingClientRect().height)"
    )
    sides = []
    for width in (1280, 390, 1280):
        tab.look(width, 844, dark=False)
        tab.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        sides.append(tab.run(heights))
    assert [plate for plate, _ in sides] == pytest.approx([22, 22, 22], abs=0.5)
    assert [number for _, number in sides] == pytest.approx([sides[0][1]] * 3, abs=1)
    plate, number = tab.run("""['.plate', 'text'].map((name) => {
        const { x, y, width, height } = document.querySelector(`#boxes ${name}`).getBoundingClientRect();
        return [x + width / 2, y + height / 2];
    })""")
    assert number == pytest.approx(plate, abs=2)  # its middle


GROUNDS = """['#faces .track', '#faces .in-set .track div', '#faces tr:not(.in-set) .track div', '#maps', '#open',
    '.swatch.for', '.swatch.against'].map((name) => getComputedStyle(document.querySelector(name)).backgroundColor)"""


def test_bars_swatches_and_pressed_buttons_are_seen_in_themes_of_high_contrast(opened, pictures, tmp_path):
    tab = opened()
    tab.do("Emulation.setEmulatedMedia", features=[{"name": "forced-colors", "value": "active"}])
    tab.choose(pictures / "astronaut.jpg")
    answered(tab)
    tab.run("document.getElementById('maps').click()")
    tab.until("document.querySelector('.map')?.naturalWidth")
    track, likely, other, pressed, button, speaks_for, against = tab.run(GROUNDS)
    assert len({track, likely, other}) == 3
    assert pressed != button
    assert speaks_for != against
    assert tab.run("getComputedStyle(document.querySelector('#boxes text')).fill") == "rgb(255, 255, 255)"
    tab.screenshot(tmp_path / "contrast.png")


def test_pasted(opened, pictures, address):
    tab = opened()
    tab.do("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"], origin=address)
    tab.do("Page.bringToFront")
    contents = base64.b64encode((pictures / "astronaut.jpg").read_bytes()).decode()
    tab.run(f"""(async () => {{
        const bytes = Uint8Array.from(atob("{contents}"), letter => letter.charCodeAt(0));
        const bitmap = await createImageBitmap(new Blob([bytes], {{type: "image/jpeg"}}));
        const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
        canvas.getContext("2d").drawImage(bitmap, 0, 0);
        await navigator.clipboard.write([new ClipboardItem({{"image/png": await canvas.convertToBlob()}})]);
    }})()""")
    tab.key("v", 86, modifiers=2, commands=["paste"])
    assert answered(tab) == "Face 1: happy"


def test_the_camera_takes_a_picture_and_is_released(opened):
    tab = opened()
    tab.run("document.getElementById('camera').click()")
    tab.until("document.getElementById('video').currentTime > 0")  # its first picture
    tab.run("window.track = document.getElementById('video').srcObject.getTracks()[0]")
    assert tab.run("document.activeElement.id") == "shoot"
    tab.run("document.getElementById('shoot').click()")
    assert tab.until(f"{STATUS}.toLowerCase().includes('face') && !{STATUS}.includes('…') && {STATUS}")
    assert tab.until("document.getElementById('image').naturalWidth") >= 640
    assert tab.run("[track.readyState, document.getElementById('viewfinder').hidden]") == ["ended", True]


def test_what_is_no_picture_is_said_and_the_next_one_works(opened, pictures):
    tab = opened()
    for name, words in (("junk.jpg", "expected JPEG"), ("huge.png", "20000x10000"), ("heavy.jpg", "limit is 32 MB")):
        tab.choose(pictures / name)
        assert words in tab.until(f"{PROBLEM}.includes('{words}') && {PROBLEM}")
        assert tab.run("document.getElementById('result').hidden")
        assert tab.run(STATUS) == ""
    tab.choose(pictures / "astronaut.tif")  # which Chromium cannot show
    assert answered(tab) == "Face 1: happy"
    assert tab.run("document.getElementById('problem').hidden")
    assert tab.until("!document.getElementById('unseen').hidden")
    assert tab.run("document.getElementById('boxes').getBoundingClientRect().height") > 100


def test_two_tabs_at_once_and_the_later_picture_wins(opened, pictures):
    one, other = opened(), opened()
    one.choose(pictures / "junk.jpg")
    one.choose(pictures / "astronaut.jpg")
    other.choose(pictures / "astronaut.jpg")
    assert (answered(one), answered(other)) == ("Face 1: happy", "Face 1: happy")
    assert one.run("document.getElementById('problem').hidden")


def test_the_keyboard_alone_reaches_everything(opened, pictures, address):
    tab = opened()
    tab.choose(pictures / "astronaut.jpg")
    answered(tab)
    tab.do("Page.bringToFront")
    focused = []
    for _ in range(9):
        tab.key("Tab", 9)
        focused.append(tab.run("document.activeElement.id || document.activeElement.textContent"))
        if focused[-1] == "maps":
            break
    assert focused == ["Picture", "card", "EU AI Act", "light", "open", "camera", "maps"]
    assert tab.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    tab.key("Enter", 13, text="\r")
    assert tab.until("!!document.querySelector('.map')")
    tab.run("document.getElementById('open').focus()")
    tab.do("Page.setInterceptFileChooserDialog", enabled=True)
    tab.key("Enter", 13, text="\r")
    assert tab.until("true")
    assert tab.events("Page.fileChooserOpened")


def test_screen_readers_get_names(opened, pictures):
    tab = opened()
    tab.choose(pictures / "astronaut.jpg")
    answered(tab)
    tab.run("document.getElementById('maps').click()")
    tab.until("document.querySelector('.map')?.naturalWidth")
    nodes = [node for node in tab.do("Accessibility.getFullAXTree")["nodes"] if not node.get("ignored")]
    named = {}
    for node in nodes:
        named.setdefault(node["role"]["value"], []).append(node.get("name", {}).get("value", ""))
    for role in ("button", "link", "image", "heading", "table", "region"):
        assert named[role], role
        assert all(name.strip() for name in named[role]), (role, named[role])
    assert {"The picture; 1 face marked", "What speaks for happy on face 1"} <= set(named["image"])
    assert named["button"].count("Choose a picture") == 1
    assert len(named["status"]) == 1
    assert tab.run("document.documentElement.lang") == "en"
    levels = tab.run("[...document.querySelectorAll('h1, h2, h3')].filter(h => h.offsetParent).map(h => +h.tagName[1])")
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    ids = tab.run("[...document.querySelectorAll('[id]')].map(one => one.id)")
    assert len(ids) == len(set(ids))


CONTRAST = """(() => {
  const light = c => { c /= 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
  const of = rgb => 0.2126 * light(rgb[0]) + 0.7152 * light(rgb[1]) + 0.0722 * light(rgb[2]);
  const rgba = text => text.match(/[\\d.]+/g).map(Number);
  const ground = one => { for (; one; one = one.parentElement) {
    const found = rgba(getComputedStyle(one).backgroundColor);
    if (found.length < 4 || found[3] === 1) return found; } return [255, 255, 255]; };
  const bad = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let seen = 0;
  while (walker.nextNode()) {
    const one = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !one.checkVisibility() || one.closest("svg")) continue;
    const [a, b] = [of(rgba(getComputedStyle(one).color)), of(ground(one))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    seen++;
    if (ratio < 4.5) bad.push([walker.currentNode.data.trim().slice(0, 30), ratio]);
  }
  return [seen, bad];
})()"""


@pytest.mark.parametrize("dark", [False, True])
def test_contrast_and_width_of_screens(opened, pictures, tmp_path, dark):
    tab = opened(dark=dark)
    tab.choose(pictures / "astronaut.jpg")
    answered(tab)
    grounds = set()
    for width in (1280, 390):
        tab.look(width, 844, dark=dark)
        counted, bad = tab.run(CONTRAST)
        assert bad == []
        assert counted > 30
        assert tab.run("document.documentElement.scrollWidth") <= width
        small = (
            "[...document.querySelectorAll('main button')].filter(b => b.offsetParent && b.offsetHeight < 44).length"
        )
        assert tab.run(small) == 0
        tab.screenshot(tmp_path / f"{width}.png")
        grounds.add(tab.run("getComputedStyle(document.body).backgroundColor"))
    assert grounds == {"rgb(18, 22, 28)" if dark else "rgb(247, 248, 250)"}  # the theme's


@pytest.fixture(scope="module")
def written():
    """Return a list that gets the names of files that this process opens for writing while it is ``watched``."""
    found, watched = [], threading.Event()

    def hook(event, arguments):
        flags = arguments[2] if event == "open" and watched.is_set() else None
        if flags is not None and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            found.append(arguments[0])

    sys.addaudithook(hook)  # stays for ever, hence the event
    return found, watched


def test_no_file_is_written(opened, large, tmp_path, written):
    found, watched = written
    (tmp_path / "large.bmp").write_bytes(large)
    tab = opened()
    watched.set()
    tab.choose(tmp_path / "large.bmp")
    tab.until(f"{STATUS}.includes('No face') && {STATUS}")
    watched.clear()
    assert found == []


def test_the_card_and_the_law_are_one_click_away(opened, address):
    tab = opened()
    assert tab.run("document.getElementById('card').href") == f"{address}card"
    assert "Article 5(1)(f)" in tab.run(
        "document.querySelector(document.querySelector('[href=\"#law\"]').hash).innerText"
    )
    tab.do("Page.navigate", url=f"{address}card")
    assert tab.until("document.querySelector('.text h1')?.textContent").startswith("resnet9")


def test_a_stopped_server_is_said(opened, pictures):
    tab = opened()
    tab.do("Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=-1, uploadThroughput=-1)
    tab.choose(pictures / "astronaut.jpg")
    assert "Is fer serve still running?" in tab.until(PROBLEM)
    tab.do("Network.emulateNetworkConditions", offline=False, latency=0, downloadThroughput=-1, uploadThroughput=-1)
    tab.choose(pictures / "astronaut.jpg")
    assert answered(tab) == "Face 1: happy"
