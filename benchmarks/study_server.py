"""How long an answer takes while 200 people answer at once: `python -m benchmarks.study_server STUDY`.

Each simulated person consents, thinks for one to three seconds before every answer, and answers all trials; the server
is a process of its own on the same machine. It counts what the database then holds: nothing may be lost.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np

from steadygrad.study.database import Database


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("--database", help="an empty one; a SQLite file for the time by default")
    parser.add_argument("--persons", type=int, default=200)
    parser.add_argument("--trials", type=int, default=20, help="answers of each person")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = given.database or f"sqlite:///{folder}/answers.sqlite"
        words = ["study", "serve", given.study, "--database", url, "--port", "0", "--rate", "100000"]
        server = subprocess.Popen(
            [sys.executable, "-m", "steadygrad", *map(str, words)], stdout=subprocess.PIPE, text=True
        )
        assert server.stdout is not None
        try:
            port = next(int(line.rsplit(":", 1)[1]) for line in server.stdout if line.startswith("study: "))
            begun = time.perf_counter()
            people = [_person(port, number, given.trials) for number in range(given.persons)]
            taken = [seconds for found in await asyncio.gather(*people) for seconds in found]
            lasted = time.perf_counter() - begun
        finally:
            server.terminate()
            server.wait()
        database = Database(url)
        kept = database.count()["answers"]
        database.close()
    low, high, most = (1000 * float(np.quantile(taken, q)) for q in (0.5, 0.95, 1.0))
    print(
        f"{given.persons} persons, {len(taken)} answers acknowledged in {lasted:.0f} s, {kept} kept: "
        f"median {low:.0f} ms, 95th percentile {high:.0f} ms, longest {most:.0f} ms"
    )
    if kept != len(taken):
        sys.exit("answers are lost")


async def _person(port: int, number: int, count: int) -> list[float]:
    """The seconds that each answer of a person took."""
    draw = random.Random(number)
    await asyncio.sleep(3 * draw.random())
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    form = urlencode({"version": "1", "language": "en", "agree": "yes"})
    headers, _ = await _ask(reader, writer, "POST", "/consent", "", form, "application/x-www-form-urlencoded")
    token = headers["set-cookie"].partition(";")[0]
    _, said = await _ask(reader, writer, "GET", "/api/trials", token)
    taken = []
    for trial in json.loads(said)["trials"][:count]:
        await asyncio.sleep(draw.uniform(1, 3))
        option = draw.choice(trial["options"]) if trial["options"] else None
        choice: dict[str, Any] = {"preferred": "left"} if option is None else {"chosen": [option], "best": option}
        body = json.dumps({"stimulus": trial["stimulus"], "seconds": 2.0, **choice})
        begun = time.perf_counter()
        _, said = await _ask(reader, writer, "PUT", f"/api/answers/{trial['position']}", token, body)
        taken.append(time.perf_counter() - begun)
        assert json.loads(said)["stored"]
    writer.close()
    return taken


async def _ask(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    method: str,
    path: str,
    cookie: str,
    body: str = "",
    kind: str = "application/json",
) -> tuple[dict[str, str], bytes]:
    """The headers and the body of what is answered, on a connection that is kept."""
    data = body.encode()
    lines = [f"{method} {path} HTTP/1.1", "host: 127.0.0.1", f"content-length: {len(data)}", f"content-type: {kind}"]
    writer.write("\r\n".join([*lines, *([f"cookie: {cookie}"] if cookie else []), "", ""]).encode() + data)
    await writer.drain()
    status, *rest = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
    found = await reader.readexactly(int(headers.get("content-length", 0)))
    assert int(status.split()[1]) < 400, (status, found)
    return headers, found


if __name__ == "__main__":
    asyncio.run(main())
