#!/usr/bin/env python3
"""Three nodes of Callboard beside three of Apache Kafka 4.4, on one machine.

  cluster.py [--faults 20] [--ours] [--table docs/BENCHMARKS.md] [ROW ...]     rows: failover (or kill controller stop follower) hang cut produce latency partitions ten

A steady producer writes 1,000 records/s, acks=all, idempotent, while nodes are killed, hung, stopped in order; the longest
time between two acknowledgements of each fault counts. The same producer settings for both: librdkafka, linger 1 ms,
retry.backoff 20-200 ms, reconnect.backoff 20-200 ms, metadata refreshed every 50 ms while a leader is wanted. What was
acknowledged is read back and checked for loss, order and duplicates. `hang` and `cut` use Callboard's own client; `cut` needs root, for hosts of its own. The row
`table` measures nothing: it writes the table of what was measured before. `--ours` keeps Kafka's last figures (rows
failover and partitions)."""
import argparse, atexit, json, os, re, shutil, signal, statistics, subprocess, sys, tempfile, threading, time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import procstat
from systems import BINARY, HOME, OUT, ROOT, free_port, install, java, payloads, sh

P = argparse.ArgumentParser()
P.add_argument("--faults", type=int, default=20); P.add_argument("--kafka-faults", type=int, default=5)
P.add_argument("--ours", action="store_true"); P.add_argument("--runs", type=int, default=3); P.add_argument("--mtu", type=int); P.add_argument("--table"); P.add_argument("rows", nargs="*")
A = P.parse_args()
PYTHON = f"{HOME}/python/bin/python"
RESULTS, ALIVE, BEFORE = [], [], {}


@atexit.register
def end():
    for cluster in list(ALIVE):
        cluster.remove()


class Cluster:
    """Nodes 1 to 3 on ports of their own."""

    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="bench-cluster-")
        self.ports = {n: free_port() for n in (1, 2, 3)}
        self.control = {n: free_port() for n in (1, 2, 3)}
        self.process = {}
        self.prepare()
        ALIVE.append(self)
        for n in (1, 2, 3):
            self.start(n)
        for n in (1, 2, 3):
            self.wait(n)
        # A node whose port is open may not be registered yet.
        time.sleep(2)

    @property
    def boot(self):
        return ",".join(f"127.0.0.1:{p}" for p in self.ports.values())

    def start(self, n):
        out = open(f"{self.dir}/out-{n}", "a")
        self.process[n] = subprocess.Popen(self.command(n), stdout=out, stderr=subprocess.STDOUT)

    def wait(self, n):
        import socket
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.ports[n]), 0.2).close(); return
            except OSError:
                time.sleep(0.05)

    def signal(self, n, which):
        self.process[n].send_signal(which)
        if which in (signal.SIGKILL, signal.SIGTERM):
            self.process[n].wait()

    @property
    def cpu_s(self):
        return sum(procstat.cpu_s(p.pid) for p in self.process.values())

    @property
    def rss_mib(self):
        return sum(procstat.mem(p.pid)["VmRSS"] for p in self.process.values())

    @property
    def pids(self):
        return [p.pid for p in self.process.values()]

    def remove(self):
        ALIVE.remove(self)
        for p in self.process.values():
            p.kill(); p.wait()
        shutil.rmtree(self.dir, ignore_errors=True)


class Callboard(Cluster):
    name = "callboard"

    def prepare(self):
        self.quic = {n: free_port() for n in (1, 2, 3)}
        sh([BINARY, "cert", "init", "--out", f"{self.dir}/authority"])
        for n in (1, 2, 3):
            sh([BINARY, "cert", "node", str(n), "--authority", f"{self.dir}/authority"])

    def command(self, n):
        voters = ",".join(f"{v}@127.0.0.1:{p}" for v, p in self.control.items())
        more = ["--set", f"node.id={n}", "--set", f"cluster.certificates={self.dir}/authority/node-{n}", "--set", f"cluster.voters={voters}"]
        return [BINARY, "start", "--data", f"{self.dir}/node-{n}", "--kafka", f"127.0.0.1:{self.ports[n]}", "--quic", f"127.0.0.1:{self.quic[n]}",
                "--http", "127.0.0.1:0", "--peer", f"127.0.0.1:{self.control[n]}", *more]

    def connect(self):
        servers = ",".join(f"127.0.0.1:{p}" for p in self.quic.values())
        return ["--server", servers, "--ca", f"{self.dir}/authority/ca.pem"]


