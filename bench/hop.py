#!/usr/bin/env python3
"""What the way through a gateway costs, beside clients that know the leaders.

    python3 bench/hop.py [--seconds 5] [--rounds 3]

Three `tholos serve` on loopback. *Direct* is `tholos bench --cluster`: each command goes to its leader. *Gateway* spreads the connections over the
three gateway ports: two of three commands are forwarded. Both take turns, --rounds times; the medians of the rounds count.

Open loop: GET at 30 % of what a closed loop of 64 clients gets directly. Closed loop: 64 clients, GET and SET of 256 bytes.
Prints Markdown; ends with 1 if a bar is missed.
"""

import statistics
import tempfile

from three import Bars, Three, arguments, figures, parse, say

CONNECTIONS = 64


def main():
    parser = arguments(__doc__)
    parser.add_argument("--seconds", type=float, default=5, help="measured each time (5)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each (3)")
    args = parse(parser)
    with tempfile.TemporaryDirectory(dir=args.dir) as directory:
        cluster = Three(args.tholos, directory)
        try:
            measure(args, cluster)
        finally:
            cluster.stop()


def measure(args, cluster):
    gateways = [word for address in cluster.gateway for word in ("--at", address)]
    ways = {"direct": ["--at", cluster.cluster[0], "--cluster"], "gateway": gateways}
    figures(cluster.bench(*ways["direct"], "--fill", "--seconds", 1))

    def turns(what, *more):
        """The median of each figure, by way."""
        found = {way: [] for way in ways}
        for turn in range(args.rounds):
            say(f"{what}, turn {turn + 1}")
            for way, at in ways.items():
                found[way].append(figures(cluster.bench(*at, "--seconds", args.seconds, *more)))
        key = lambda way, name: statistics.median(one[name] for one in found[way])
        return {way: {name: key(way, name) for name in ("ops_per_s", "p50_us", "p99_us", "errors")} for way in ways}

    bars = Bars()
    closed = {}
    for command, bar in (("get", 0.65), ("set", 0.80)):
        seen = turns(f"closed loop, {command}", "--mix", f"{command}=100", "--connections", CONNECTIONS)
        closed[command] = seen["direct"]["ops_per_s"]
        part = seen["gateway"]["ops_per_s"] / closed[command]
        both = f"{part:.0%} ({seen['gateway']['ops_per_s']:,.0f} of {closed[command]:,.0f}/s)"
        bars.row(f"{command.upper()}, closed loop of {CONNECTIONS}, of direct", f">= {bar:.0%}", both, part >= bar)
    rate = 0.3 * closed["get"]
    seen = turns("open loop", "--mix", "get=100", "--connections", CONNECTIONS, "--rate", rate)
    added = seen["gateway"]["p50_us"] - seen["direct"]["p50_us"]
    both = f"{added:.0f} us ({seen['gateway']['p50_us']:.0f} and {seen['direct']['p50_us']:.0f}; p99 {seen['gateway']['p99_us']:.0f} and {seen['direct']['p99_us']:.0f})"
    bars.row(f"GET, open loop at 30 % ({rate:,.0f}/s): added to the median", "<= 60 us", both, added <= 60)
    bars.end()


if __name__ == "__main__":
    main()
