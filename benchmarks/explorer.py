"""From drag to picture: how long `steadygrad explore` takes for LeNet in a browser: `python -m benchmarks.explorer`.

Nothing is known yet of the steps of the slider; the time is from the input event to the frame in which the new picture
stands. Needs the extra `study`, Playwright and chromium. An untrained LeNet costs what a trained one does.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
from pathlib import Path

import torch

import steadygrad as sg

_DRAG = """async (steps) => {
  const slider = document.querySelector("#step"), picture = document.querySelector(".model .image"), times = [];
  for (const step of steps) {
    slider.value = step;
    const shown = new Promise((done) => { picture.onload = () => requestAnimationFrame(done); });
    const began = performance.now();
    slider.dispatchEvent(new Event("input"));
    await shown;
    times.push(performance.now() - began);
  }
  return times;
}"""


def times(images: int, attack: sg.attacks.Attack, chromium: str) -> list[float]:
    """Milliseconds of each step, of the first ones of a new data set."""
    import uvicorn
    from playwright.sync_api import sync_playwright

    from steadygrad.explore.app import app_of
    from steadygrad.explore.live import Live
    from steadygrad.explore.opened import open_run
    from steadygrad.serving.port import address, bound

    x = torch.rand(40, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    data = sg.data.from_arrays(x.numpy(), [i % 10 for i in range(40)], 10)
    model = sg.models.build("lenet", data.shape, data.classes)
    few = {"checked": 4, "gallery": 1, "mapped": 0, "checks": False, "curve": False, "distances": False}
    with tempfile.TemporaryDirectory() as folder, bound("127.0.0.1", 0) as taken, sync_playwright() as driver:
        sg.audit({"lenet": model}, data, sg.linf(0.1), out=Path(folder) / "run", attacks=[attack], **few)
        run = open_run(Path(folder) / "run", {"lenet": model}, data)
        server = uvicorn.Server(uvicorn.Config(app_of(Live(run)), log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [taken]})
        thread.start()
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        try:
            page, found = browser.new_page(), []
            page.goto(address(taken))
            for name in run.data.ids[1 : images + 1]:
                page.get_by_label("Any sample").select_option(name)
                page.wait_for_timeout(500)
                steps = [step for step in range(1, 41) if step % 5]
                found += page.evaluate(_DRAG, steps)
            return found
        finally:
            browser.close()
            server.should_exit = True
            thread.join()


def main() -> None:
    """Print the median and the slow end."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=3)
    parser.add_argument("--steps", type=int, default=30, help="of PGD")
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    given = parser.parse_args()
    found = times(given.images, sg.attacks.PGD(steps=given.steps), given.chromium)
    late = statistics.quantiles(found, n=20)[-1]
    print(f"LeNet, PGD of {given.steps} steps, two maps: {len(found)} drags, from drag to picture")
    print(f"median {statistics.median(found):.0f} ms, 95th percentile {late:.0f} ms, longest {max(found):.0f} ms")


if __name__ == "__main__":
    main()
