"""What people who look on cost a run: its step time without and with viewers, in turns, and what they get.

    python benchmarks/viewers.py [--viewers 20] [--steps 10] [--turns 2]
    python benchmarks/viewers.py --memory 10          minutes of a made-up run that grows by a step a second: the server's memory

One browser page opens the run and shows what a page asks for; each viewer then asks for the same, in a session of its own: once a second
whether anything changed, and if so for the screen. They ask from this machine, so that asking is part of what slows the run: its
processor time is given.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from explorer import chromium, serve

from proxsparse import LearnConfig, LearnJob, Run

TICK_SECONDS = 1.0
FIRST = 3  # steps that warm up, and are not counted


def request_of_a_tick(address: str, id: str) -> dict:
    """What an open page asks for once a second."""
    from playwright.sync_api import sync_playwright

    asked: list[dict] = []
    with sync_playwright() as playwright:
        page = chromium(playwright).new_page()
        page.on(
            "request", lambda request: asked.append(request.post_data_json) if "queue/join" in request.url else None
        )
        page.goto(f"{address}/?run={id}")
        page.locator("#chart-curve .main-svg").first.wait_for(timeout=120_000)
        time.sleep(8)
    return next(each for each in reversed(asked) if each["data"][:2] == [id, "learn"])


class Viewer(threading.Thread):
    """Asks once a second, from its own session, until told to stop. seconds: of each look at the screen; bytes: of all answers."""

    def __init__(self, address: str, tick: dict, number: int, over: threading.Event):
        super().__init__(daemon=True)
        self.place, self.over, self.number = urlsplit(address).netloc, over, number
        self.session = f"viewer{number}"
        self.asked = json.dumps(tick | {"session_hash": self.session})
        self.run_shown, self.known = tick["data"][0], b""
        self.seconds: list[float] = []
        self.bytes = 0

    def run(self) -> None:
        connection = http.client.HTTPConnection(self.place, timeout=60)
        time.sleep(TICK_SECONDS * (self.number % 20) / 20)
        while not self.over.is_set():
            began = time.perf_counter()
            connection.close()  # the server closes what is idle for some seconds; it is opened again
            connection.request("GET", f"/changed?run={self.run_shown}")
            answer = connection.getresponse().read()
            self.bytes += len(answer)
            now, stands = answer.split()
            if now != self.known:
                self.known, asked = now, time.perf_counter()
                self.bytes += self.look(connection)
                self.seconds.append(time.perf_counter() - asked)
            self.over.wait(max(0.0, max(TICK_SECONDS, float(stands)) - (time.perf_counter() - began)))

    def look(self, connection: http.client.HTTPConnection) -> int:
        connection.request("POST", "/gradio_api/queue/join", self.asked, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise SystemExit(f"The server refused a tick with {answer.status}: {body[:200]!r}")
        connection.request("GET", f"/gradio_api/queue/data?session_hash={self.session}")
        body = connection.getresponse().read()  # the stream ends with the answer
        if b'"success":true' not in body.replace(b" ", b""):
            raise SystemExit(f"A tick failed: {body[-300:]!r}")
        return len(body)


def wait_for_step(run: Run, step: int) -> None:
    while (state := run.state())["step"] < step:
        if state["status"] not in ("starting", "running"):
            raise SystemExit(f"The run is {state['status']}: {state.get('error') or state['doing']}")
        time.sleep(0.2)


def memory_over(minutes: int, count: int) -> None:
    """The server's memory after each minute, while everybody looks on."""
    from made_runs import add_steps, made_run, set_state

    with tempfile.TemporaryDirectory() as folder:
        run = made_run(Path(folder) / "growing", blocks=30, steps=10, total=10_000)
        address, process = serve(folder)
        over, resident = threading.Event(), []
        try:
            tick = request_of_a_tick(address, run.id)
            viewers = [Viewer(address, tick, number, over) for number in range(count)]
            for viewer in viewers:
                viewer.start()
            for second in range(60 * minutes):
                add_steps(run, 11 + second, 11 + second)
                set_state(run, "stopped", 11 + second)
                time.sleep(1)
                if second % 60 == 59:
                    resident.append(psutil.Process(process.pid).memory_info().rss / 1e6)
            over.set()
            for viewer in viewers:
                viewer.join()
        finally:
            process.terminate()
            process.wait(20)
    looks = sum(len(viewer.seconds) for viewer in viewers)
    print(
        f"{count} viewers, {looks} looks, memory of the server after each minute: {', '.join(f'{each:.0f}' for each in resident)} MB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--viewers", type=int, default=20)
    parser.add_argument("--steps", type=int, default=10, help="of each turn")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--memory", type=int, metavar="MINUTES", help="only look whether memory grows")
    arguments = parser.parse_args()
    if arguments.memory:
        return memory_over(arguments.memory, arguments.viewers)
    steps = 60 + 2 * arguments.turns * arguments.steps  # it is stopped before the last
    around = {"evaluate_every": 5, "checkpoint_every": 0, "windows": 1, "live_windows": 1}
    with tempfile.TemporaryDirectory() as folder:
        address, process = serve(folder)
        server = psutil.Process(process.pid)
        run = Run.create(LearnJob(**around, learn=LearnConfig(steps=steps, metric_windows=2)), Path(folder) / "watched")
        worker = run.start()
        try:
            wait_for_step(run, 1)
            tick = request_of_a_tick(address, run.id)
            begin = run.state()["step"] + 2
            wait_for_step(run, begin)
            alone, watched, seconds, looks, sizes, spent, memory = [], [], [], [], [], [], []
            for _ in range(arguments.turns):
                for count in (0, arguments.viewers):
                    over = threading.Event()
                    viewers = [Viewer(address, tick, number, over) for number in range(count)]
                    before = (time.perf_counter(), sum(server.cpu_times()[:2]), time.process_time())
                    for viewer in viewers:
                        viewer.start()
                    wait_for_step(run, begin + arguments.steps)
                    over.set()
                    for viewer in viewers:
                        viewer.join()
                    took = time.perf_counter() - before[0]
                    steps_table = run.table("steps")
                    turn = steps_table[(steps_table["step"] > begin) & (steps_table["step"] <= begin + arguments.steps)]
                    (watched if count else alone).extend(turn["seconds"])
                    begin += arguments.steps
                    if count:
                        seconds += [each for viewer in viewers for each in viewer.seconds]
                        looks.append(sum(len(viewer.seconds) for viewer in viewers) / took / count)
                        sizes.append(sum(viewer.bytes for viewer in viewers) / took / count)
                        spent.append(
                            ((sum(server.cpu_times()[:2]) - before[1]) / took, (time.process_time() - before[2]) / took)
                        )
                        memory.append(server.memory_info().rss / 1e6)
        finally:
            worker.terminate()
            worker.wait()
            process.terminate()
            process.wait(20)
    serving, asking = np.mean(spent, axis=0)
    print(
        f"| {arguments.viewers} viewers, {arguments.turns} × {arguments.steps} steps without and with them | |\n|---|---|"
    )
    print(f"| median step without viewers | {np.median(alone):.2f} s |")
    print(f"| with them, over without | {np.median(watched) / np.median(alone):.3f} |")
    print(f"| a look: median, 95% | {np.median(seconds):.2f} s, {np.percentile(seconds, 95):.2f} s |")
    print(f"| something new for a viewer every | {1 / np.mean(looks):.1f} s |")
    print(f"| sent to a viewer | {np.mean(sizes) / 1000:.1f} kB/s |")
    print(f"| processor time, of one core: serving, asking | {serving:.0%}, {asking:.0%} |")
    print(f"| memory of the server after each turn with viewers | {', '.join(f'{each:.0f}' for each in memory)} MB |")


if __name__ == "__main__":
    main()
