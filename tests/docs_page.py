"""What a person does on the page /docs, for tests in a browser."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from PIL import Image

from tests.browser import Page

TXT2IMG, IMG2IMG = "#post_api_txt2img", "#post_api_img2img"
# How far apart text and its ground are at the least, as WCAG 2 counts it.
CONTRAST = """(() => {
    const light = (colour) => { const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map((each) => {
        const part = each / 255; return part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4; });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
    const ground = (element) => { for (let each = element; each; each = each.parentElement) {
        const colour = getComputedStyle(each).backgroundColor;
        if (!colour.endsWith(", 0)")) return colour; } return "rgb(255, 255, 255)"; };
    const texts = [...document.querySelectorAll("h1, h2, p, a, code, th, label span, button, .method, .soft")]
        .filter((each) => each.checkVisibility());
    return Math.min(...texts.map((each) => { const pair = [light(getComputedStyle(each).color), light(ground(each))];
        return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05); }));
})()"""


def opened(page: Page, address: str, operation: str = TXT2IMG) -> Page:
    """The page at this operation, once the menus are there."""
    page.open(f"{address}/docs{operation}")
    page.wait(f"document.querySelector('{operation} .request-form') && document.querySelector('#menu-samplers option')")
    return page


def send(page: Page, operation: str = TXT2IMG) -> None:
    page.run(f"document.querySelector('{operation} button.send').click()")


def answer(page: Page, operation: str = TXT2IMG) -> str:
    """What is shown when all has come."""
    page.wait(f"document.querySelector('{operation} .response').textContent.match(/ after |Not sent/)")
    text: str = page.run(f"document.querySelector('{operation} .response').innerText")
    return text


def label(name: str, operation: str = TXT2IMG) -> str:
    """A script that is the label of this field."""
    found = f"[...document.querySelectorAll('{operation} .request-form label')]"
    return f"{found}.find((each) => each.firstChild.textContent === {json.dumps(name)})"


def box(name: str, operation: str = TXT2IMG) -> str:
    """A script that is the box of this field."""
    return f"{label(name, operation)}.querySelector('input, select')"


def put(page: Page, name: str, text: str, operation: str = TXT2IMG) -> None:
    """Types a text in place of what stands in the box."""
    page.run(f"""(() => {{
        for (let each = {box(name, operation)}; each; each = each.parentElement)
            if (each.matches("details")) each.open = true;
    }})()""")
    page.run(f"{box(name, operation)}.focus()")
    page.run(f"{box(name, operation)}.select()")
    page.send("Input.insertText", text=text)


def select(page: Page, name: str, choice: str, operation: str = TXT2IMG) -> None:
    """Chooses in a menu."""
    page.run(f"""(() => {{
        const box = {box(name, operation)};
        box.value = [...box.options].find((each) => each.textContent === {json.dumps(choice)}).value;
        for (const name of ["input", "change"]) box.dispatchEvent(new Event(name, {{ bubbles: true }}));
    }})()""")


def choices(page: Page, menu: str) -> list[str]:
    found: list[str] = page.run(f"[...document.querySelectorAll('#menu-{menu} option')].map((each) => each.value)")
    return found


def shown_json(page: Page, operation: str = TXT2IMG) -> Any:
    """The body, as its text tells it: of long texts, the beginning."""
    return json.loads(page.run(f"document.querySelector('{operation} textarea').value"))


def write_json(page: Page, text: str, operation: str = TXT2IMG) -> None:
    page.run(f"document.querySelector('{operation} textarea').focus()")
    page.run(f"document.querySelector('{operation} textarea').select()")
    page.send("Input.insertText", text=text)


def photo(folder: Path, name: str = "photo.png", size: int = 96) -> Path:
    path = folder / name
    Image.effect_noise((size, size), 200).save(path)
    return path


def sent_bodies(page: Page) -> None:
    """From now on, the page keeps the bodies that it sends in `window.sent`."""
    page.run("""(() => {
        const send = window.fetch;
        window.sent = [];
        window.fetch = (address, options = {}) => {
            if (options.body) window.sent.push(options.body);
            return send(address, options);
        };
    })()""")


def press(page: Page, words: str, operation: str = TXT2IMG) -> None:
    """The button, or link, with these words."""
    found = f"[...document.querySelectorAll('{operation} button, {operation} a')]"
    page.run(f"{found}.find((each) => each.textContent === {json.dumps(words)}).click()")


def open_all(page: Page, operation: str) -> None:
    folded = f"document.querySelectorAll('{operation} .request-form details')"
    page.run(f"[...{folded}].forEach((each) => {{ each.open = true; }})")


def line(page: Page, shell: str = "sh", operation: str = TXT2IMG) -> str:
    """The command line that is shown for a shell."""
    menu = f"document.querySelector('{operation} select[aria-label=Shell]')"
    page.run(f"{menu}.value = '{shell}'; {menu}.dispatchEvent(new Event('change'))")
    text: str = page.run(f"document.querySelector('{operation} .command').textContent")
    return text


def execute(command: str, folder: Path, **environ: str) -> str:
    """What a command line prints in a shell."""
    given = {"PATH": os.environ["PATH"]} | environ
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True, cwd=folder, env=given)
    return done.stdout
