"""Headless Chromium for tests of pages, and the pixels of a rendered element."""

import os
import shutil
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Browser, Locator, expect, sync_playwright

LIMIT_MS: Final = 30_000
"""How long a test waits for a page: a busy machine is slow. No test measures this time."""
expect.set_options(timeout=LIMIT_MS)
CHROMIUM: Final = "/usr/bin/chromium"
CHROMIUM_FLAGS: Final = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# Decodes a PNG in the page: its width, its height, and its RGBA bytes as base64.
DECODE: Final = """async (png) => {
  const bytes = Uint8Array.from(atob(png), (letter) => letter.charCodeAt(0));
  const image = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
  const context = new OffscreenCanvas(image.width, image.height).getContext("2d");
  context.drawImage(image, 0, 0);
  const { data } = context.getImageData(0, 0, image.width, image.height);
  let text = "";
  for (let i = 0; i < data.length; i += 32768) text += String.fromCharCode(...data.subarray(i, i + 32768));
  return [image.width, image.height, btoa(text)];
}"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Starts the browser. Where Chromium is not installed, the test is skipped, or fails in CI."""
    if shutil.which(CHROMIUM) is None:
        reason = f"no {CHROMIUM}: install Debian's package chromium"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


def pixels(locator: Locator) -> NDArray[np.int64]:
    """Returns the rendered element, shape (rows, columns, RGB); at a device scale of 1 one pixel is one CSS pixel."""
    png = b64encode(locator.screenshot()).decode()
    width, height, data = locator.page.evaluate(DECODE, png)
    return np.frombuffer(b64decode(data), np.uint8).reshape(height, width, 4)[:, :, :3].astype(np.int64)


def css_colour(locator: Locator, name: str) -> tuple[int, int, int]:
    """Returns the RGB value of a custom property of the style sheet."""
    text = locator.evaluate("(node, name) => getComputedStyle(node).getPropertyValue(name).trim()", name)
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)


def runs(hits: NDArray[np.bool_]) -> list[float]:
    """Returns the middle of each run of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], hits, [False])).astype(np.int8)))
    return [(start + end) / 2 for start, end in edges.reshape(-1, 2).tolist()]
