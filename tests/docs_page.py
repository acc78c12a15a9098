"""Actions on the /docs page, for tests in a browser."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from PIL import Image

from tests.browser import Page

TXT2IMG, IMG2IMG = "#post_api_txt2img", "#post_api_img2img"
# The lowest contrast of text and background on the page, as defined by WCAG 2.
CONTRAST = """(() => {
    const luminance = (colour) => { const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map((channel) => {
        const part = channel / 255; return part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4; });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
    const background = (element) => { for (let node = element; node; node = node.parentElement) {
        const colour = getComputedStyle(node).backgroundColor;
        if (!colour.endsWith(", 0)")) return colour; } return "rgb(255, 255, 255)"; };
    const texts = [...document.querySelectorAll("h1, h2, p, a, code, th, label span, button, .method, .soft")]
        .filter((node) => node.checkVisibility());
    return Math.min(...texts.map((node) => {
        const pair = [luminance(getComputedStyle(node).color), luminance(background(node))];
        return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05); }));
})()"""


def opened(page: Page, address: str, operation: str = TXT2IMG) -> Page:
    """Open the page at an operation, and wait for its menus."""
    page.open(f"{address}/docs{operation}")
    page.wait(f"document.querySelector('{operation} .request-form') && document.querySelector('#menu-samplers option')")
    return page


def send(page: Page, operation: str = TXT2IMG) -> None:
    page.run(f"document.querySelector('{operation} button.send').click()")


def answer(page: Page, operation: str = TXT2IMG) -> str:
    """Wait for the response. Returns its text."""
    page.wait(f"document.querySelector('{operation} .response').textContent.match(/ after |Not sent/)")
    text: str = page.run(f"document.querySelector('{operation} .response').innerText")
    return text


def label(name: str, operation: str = TXT2IMG) -> str:
    """A script that evaluates to the label of a field."""
    labels = f"[...document.querySelectorAll('{operation} .request-form label')]"
    return f"{labels}.find((node) => node.firstChild.textContent === {json.dumps(name)})"


def box(name: str, operation: str = TXT2IMG) -> str:
    """A script that evaluates to the input of a field."""
    return f"{label(name, operation)}.querySelector('input, select')"


def put(page: Page, name: str, text: str, operation: str = TXT2IMG) -> None:
    """Replace the text of an input by typing."""
    page.run(f"""(() => {{
        for (let node = {box(name, operation)}; node; node = node.parentElement)
            if (node.matches("details")) node.open = true;
    }})()""")
    page.run(f"{box(name, operation)}.focus()")
    page.run(f"{box(name, operation)}.select()")
    page.send("Input.insertText", text=text)


def select(page: Page, name: str, choice: str, operation: str = TXT2IMG) -> None:
    """Select an option of a menu."""
    page.run(f"""(() => {{
        const box = {box(name, operation)};
        box.value = [...box.options].find((node) => node.textContent === {json.dumps(choice)}).value;
        for (const name of ["input", "change"]) box.dispatchEvent(new Event(name, {{ bubbles: true }}));
    }})()""")


def choices(page: Page, menu: str) -> list[str]:
    values: list[str] = page.run(f"[...document.querySelectorAll('#menu-{menu} option')].map((node) => node.value)")
    return values


def shown_json(page: Page, operation: str = TXT2IMG) -> Any:
    """The body in the JSON editor, where long texts are abbreviated."""
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
    """Make the page record the bodies that it sends in `window.sent`."""
    page.run("""(() => {
        const send = window.fetch;
        window.sent = [];
        window.fetch = (address, options = {}) => {
            if (options.body) window.sent.push(options.body);
            return send(address, options);
        };
    })()""")


def press(page: Page, text: str, operation: str = TXT2IMG) -> None:
    """Click the button or link with this label."""
    buttons = f"[...document.querySelectorAll('{operation} button, {operation} a')]"
    page.run(f"{buttons}.find((node) => node.textContent === {json.dumps(text)}).click()")


def open_all(page: Page, operation: str) -> None:
    details = f"document.querySelectorAll('{operation} .request-form details')"
    page.run(f"[...{details}].forEach((node) => {{ node.open = true; }})")


def line(page: Page, shell: str = "sh", operation: str = TXT2IMG) -> str:
    """The command line of a shell."""
    menu = f"document.querySelector('{operation} select[aria-label=Shell]')"
    page.run(f"{menu}.value = '{shell}'; {menu}.dispatchEvent(new Event('change'))")
    text: str = page.run(f"document.querySelector('{operation} .command').textContent")
    return text


def execute(command: str, folder: Path, **environ: str) -> str:
    """Run a command line in a shell. Returns its output."""
    variables = {"PATH": os.environ["PATH"]} | environ
    shell = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True, cwd=folder, env=variables)
    return shell.stdout
