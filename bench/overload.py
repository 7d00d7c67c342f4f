#!/usr/bin/env python3
"""Three times as much as three nodes can do, and what comes of it.

    python3 bench/overload.py [--seconds 60] [--server-cpus 0 --client-cpus 1]

Three `tholos serve` on the processors --server-cpus, `tholos bench --cluster` on --client-cpus; values of 64 bytes, half reads, half
writes.

 1. The peak: a closed loop of 256 clients that send --pipeline commands at a time. It is measured again at the end, since a shared
    machine is not as fast at one minute as at the next: the mean of both counts.
 2. Normal: an open loop of the same clients at 30 % of the peak. (Clients that send one command at a time cost the servers more for
    each: what is 30 % of the one peak may be all of the other.)
 3. Overload: an open loop at 3 x the peak for --seconds, with --connections clients that send --pipeline commands at a time, so that what is
    under way at the servers is many times what they answer in a second's part. Goodput is what was answered and not refused, from
    the first command on: what a warm-up left behind would be answered at the cost of what counts.
 4. After: the open loop at 30 % again, second by second, until a second is as it was before: nothing failed, all that was due was
    sent, and the p99 is at most twice that of 2.

Needs Linux and taskset. Prints Markdown; ends with 1 if a bar is missed.
"""

import tempfile
import time

from three import Bars, Three, arguments, figures, parse, say

NORMAL = 0.3
OVERLOAD = 3.0
MEMORY_BYTES = 512 << 20
WATCH_SECONDS = 20


def main():
    parser = arguments(__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="of overload (60)")
    parser.add_argument("--short", type=float, default=5, help="seconds of every other measurement (5)")
    parser.add_argument("--connections", type=int, default=2000, help="clients of the overload (2000)")
    parser.add_argument("--pipeline", type=int, default=16, help="commands that each sends at a time (16)")
    parser.add_argument("--server-cpus", default="0", help="processors of the servers (0)")
    parser.add_argument("--client-cpus", default="1", help="processors of the clients (1)")
    args = parse(parser)
    with tempfile.TemporaryDirectory(dir=args.dir) as directory:
        cluster = Three(args.tholos, directory, cpus=args.server_cpus)
        try:
            measure(args, cluster)
        finally:
            cluster.stop()


def measure(args, cluster):
    def bench(*more):
        every = ("--at", cluster.cluster[0], "--cluster", "--mix", "get=50,set=50", "--value-bytes", 64)
        return cluster.bench(*every, *more, cpus=args.client_cpus)

    def closed():
        say("closed loop")
        return figures(bench(*clients, "--seconds", args.short))["ops_per_s"]

    clients = ("--connections", 256, "--pipeline", args.pipeline)
    figures(bench("--fill", "--connections", 64, "--seconds", 1))
    peak = closed()
    normal_load = (*clients, "--rate", peak * NORMAL)
    say(f"peak {peak:,.0f}/s; open loop at 30 %")
    normal = figures(bench(*normal_load, "--seconds", args.short))
    memory_before = cluster.resident_bytes()

    say(f"open loop at {OVERLOAD:.0f} x for {args.seconds:.0f} s")
    refused_before = cluster.metric("tholos_node_shed_commands_total")
    running = bench(
        "--connections", args.connections, "--pipeline", args.pipeline, "--rate", peak * OVERLOAD,
        "--seconds", args.seconds, "--warmup", 0,
    )
    memory = memory_before
    while running.poll() is None:
        memory = max(memory, cluster.resident_bytes())
        time.sleep(0.2)
    overload = figures(running)
    refused = cluster.metric("tholos_node_shed_commands_total") - refused_before

    say("open loop at 30 %, second by second")
    dropped, back = time.monotonic(), None
    while back is None and time.monotonic() - dropped < WATCH_SECONDS:
        began = time.monotonic()
        second = figures(bench(*normal_load, "--seconds", 1, "--warmup", 0))
        fits = second["errors"] == 0 and second["ops_per_s"] >= 0.95 * peak * NORMAL
        if fits and second["p99_us"] <= 2 * normal["p99_us"]:
            back = began - dropped
        say(f"p99 {second['p99_us']:,} us, {second['ops_per_s']:,.0f}/s, {second['errors']} errors")

    before, peak = peak, (peak + closed()) / 2
    bars = Bars()
    goodput = overload["ops_per_s"] / peak
    bars.row("peak, closed loop", "", f"{peak:,.0f}/s (before {before:,.0f})")
    bars.row("30 % of it, open loop", "", f"p50 {normal['p50_us']:,} us, p99 {normal['p99_us']:,} us")
    bars.row(f"goodput at {OVERLOAD:.0f} x for {args.seconds:.0f} s", ">= 80 % of the peak", f"{goodput:.0%}", goodput >= 0.8)
    failed = f"{overload['errors']:,} failed, {refused:,.0f} of them refused at once with BUSY"
    bars.row("commands of the overload", "", f"{failed}; p99 {overload['p99_us'] / 1e3:,.0f} ms")
    grown = memory - memory_before
    bars.row("memory of the largest node", "<= 512 MiB more", f"{grown >> 20} MiB more, {memory >> 20} MiB", grown <= MEMORY_BYTES)
    when = f"{back:.1f} s" if back is not None else f"not within {WATCH_SECONDS} s"
    bars.row("back to normal after", "<= 10 s", when, back is not None and back <= 10)
    bars.end()


if __name__ == "__main__":
    main()
