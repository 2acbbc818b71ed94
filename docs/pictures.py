"""Draw the pictures of the documentation again, for light and dark, wide and narrow pages: `make pictures`.

All are drawn from what the repository has: tables and reports of benchmarks and studies, and a network that is built.
Screenshots of the page of `make demo` are taken with `--page runs/demo/gates/gates.html --browser CHROMIUM`.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from senet.study.report.plots import draw_report
from senet.utils.figure_style import figure_theme

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path[:0] = [str(DOCS), str(ROOT / "benchmarks")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=DOCS, help="the folder of the pictures")
    parser.add_argument("--page", type=Path, help="draw a screenshot of this page of senet gates, and nothing else")
    parser.add_argument("--browser", help="the path of Chromium")
    args = parser.parse_args()
    if args.page:
        screenshots(args.page, args.output, args.browser)
    else:
        draw_all(args.output)


def draw_all(folder: Path) -> None:
    """Draw all pictures into a folder that is arranged as docs is."""
    import overview
    import page_charts

    overview.draw_all(folder)
    page_charts.draw_cpu(DOCS / "performance.md", folder)
    page_charts.draw_gpu(DOCS / "performance.md", folder)
    page_charts.draw_fine_tuning(DOCS / "fine-tuning.md", folder)
    for name, suffix in (("light", ""), ("dark", "-dark")):
        with figure_theme(name):  # type: ignore[arg-type]
            detector_sites(folder / f"sites{suffix}.png")
            for report in sorted((DOCS / "studies").glob("*/report.json")):
                data, place = json.loads(report.read_text(encoding="utf-8")), folder / report.parent.relative_to(DOCS)
                place.mkdir(parents=True, exist_ok=True)
                draw_report(data, place / f"report{suffix}.png")
                draw_report(data, place / f"report-narrow{suffix}.png", narrow=True)


def screenshots(page: Path, folder: Path, browser: str | None) -> None:
    """Take screenshots of the top of a page of `senet gates`."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        for name, suffix in (("light", ""), ("dark", "-dark")):
            for width, (across, down, scale) in {"": (1000, 990, 1.4), "-narrow": (400, 1080, 1.8)}.items():
                size: Any = {"width": across, "height": down}
                context = started.new_context(viewport=size, color_scheme=name, device_scale_factor=scale)  # type: ignore[arg-type]
                opened = context.new_page()
                opened.goto(page.absolute().as_uri())
                opened.wait_for_selector("html[data-ready]")
                opened.screenshot(path=folder / f"gates{width}{suffix}.png")
                context.close()
        started.close()


def detector_sites(path: Path) -> None:
    """Draw the detector of the examples with its sites, as `senet sites --plot` does."""
    from senet.cli.common.networks import open_network
    from senet.cli.common.site_report import draw, find

    name = "examples/insertion/detector.py:Detector"
    draw(find(open_network(str(ROOT / name), None, None), "standard"), str(path), Path(name).name)


if __name__ == "__main__":
    main()