class Kafka(Cluster):
    name = "kafka"

    def prepare(self):
        import base64, uuid
        text = lambda: base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "a")
        voters = ",".join(f"{n}@127.0.0.1:{p}:{text()}" for n, p in self.control.items())
        cluster, boot = text(), ",".join(f"127.0.0.1:{p}" for p in self.control.values())
        for n in (1, 2, 3):
            at, control = f"127.0.0.1:{self.ports[n]}", f"127.0.0.1:{self.control[n]}"
            open(f"{self.dir}/{n}.properties", "w").write(f"""process.roles=broker,controller
node.id={n}
listeners=PLAINTEXT://{at},CONTROLLER://{control}
advertised.listeners=PLAINTEXT://{at},CONTROLLER://{control}
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
controller.quorum.bootstrap.servers={boot}
log.dirs={self.dir}/node-{n}
default.replication.factor=3
min.insync.replicas=2
offsets.topic.replication.factor=3
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
group.initial.rebalance.delay.ms=0
""")
            sh(java("kafka.tools.StorageTool", "format", "-t", cluster, "-c", f"{self.dir}/{n}.properties", "--initial-controllers", voters))

    def command(self, n):
        c = java("kafka.Kafka", f"{self.dir}/{n}.properties")
        return [c[0], "-Xms768m", "-Xmx768m", "-XX:MaxGCPauseMillis=20", *c[2:]]


os.environ["BINARY"] = BINARY


