"""Make the pictures of the top page and of docs/comparing.md: figures, and a report in a browser.

make pictures
"""

import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

HERE = Path(__file__).parent
QUICKSTART, SWEEP = Path("runs/quickstart"), Path("runs/defence_by_attack")
ON_TOP = "suppression"  # of the quickstart
COMPARING = HERE / "comparing"
COLOURS = 256  # of a picture: half the bytes, and no difference to be seen
SCREENS = {
    "page": {"viewport": {"width": 1100, "height": 900}, "color_scheme": "light"},
    "phone": {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"},
}


def command(*arguments: object) -> None:
    """Run a command of the testbed's."""
    code = "from fl_testbed.cli import main; main()"
    subprocess.run([sys.executable, "-c", code, *map(str, arguments)], check=True)


def keep(picture: Path, folder: Path) -> None:
    """Put a picture beside its page, small."""
    with Image.open(picture) as image:
        few = image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
        few.save(folder / picture.name, optimize=True)


def screenshots(browser: Browser, page_file: Path) -> None:
    """Picture a report as a desk and a phone show it."""
    for name, settings in SCREENS.items():
        page = browser.new_page(**settings)
        page.goto(page_file.resolve().as_uri())
        page.get_by_role("button", name="worst group").first.click()  # sorted by it
        picture = SWEEP / f"{name}.png"
        page.screenshot(path=picture)
        keep(picture, COMPARING)
        picture.unlink()


def main() -> None:
    """Run the sweeps, if that was not done before, and picture them."""
    for sweep in (QUICKSTART, SWEEP):
        command("run", f"configs/{sweep.name}.yaml", "--report")
    keep(QUICKSTART / "figures" / f"{ON_TOP}.png", HERE / "quickstart")
    for picture in sorted((SWEEP / "figures").glob("*.png")):
        keep(picture, COMPARING)
    with sync_playwright() as driver:
        path = shutil.which("chromium") or driver.chromium.executable_path
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        screenshots(browser, SWEEP / "report.html")
        browser.close()


if __name__ == "__main__":
    main()
