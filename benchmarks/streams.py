"""Many streams at once against one runner, beside the same requests one after the other.

    python benchmarks/streams.py [--streams 8] [--tokens 64] [--rounds 3]

Prints, per round, both wall times and their ratio, and whether each text of the crowd equals the one of the same
request alone (temperature 0). Absolute times of shared machines mean little; the ratio is what to read.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from demo import smollm2  # noqa: E402
from demo.demo import MODEL, Home, push, server  # noqa: E402

TOPICS = ("ships", "cranes", "harbours", "storms", "ropes", "charts", "anchors", "lighthouses")


def chat(url: str, topic: str, tokens: int) -> tuple[str, int]:
    """Text and token count of one streamed chat."""
    body = {
        "model": MODEL,
        "messages": [
            {"role": "user", "content": f"Write a long story about {topic} and the people who work with them."}
        ],
        "options": {"temperature": 0, "num_predict": tokens},
    }
    request = urllib.request.Request(f"{url}/api/chat", json.dumps(body).encode())
    text, count = "", 0
    with urllib.request.urlopen(request, timeout=600) as response:
        for line in response:
            message = json.loads(line)
            if "error" in message:
                raise SystemExit(f"a stream failed: {message['error']}")
            text += message["message"]["content"]
            count = message.get("eval_count", count)
    return text, count


def measure(url: str, streams: int, tokens: int, rounds: int) -> None:
    topics = [f"{TOPICS[i % len(TOPICS)]} {i // len(TOPICS) or ''}".strip() for i in range(streams)]
    chat(url, "warming up", 4)
    for number in range(rounds):
        start = time.perf_counter()
        alone = [chat(url, topic, tokens) for topic in topics]
        alone_s = time.perf_counter() - start
        start = time.perf_counter()
        with ThreadPoolExecutor(streams) as pool:
            crowd = list(pool.map(lambda topic: chat(url, topic, tokens), topics))
        crowd_s = time.perf_counter() - start
        equal = sum(one[0] == many[0] for one, many in zip(alone, crowd, strict=True))
        generated = sum(count for _, count in crowd)
        print(
            f"round {number + 1}: alone {alone_s:.2f} s, together {crowd_s:.2f} s, ratio {crowd_s / alone_s:.2f}; "
            f"{generated} tokens, {generated / crowd_s:.0f} tokens/s together; {equal} of {streams} texts equal"
        )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--streams", type=int, default=8)
    arguments.add_argument("--tokens", type=int, default=64)
    arguments.add_argument("--rounds", type=int, default=3)
    given = arguments.parse_args()
    model = smollm2.fetch()
    with tempfile.TemporaryDirectory(prefix="tonnage-bench-") as folder:
        home = Home(Path(folder))
        with server(home, "127.0.0.1:0"):
            push(home, model)
            measure(home.url, given.streams, given.tokens, given.rounds)


if __name__ == "__main__":
    main()