class Hosts:
    """Three nodes of Callboard, each on a host of its own, which can be cut off."""
    name = "callboard"

    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="bench-hosts-")
        self.do("up", "3")
        ALIVE.append(self)
        for n in (1, 2, 3):
            self.do("start", str(n))
        while len(self.say("cluster", "status", "--json").get("nodes", [])) < 3:
            time.sleep(0.2)

    def command(self, *arguments):
        return [f"{HERE}/../hosts.sh", arguments[0], self.dir, *arguments[1:]]

    def do(self, *arguments):
        # Nodes go on when the script has ended and would keep its output open.
        subprocess.run(self.command(*arguments), check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def say(self, *arguments):
        done = subprocess.run(self.command("run", "callboard", *arguments), capture_output=True, text=True)
        return json.loads(done.stdout) if done.returncode == 0 and done.stdout.strip() else {}

    def remove(self):
        ALIVE.remove(self)
        self.do("down")
        shutil.rmtree(self.dir, ignore_errors=True)


def row_cut():
    """The leader's cable is pulled; then it is cut off from the other nodes only, and clients still reach it."""
    for what, others in (("cut of the leader from everybody, native client", ("1", "2", "3", "client")), ("cut of the leader from the other nodes only", ("1", "2", "3"))):
        cluster = Hosts()
        cluster.do("run", "callboard", "topic", "create", "steady", "--replication-factor", "3")
        seen = lambda: (cluster.say("topic", "describe", "steady", "--json").get("partitions") or [{"isr": [], "leader": None}])[0]
        servers = ",".join(f"10.77.77.{n}:9192" for n in (1, 2, 3))
        command = ["callboard", "bench", "steady", "--topic", "steady", "--seconds", str(A.faults * 20 + 60), "--gap", "10", "--json"]
        steady = Steady(cluster.command("run", *command, "--server", servers, "--ca", f"{cluster.dir}/authority/ca.pem"))
        time.sleep(4)
        times = []
        for _ in range(A.faults):
            while len(seen()["isr"]) < 3:
                time.sleep(0.2)
            leader = str(seen()["leader"])
            time.sleep(1)
            began = time.time() * 1e3
            cluster.do("cut", leader, *[o for o in others if o != leader])
            time.sleep(5)
            times.append((began, time.time() * 1e3))
            cluster.do("heal")
        steady.process.kill()
        gaps = [steady.longest(*t) for t in times]
        print("callboard", what, "gaps, ms:", *sorted(map(round, gaps)), flush=True)
        cluster.remove()
        note("failover", what, "ms", quantiles(gaps), None, "p95 <= 2,500")


KINDS = (Callboard,) if A.ours else (Callboard, Kafka)


def rdk(cluster, *arguments):
    said = sh([PYTHON, f"{HERE}/rdk.py", cluster.boot, *map(str, arguments)])
    return json.loads(next(l for l in said.splitlines() if l.startswith("{")))


def note(row, what, unit, ours, theirs, target, **more):
    if theirs is None:
        theirs = BEFORE.get(what)
    line = {"row": row, "what": what, "unit": unit, "callboard": ours, "kafka": theirs, "target": target, **more}
    if A.mtu:
        return print(json.dumps(line), flush=True)
    RESULTS.append(line)
    print(f"{row:10} {what:50} callboard {ours} kafka {theirs} {unit} target {target} {more or ''}", flush=True)
    json.dump(RESULTS, open(f"{OUT}/cluster.json", "w"), indent=1)


class Steady:
    """A producer in a process of its own, which tells of every gap."""

    def __init__(self, command):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.gaps, self.last = [], None
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        for line in self.process.stdout:
            if line.startswith("{"):
                said = json.loads(line)
                if "gap_ms" in said:
                    self.gaps.append((said["ended_at_ms"], said["gap_ms"]))
                else:
                    self.last = said

    def longest(self, begin_ms, end_ms):
        """The longest gap of which a part lies in this time, also if it ends later; what is shorter than 10 ms is not told."""
        return max([g for at, g in self.gaps if begin_ms <= at and at - g <= end_ms], default=10.0)

    def finish(self):
        self.process.stdin.close()
        self.process.wait(120); self.thread.join(10)
        return self.last


def leaders(cluster, topic):
    return rdk(cluster, "describe", topic)


def settle(cluster, topic):
    """Waits until all three are in sync; who leads the topic and who the quorum."""
    began = time.monotonic()
    while True:
        try:
            seen = leaders(cluster, topic)
        except SystemExit:
            seen = {"isr": []}
        if len(seen["isr"]) == 3:
            return seen
        if time.monotonic() - began > 120:
            sys.exit(f"{cluster.name} is not in sync after 120 s: {seen}")
        time.sleep(0.2)


def inject(cluster, steady, topic, fault, after):
    """One fault; when it began and ended."""
    seen = settle(cluster, topic)
    if fault == "controller":
        # Who leads the quorum is made to lead the topic too.
        first = seen["controller"]
        order = ",".join(map(str, [first] + [n for n in (1, 2, 3) if n != first]))
        sh([BINARY, "cluster", "reassign", topic, "--to", order, *cluster.connect()])
        if seen["leader"] != first:
            sh([BINARY, "cluster", "elect", topic, *cluster.connect()])
        seen = settle(cluster, topic)
        if seen["leader"] != seen["controller"]:
            sys.exit(f"it leads not both: {seen}")
    leader = seen["leader"]
    victim = leader if fault != "follower" else next(n for n in seen["replicas"] if n != leader)
    time.sleep(1)
    began = time.time() * 1e3
    if fault == "hang":
        cluster.signal(victim, signal.SIGSTOP)
    else:
        cluster.signal(victim, signal.SIGTERM if fault == "stop" else signal.SIGKILL)
    time.sleep(after)
    ended = time.time() * 1e3
    if fault == "hang":
        cluster.signal(victim, signal.SIGCONT)
    else:
        cluster.start(victim); cluster.wait(victim)
    return began, ended


def quantiles(gaps):
    gaps = sorted(gaps)
    at = lambda q: round(gaps[min(len(gaps) - 1, int(len(gaps) * q))], 1)
    return {"p50": at(0.5), "p95": at(0.95), "max": at(1.0), "faults": len(gaps)}


FAULTS = {"kill": ("kill -9 of the leader", "300 / 700 / 2,000"), "stop": ("clean stop of the leader", "p95 <= 50"),
          "controller": ("kill -9 of the leader that leads the quorum too", "p95 <= 1,500"), "follower": ("kill -9 of a follower", "p95 <= 100"), "hang": ("SIGSTOP of the leader, native client", "p95 <= 2,500")}


def failover(faults):
    for fault in faults:
        figures, verdicts = {}, {}
        for kind, count, after in ((Callboard, A.faults, 2), (Kafka, A.kafka_faults, 16)):
            if kind not in KINDS or (fault in ("hang", "controller") and kind is Kafka):
                continue
            cluster, topic = kind(), f"steady-{fault}"
            rdk(cluster, "create3", topic)
            if fault == "hang":
                command = [BINARY, "bench", "steady", "--topic", topic, "--seconds", str(int(count * 12 + 60)), "--gap", "10", "--json", *cluster.connect()]
            else:
                command = [PYTHON, f"{HERE}/rdk.py", cluster.boot, "steady", topic, "1000"]
            steady = Steady(command)
            time.sleep(4)
            times = [inject(cluster, steady, topic, fault, 5 if fault == "hang" else after) for _ in range(count)]
            settle(cluster, topic)
            if fault == "hang":
                steady.process.kill()
            else:
                verdicts[kind] = steady.finish()
                wrong = [k for k in ("lost", "duplicated", "disorder", "failed") if not verdicts[kind] or verdicts[kind][k]]
                if wrong:
                    sys.exit(f"WRONG: {cluster.name} {fault}: {verdicts[kind]}")
            gaps = [steady.longest(*time) for time in times]
            figures[kind] = quantiles(gaps)
            print(cluster.name, fault, "gaps, ms:", *sorted(map(round, gaps)), flush=True)
            cluster.remove()
        what, target = FAULTS[fault]
        note("failover", what, "ms", figures[Callboard], figures.get(Kafka), target, verdict=verdicts.get(Callboard), kafka_verdict=verdicts.get(Kafka))


SENT = re.compile(r"(\d+) records sent, ([\d.]+) records/sec \(([\d.]+) MB/sec\), ([\d.]+) ms avg latency, ([\d.]+) ms max latency, (\d+) ms 50th, (\d+) ms 95th, (\d+) ms 99th")


def produce(cluster, topic, size, records):
    others, before = procstat.Others(cluster.pids), cluster.cpu_s
    out = sh(java("org.apache.kafka.tools.ProducerPerformance", "--bootstrap-server", cluster.boot, "--topic", topic, "--num-records", str(records),
                  "--payload-file", payloads(size), "--throughput", "-1", "--reporting-interval", "1000", "--command-property", "acks=all", "batch.size=262144", "linger.ms=5"))
    time.sleep(1)
    m = SENT.findall(out)[-1]
    return {"records_per_s": float(m[1]), "cpu_s_per_M": (cluster.cpu_s - before) / records * 1e6, "others": others.share()}


def both(measure):
    """Alternately, after one round that does not count; medians of what each figure was."""
    clusters, seen = [Kafka(), Callboard()], {}
    for n in range(A.runs + 1):
        for cluster in clusters:
            figures = measure(cluster, n)
            if n:
                seen.setdefault(cluster.name, []).append(figures)
    for cluster in clusters:
        cluster.remove()
    median = lambda all: {k: statistics.median(f[k] for f in all) for k in all[0]}
    return median(seen["callboard"]), median(seen["kafka"])


def apart(measure):
    """As `both`, but for what two idle clusters would slow down on two cores: one after the other is there."""
    medians = {}
    for kind in KINDS:
        cluster, seen = kind(), []
        for n in range(A.runs + 1):
            seen.append(measure(cluster, n))
        cluster.remove()
        medians[kind] = {k: statistics.median(f[k] for f in seen[1:]) for k in seen[0]}
    return medians[Callboard], medians.get(Kafka)


def row_produce():
    """Each of the two MTUs on a loopback of its own: the same program once more in a network namespace."""
    for mtu in (1500, 6500):
        script = f'ip link set lo mtu {mtu} up && exec "$0" "$@"'
        command = ["unshare", "--net", "sh", "-c", script, sys.executable, __file__, "--runs", A.runs, "--mtu", mtu, "produce"]
        for line in sh([str(c) for c in command]).splitlines():
            print(line, flush=True)
            if line.startswith("{"):
                said = json.loads(line)
                line = [said.pop(k) for k in ("row", "what", "unit", "callboard", "kafka", "target")]
                note(*line, **said)


def produce_here():
    for size, records in ((100, 1500000), (1024, 300000)):
        def measure(cluster, n):
            topic = f"p-{size}"
            if n == 0:
                rdk(cluster, "create3", topic)
            return produce(cluster, topic, size, records)
        ours, theirs = both(measure)
        what = f"RF 3, {size} B, batches of 256 KiB, ours synced, MTU {A.mtu:,}"
        others = round(max(ours["others"], theirs["others"]), 3)
        ratio = lambda k: round(ours[k] / theirs[k], 2)
        note("produce", what, "CPU-s/M, all nodes", round(ours["cpu_s_per_M"], 2), round(theirs["cpu_s_per_M"], 2), "<= 0.6", ratio=ratio("cpu_s_per_M"), others=others)
        note("produce", what, "records/s", round(ours["records_per_s"]), round(theirs["records_per_s"]), ">= 1", ratio=ratio("records_per_s"), others=others)


def row_latency():
    def measure(cluster, n):
        return rdk(cluster, "latency", f"l{n}-{time.time()}", 2000, 3)
    ours, theirs = apart(measure)
    for q, target in (("p50", "<= 1 ms"), ("p99", "<= Kafka")):
        note("latency", f"RF 3, one record in flight, produce to consume, {q}", "ms", round(ours[q], 3), theirs and round(theirs[q], 3), target)


def comes_back(cluster, topic):
    """Starts node 3 again; how long it takes until it is in sync for all of a topic."""
    began = time.monotonic()
    cluster.start(3); cluster.wait(3)
    rdk(cluster, "insync", topic, 3)
    return time.monotonic() - began


def row_partitions():
    for kind in KINDS:
        cluster = kind()
        created = rdk(cluster, "partitions", "many", 1000, 0, 3)["led_s"]
        time.sleep(5)
        busy = cluster.cpu_s; time.sleep(10); busy = (cluster.cpu_s - busy) * 10
        memory = cluster.rss_mib
        cluster.signal(3, signal.SIGKILL)
        led = rdk(cluster, "led", "many", 3)["s"]
        time.sleep(2)
        back = comes_back(cluster, "many")
        for n in (1, 2, 3):
            cluster.process[n].kill()
        for n in (1, 2, 3):
            cluster.process[n].wait()
        began = time.monotonic()
        for n in (1, 2, 3):
            cluster.start(n)
        for n in (1, 2, 3):
            cluster.wait(n)
        rdk(cluster, "all", "many", 1000)
        serving = time.monotonic() - began
        figures = {"created_s": created, "led_again_s": led, "in_every_isr_s": back, "all_killed_serving_s": serving, "rss_mib_all": memory, "idle_cpu_percent_all": busy}
        cluster.remove()
        if kind is Callboard:
            ours = figures
    targets = {"created_s": "<= 1", "led_again_s": "<= 2", "in_every_isr_s": "<= 10", "all_killed_serving_s": "<= 5"}
    for key in ours:
        note("partitions", f"1,000 partitions RF 3: {key}", "", round(ours[key], 2), None if A.ours else round(figures[key], 2), targets.get(key))


def row_ten():
    """Ten thousand partitions, three replicas each."""
    cluster = Callboard()
    created = rdk(cluster, "partitions", "ten", 10000, 0, 3)["led_s"]
    rdk(cluster, "insync", "ten", 3)
    time.sleep(5)
    busy = cluster.cpu_s; time.sleep(10); busy = (cluster.cpu_s - busy) * 10
    memory = cluster.rss_mib
    cluster.signal(3, signal.SIGKILL)
    led = rdk(cluster, "led", "ten", 3)["s"]
    time.sleep(2)
    back = comes_back(cluster, "ten")
    written = rdk(cluster, "all", "ten", 10000)["ms"] / 1e3
    cluster.remove()
    for key, value in {"created_s": created, "led_again_s": led, "in_every_isr_s": back, "one_record_to_each_s": written, "rss_mib_all": memory, "idle_cpu_percent_all": busy}.items():
        note("10,000", f"10,000 partitions RF 3: {key}", "", round(value, 2), None, None)


def table(path):
    text = open(path).read()
    begin, end = "<!-- cluster begin -->\n", "<!-- cluster end -->"
    show = lambda v: "-" if v is None else " / ".join(f"{v[k]:g}" for k in ("p50", "p95", "max")) + f" ({v['faults']} faults)" if isinstance(v, dict) else f"{v:g}"
    rows = [f"Written by `cluster-tests/bench/cluster.py`; {os.cpu_count()} cores for all three nodes and the client. Gaps are p50 / p95 / max.\n",
            "| | what | unit | Callboard | Kafka 4.4 | ratio | target |", "|---|---|---|---|---|---|---|"]
    order = list(dict.fromkeys(r["row"] for r in RESULTS))
    rows += [f"| {r['row']} | {r['what']} | {r['unit']} | {show(r['callboard'])} | {show(r['kafka'])} | {r.get('ratio', '')} | {r['target'] or ''} |" for r in sorted(RESULTS, key=lambda r: order.index(r["row"]))]
    head, rest = text.split(begin)
    open(path, "w").write(head + begin + "\n".join(rows) + "\n" + end + rest.split(end)[1])


install()
wanted = A.rows or ["failover", "hang", "cut", "produce", "latency", "partitions", "ten"]
if A.rows and not A.mtu and os.path.exists(f"{OUT}/cluster.json"):
    # Rows that are not measured now keep their last figures.
    measured = {"hang": lambda r: "SIGSTOP" in r["what"], "cut": lambda r: r["what"].startswith("cut of")}
    measured["failover"] = lambda r: r["row"] == "failover" and not measured["hang"](r) and not measured["cut"](r)
    measured |= {f: lambda r, f=f: r["what"] == FAULTS[f][0] for f in ("kill", "controller", "stop", "follower")}
    again = lambda r: any(measured.get(w, lambda r: r["row"] == ("10,000" if w == "ten" else w))(r) for w in wanted)
    seen = json.load(open(f"{OUT}/cluster.json"))
    RESULTS += [r for r in seen if not again(r)]
    BEFORE |= {r["what"]: r["kafka"] for r in seen}
for row in wanted:
    {"failover": lambda: failover(["kill", "controller", "stop", "follower"]), **{f: lambda f=f: failover([f]) for f in ("kill", "controller", "stop", "follower")}, "hang": lambda: failover(["hang"]), "cut": row_cut, "produce": produce_here if A.mtu else row_produce, "latency": row_latency, "partitions": row_partitions, "ten": row_ten, "table": lambda: None}[row]()
if A.table:
    table(A.table)
