#!/usr/bin/env python3
"""One hot shard, reads only: with reads at replicas and without.

    python3 bench/reads.py [--seconds 5] [--rounds 3] [--connections 256]

Three `tholos serve` on loopback, all clients read one key. Three ways take turns, --rounds times; the medians count:

 * leader: the gateways of the three nodes, `replica_reads = "leader"`: every read goes to the leader of the shard.
 * load: the same with `replica_reads = "load"`: the gateways choose.
 * direct: `tholos bench --cluster`: all clients go to the leader themselves.

Reads are linearizable in each. Processor time is that of the three servers. On few processors the servers share what the clients leave
them, all of it in both ways, and a read at a replica costs what it costs at the leader: two processors cannot show a gain. With a
processor for each node it is what three nodes can do beside one, which `cargo xtask balance-sim` simulates. Prints Markdown; ends with 1 if a bar is missed.
"""

import statistics
import tempfile

from three import Bars, Three, arguments, figures, parse, say


def main():
    parser = arguments(__doc__)
    parser.add_argument("--seconds", type=float, default=5, help="measured each time (5)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each (3)")
    parser.add_argument("--connections", type=int, default=256, help="clients (256)")
    args = parse(parser)
    clusters, directories = {}, []
    try:
        for mode in ("leader", "load"):
            directories.append(tempfile.TemporaryDirectory(dir=args.dir))
            clusters[mode] = Three(args.tholos, directories[-1].name, ["--replica-reads", mode])
        measure(args, clusters)
    finally:
        for cluster in clusters.values():
            cluster.stop()
        for directory in directories:
            directory.cleanup()


def measure(args, clusters):
    found = {way: [] for way in ("leader", "load", "direct")}
    for cluster in clusters.values():
        figures(cluster.bench("--at", cluster.gateway[0], "--keys", 1, "--fill", "--seconds", 1))
    for turn in range(args.rounds):
        for way, seen in found.items():
            say(f"{way}, turn {turn + 1}")
            cluster = clusters["load" if way == "load" else "leader"]
            gateways = [word for address in cluster.gateway for word in ("--at", address)]
            at = ["--at", cluster.cluster[0], "--cluster"] if way == "direct" else gateways
            pids = [word for pid in cluster.pids() for word in ("--pid", pid)]
            more = ["--keys", 1, "--mix", "get=100", "--connections", args.connections, "--seconds", args.seconds]
            seen.append(figures(cluster.bench(*at, *pids, *more)))
    def median(way, name):
        return statistics.median(one[name] for one in found[way])

    bars = Bars()
    for way in found:
        cpu = median(way, "server_cpu_us_per_op")
        bars.row(way, "", f"{median(way, 'ops_per_s'):,.0f}/s, p99 {median(way, 'p99_us') / 1e3:.1f} ms, {cpu:.1f} us a read")
    kept, sent = (clusters["load"].metric(f"tholos_node_reads_to_{who}_total") for who in ("leaders", "replicas"))
    bars.row("forwarded reads that replicas answered", "", f"{sent / max(1, kept + sent):.0%}")
    times = median("load", "ops_per_s") / median("leader", "ops_per_s")
    bars.row("load beside leader", ">= 1.5 x", f"{times:.2f} x", times >= 1.5)
    part = median("load", "server_cpu_us_per_op") / median("leader", "server_cpu_us_per_op")
    bars.row("processor time a read", "<= 1 x", f"{part:.2f} x", part <= 1)
    bars.end()


if __name__ == "__main__":
    main()
