"""The page of a run in a real browser: nothing missing, no errors, readable on a phone and in the dark."""

import json
import time

import pytest
from headless import Browser, find_browser
from report_pages import SUMMARY, entry, page_of, predictions, some_pictures, wavs, write_run

from m2dx.results.predictions import write_predictions
from m2dx.results.scores import write_scores

PROGRAM = find_browser()
pytestmark = pytest.mark.skipif(
    PROGRAM is None, reason="no Chromium here (Debian: apt-get install chromium; or name one in M2DX_BROWSER)"
)
SCREENS = {
    "desktop": {"width": 1280, "height": 900},
    "phone": {"width": 390, "height": 844, "phone": True},
    "narrow": {"width": 320, "height": 640, "phone": True},
}

# Every element with text of its own that can be seen, outside of drawings.
TEXTS = """[...document.querySelectorAll('body *')].filter(e => !e.closest('svg') && e.checkVisibility() &&
[...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()))"""

# Contrast by WCAG 2.2 of each such element with the colour behind it.
CONTRAST = """(() => {
const numbers = c => c.match(/[\\d.]+/g).map(Number);
const light = c => numbers(c).slice(0, 3).map(v => v / 255)
  .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const behind = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
  const n = numbers(c); if (n.length < 4 || n[3] > 0) return c; } return 'rgb(255, 255, 255)'; };
return TEXTS.map(e => { const [a, b] = [light(getComputedStyle(e).color), light(behind(e))].sort((x, y) => y - x);
  return [(a + 0.05) / (b + 0.05), e.tagName + ' ' + e.textContent.slice(0, 40)]; }).filter(([c]) => c < 4.5);
})()""".replace("TEXTS", TEXTS)


@pytest.fixture(scope="module")
def browser():
    with Browser(PROGRAM) as opened:
        yield opened


NO_WARNINGS = {"collapse_warnings": 0, "stopped_by": None, "missing": []}
LONG_NAME = "a-recording-with-a-name-that-no-phone-can-show-in-one-line-" * 3


def scored_page(run, sounds, *, name="a clip.wav", **classes):
    """The page of a run with tasks of so many classes each, by two protocols, of an encoder and two baselines."""
    scores = []
    for task, number in classes.items():
        found = predictions(wavs(sounds), names=[f"class {n:02}" for n in range(number)])
        for encoder, items in {**found, "random_weights": found["mean_logmel"]}.items():
            scores += [
                entry(encoder, 0.5, task=task, protocol=name, ci95=None, predictions=items)
                for name in ("knn", "linear")
            ]
    write_predictions(scores, run)
    write_scores(scores, run / "scores.json")
    page_of(run, some_pictures(name))
    return run / "report.html"


@pytest.fixture(scope="module")
def page(tmp_path_factory, sounds):
    run = write_run(tmp_path_factory.mktemp("page") / "small-run")
    (run / "bad_files.tsv").write_text(f"path\treason\n/data/{LONG_NAME}.wav\tmissing: no such file\n")
    return scored_page(run, sounds, name=f"{LONG_NAME}.wav", **{"instrument": 11, "drums": 60, LONG_NAME: 3})


@pytest.mark.parametrize("screen", SCREENS)
def test_the_page_loads_whole_and_fits(browser, page, screen):
    browser.open(page, **SCREENS[screen])
    assert browser.told("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown") == []
    urls = [told["request"]["url"] for told in browser.told("Network.requestWillBeSent")]
    assert urls[0] == page.as_uri()
    assert [url for url in urls[1:] if not url.startswith("data:")] == []
    pictures = browser.value("[...document.querySelectorAll('.strip svg image')].map(e => e.getBBox().width)")
    assert len(pictures) == 10
    assert browser.value("document.documentElement.scrollWidth <= window.innerWidth")
    assert browser.value("window.innerWidth") == SCREENS[screen]["width"]
    for box in browser.value(
        "[...document.querySelectorAll('table, pre, svg')].filter(e => e.checkVisibility())"
        ".map(e => [e.tagName, (e.closest('.scroll') || e).getBoundingClientRect().right])"
    ):
        assert box[1] <= SCREENS[screen]["width"], box
    for name, height in browser.value(
        "[...document.querySelectorAll('section')].map(e => [e.innerText, e.getBoundingClientRect().height])"
    ):
        assert height > 60, name


def test_text_is_large_enough_on_a_phone(browser, page):
    browser.open(page, **SCREENS["phone"])
    browser.value("document.querySelectorAll('details').forEach(e => e.open = true)")
    sizes = browser.value(f"{TEXTS}.map(e => [parseFloat(getComputedStyle(e).fontSize), e.tagName])")
    assert len(sizes) > 100
    assert [size for size in sizes if size[0] < 13] == []
    drawn = browser.value(
        "[...document.querySelectorAll('svg text')].map(e => e.getBoundingClientRect().height)"
    )
    assert len(drawn) > 50
    assert min(drawn) >= 15  # of a line, which is a little higher than its letters
    assert browser.value("document.documentElement.scrollWidth") == 390


def test_a_phone_shows_every_score_on_a_short_page_and_what_can_be_heard(browser, run, sounds):
    (run / "summary.json").write_text(json.dumps({**SUMMARY, **NO_WARNINGS}))
    (run / "scores_by_step.jsonl").unlink()
    browser.open(scored_page(run, sounds, instrument=11, drums=11), **SCREENS["phone"])
    assert browser.value("document.documentElement.scrollHeight") < 6500
    right = browser.value(
        "[...document.querySelectorAll('.scores td')].map(e => e.getBoundingClientRect().right)"
    )
    assert len(right) == 12 and max(right) <= 390
    assert browser.value("document.querySelector('nav').getBoundingClientRect().height") < 60
    heard = browser.value("""Promise.all([...document.querySelectorAll('audio')].map(e => new Promise(done => {
        e.onloadedmetadata = () => done(e.duration); e.onerror = () => done(-1); e.preload = 'metadata'; e.load();
    }))).then(all => { window.heard = all; }), 1""")
    assert heard == 1
    for _ in range(100):
        lengths = browser.value("window.heard")
        if lengths is not None:
            break
        time.sleep(0.1)
    assert len(lengths) > 3 and all(0.4 < length < 2.2 for length in lengths)


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_by_day_and_by_night(browser, page, dark):
    browser.open(page, **SCREENS["desktop"], dark=dark)
    browser.value("document.querySelectorAll('details').forEach(e => e.open = true)")
    assert browser.value(CONTRAST) == []
    background = browser.value("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") != dark


def test_the_contents_lead_to_the_sections(browser, page):
    browser.open(page, **SCREENS["phone"])
    links = browser.value("[...document.querySelectorAll('nav a')].map(e => e.textContent)")
    for number, title in enumerate(links):
        top = browser.value(
            f"document.querySelectorAll('nav a')[{number}].click(), document.querySelector(':target').innerText + '|' +"
            "document.querySelector(':target').getBoundingClientRect().top"
        )
        assert top.split("|")[0] == title
        assert -1 <= float(top.split("|")[1]) < 844, title
