#!/usr/bin/env python3
"""Three nodes of which one is slow: leaders that follow measured load beside leaders that stay, in one run.

    cargo build --release && python3 bench/unequal.py [--seconds 20] [--only processor,disk] [--half cgroup|nice|stop]

For each kind of slowness two clusters run one after the other, `leaders = "load"` and `leaders = "map"`, three times
`tholos serve` on loopback. First all nodes are well; then n1 is slow, and after --settle seconds it is measured again.

 * processor: n1 gets half of the processor time that it used while it was well (--half cgroup, where one can be made), half the weight
   of the others (nice, 3 more), or is stopped and continued (SIGSTOP, SIGCONT) for 5 ms each, which is all that is left if this
   runs under a real-time policy.
 * disk: n1 runs with a shim (built by cc) that adds to each fdatasync and fsync, while a file exists, what makes an idle one
   take --times as long. Not a multiple of each one's own time: that is mostly waiting for a processor here.

Clients: `tholos bench --cluster`, --connections of them, 90 % reads. Needs Linux and cc. Prints Markdown; ends with 1 if a bar is missed.
"""

import os
import signal
import statistics
import subprocess
import tempfile
import threading
import time

from three import Bars, Three, arguments, figures, parse, say

HALF_SECONDS = 0.005
HALF_WEIGHT = 3
# Where control groups of processors are, and the files that give one a part: of version 2, and of version 1.
GROUPS = (("/sys/fs/cgroup", "cpu.max"), ("/sys/fs/cgroup/cpu", "cpu.cfs_quota_us"))
PERIOD_US = 10_000
QUOTA_US_MIN = 1000
# A group can be removed once the kernel has let go of its last process.
REMOVE_TRIES = 50
REMOVE_WAIT_SECONDS = 0.1
SYNCS = 300
SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>
static int slowly(int (*real)(int), int file) {
    const char *flag = getenv("SLOW_SYNC_FLAG"), *more = getenv("SLOW_SYNC_MORE_US");
    int result = real(file);
    if (flag && more && access(flag, F_OK) == 0) usleep(atol(more));
    return result;
}
int fdatasync(int file) { return slowly((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"), file); }
int fsync(int file) { return slowly((int (*)(int))dlsym(RTLD_NEXT, "fsync"), file); }
"""


class Slower:
    """Makes n1 slow."""

    def __init__(self, args, cluster, kind, flag, more_us):
        self.args, self.kind, self.flag, self.more_us = args, kind, flag, more_us
        self.process = cluster.processes[0]
        self.used_at = self.used()
        self.stopping = threading.Event()
        self.thread, self.group = None, None

    def used(self):
        with open(f"/proc/{self.process.pid}/stat") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        return time.monotonic(), (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def begin(self):
        """Slows it; how, in words."""
        if self.kind == "disk":
            open(self.flag, "w").close()
            return f"each sync takes {self.more_us / 1e3:.1f} ms more: {self.args.times:.0f} x as long as an idle one"
        (began, before), (now, after) = self.used_at, self.used()
        part = max(0.02, (after - before) / (now - began) / 2)
        how = self.args.half
        # Parts and weights bind only who shares a processor with others: a real-time process takes what it wants.
        shares = os.sched_getscheduler(self.process.pid) == os.SCHED_OTHER
        if how in (None, "cgroup") and shares and self.limit(part):
            return f"{part:.0%} of a processor by cgroup, half of what it used"
        if how == "cgroup" or (how == "nice" and not shares):
            raise SystemExit(f"--half {how} can do nothing here: use {'nice or ' if shares else ''}stop")
        if shares and how != "stop":
            for task in os.listdir(f"/proc/{self.process.pid}/task"):
                nice = os.getpriority(os.PRIO_PROCESS, int(task)) + HALF_WEIGHT
                os.setpriority(os.PRIO_PROCESS, int(task), nice)
            return "half the weight of the others by nice"
        self.thread = threading.Thread(target=self.halve)
        self.thread.start()
        return "stopped for half of the time"

    def limit(self, part):
        """Puts it into a control group that may use so much of a processor; whether there is one to be had."""
        quota = max(QUOTA_US_MIN, int(part * PERIOD_US))
        for parent, limit in GROUPS:
            group = f"{parent}/tholos-unequal-{os.getpid()}"
            try:
                os.mkdir(group)
            except OSError:
                continue
            self.group = group
            try:
                if limit == "cpu.max":
                    self.set(limit, f"{quota} {PERIOD_US}")
                else:
                    self.set("cpu.cfs_period_us", PERIOD_US)
                    self.set(limit, quota)
                    # What it gets within its part is not to depend on how many others run.
                    self.set("cpu.shares", 262_144)
                self.set("cgroup.procs", self.process.pid)
                return True
            except OSError:
                self.remove()
        return False

    def set(self, name, value):
        # Not made where it is missing: a directory that takes any file is no control group.
        with open(f"{self.group}/{name}", "r+") as out:
            out.write(str(value))

    def halve(self):
        while not self.stopping.is_set():
            self.process.send_signal(signal.SIGSTOP)
            time.sleep(HALF_SECONDS)
            self.process.send_signal(signal.SIGCONT)
            time.sleep(HALF_SECONDS)

    def end(self):
        self.stopping.set()
        if self.thread:
            self.thread.join()

    def remove(self):
        """Removes the control group, if there is one; what is left in it moves up."""
        group, self.group = self.group, None
        for _ in range(REMOVE_TRIES if group else 0):
            try:
                os.rmdir(group)
                return
            except OSError:
                self.empty(group)
                time.sleep(REMOVE_WAIT_SECONDS)
        if group:
            say(f"{group} cannot be removed: rmdir it when it is empty")

    @staticmethod
    def empty(group):
        try:
            with open(f"{group}/cgroup.procs") as left, open(f"{os.path.dirname(group)}/cgroup.procs", "r+") as parent:
                for pid in left:
                    parent.write(pid)
                    parent.flush()
        except OSError:
            # It has ended meanwhile, or is about to.
            pass


def build_shim(directory):
    source, shim = os.path.join(directory, "shim.c"), os.path.join(directory, "shim.so")
    with open(source, "w") as out:
        out.write(SHIM)
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", shim, source, "-ldl"], check=True)
    return shim


def idle_sync_us(directory):
    """What a sync of 4 KiB takes while nothing else goes on, in microseconds: the median of many."""
    taken = []
    with open(os.path.join(directory, "sync"), "wb") as out:
        for _ in range(SYNCS):
            out.write(bytes(4096))
            out.flush()
            began = time.monotonic()
            os.fdatasync(out.fileno())
            taken.append((time.monotonic() - began) * 1e6)
    return statistics.median(taken)


def measure(args, kind, leaders):
    """Figures of the cluster while all are well, of the first seconds with one slow, and after these."""
    with tempfile.TemporaryDirectory(dir=args.dir) as directory:
        shim = build_shim(directory) if kind == "disk" else None
        flag = os.path.join(directory, "slow")
        more_us = int(idle_sync_us(directory) * (args.times - 1)) if shim else 0
        slow_disk = {"LD_PRELOAD": shim, "SLOW_SYNC_FLAG": flag, "SLOW_SYNC_MORE_US": str(more_us)}
        environment = lambda at: slow_disk if shim and at == 0 else {}
        cluster = Three(args.tholos, directory, ["--leaders", leaders], environment=environment)
        slower = None

        def bench(seconds):
            at = ("--at", cluster.cluster[1], "--cluster", "--connections", args.connections)
            return cluster.bench(*at, "--seconds", seconds, "--mix", "get=90,set=10")

        try:
            # What is measured of a node is measured under load, so clients go on all the time.
            figures(bench(2))
            slower = Slower(args, cluster, kind, flag, more_us)
            well = figures(bench(args.seconds))
            before = cluster.leads()
            say(slower.begin())
            turning = bench(args.settle)
            gone_after, began = None, time.monotonic()
            while turning.poll() is None:
                leads = cluster.leads()
                if gone_after is None and (leads[0] == 0 if kind == "disk" else leads[0] < before[0]):
                    gone_after = time.monotonic() - began
                time.sleep(0.2)
            figures(turning)
            slow = figures(bench(args.seconds))
            after = cluster.load()
            return {
                "well": well, "slow": slow, "before": before, "after": [node["leads"] for node in after["nodes"]],
                "capacity": after["nodes"][0]["capacity"], "gone_after": gone_after,
            }
        finally:
            if slower:
                slower.end()
            cluster.stop()
            if slower:
                slower.remove()


def report(bars, kind, found):
    for leaders, seen in found.items():
        leads = f"leads {'/'.join(map(str, seen['before']))}, then {'/'.join(map(str, seen['after']))}; capacity of n1 {seen['capacity']} %"
        for when in ("well", "slow"):
            one = seen[when]
            figure = f"{one['ops_per_s']:,.0f}/s, p50 {one['p50_us'] / 1e3:.1f}, p99 {one['p99_us'] / 1e3:.1f} ms, {one['errors']} errors"
            bars.row(f"{kind}, {leaders}, {when}", "", figure + (f"; {leads}" if when == "slow" else ""))
    load, stays = found["load"], found["map"]
    times = load["slow"]["ops_per_s"] / stays["slow"]["ops_per_s"]
    bars.row(f"{kind}: throughput beside balancing off", ">= 1.3 x", f"{times:.2f} x", times >= 1.3)
    part = load["slow"]["p99_us"] / stays["slow"]["p99_us"]
    bars.row(f"{kind}: p99 beside balancing off", "<= 0.5 x", f"{part:.2f} x", part <= 0.5)
    if kind == "disk":
        gone = load["gone_after"]
        when = "never" if gone is None else f"{gone:.1f} s"
        bars.row("disk: leaders gone within", "<= 5 s", when, gone is not None and gone <= 5)
        grown = load["slow"]["p99_us"] / load["well"]["p99_us"]
        bars.row("disk: p99 after that beside healthy", "<= 2 x", f"{grown:.2f} x", grown <= 2)


def main():
    parser = arguments(__doc__)
    parser.add_argument("--seconds", type=int, default=20, help="measured each time (20)")
    parser.add_argument("--settle", type=int, default=10, help="left to the cluster when a node has turned slow (10)")
    parser.add_argument("--connections", type=int, default=64, help="clients (64)")
    parser.add_argument("--times", type=float, default=100.0, help="so many times as long a sync takes on a slow disk (100)")
    parser.add_argument("--half", choices=["cgroup", "nice", "stop"], help="how a processor is halved; the first that is possible")
    parser.add_argument("--only", default="processor,disk", help="kinds of slowness")
    args = parse(parser)
    kinds = [kind for kind in args.only.split(",") if kind]
    if unknown := [kind for kind in kinds if kind not in ("processor", "disk")]:
        parser.error(f"--only knows processor and disk, not {', '.join(unknown)}")
    bars = Bars()
    for kind in kinds:
        found = {}
        for leaders in ("load", "map"):
            say(f"{kind}, leaders = {leaders}")
            found[leaders] = measure(args, kind, leaders)
        report(bars, kind, found)
    bars.end()


if __name__ == "__main__":
    main()
