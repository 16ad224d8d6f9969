#!/usr/bin/env python3
"""Callboard beside Apache Kafka 4.4: the same clients, one machine, alternately (A B A B, warmed up).

  run.py [--runs 3] [--table docs/BENCHMARKS.md] [ROW ...]      rows: produce sync consume latency partitions start memory

Needs what cluster-tests/interop needs of java, mvn and python3, and installs into the same place. Prints each figure as it
comes, keeps all of them in target/bench/results.json, and with --table writes the table between the marks of a Markdown
file and a picture (SVG) beside it. CPU figures are the broker's, from /proc; `others` is the share of the machine that
other programs took meanwhile. Java's tools run with acks=all, linger.ms=5, no compression, ready-made payloads."""
import argparse, json, os, re, statistics, subprocess, sys, tempfile, time

HERE = os.path.dirname(os.path.abspath(__file__)); ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, HERE)
import procstat

P = argparse.ArgumentParser()
P.add_argument("--runs", type=int, default=3); P.add_argument("--table"); P.add_argument("rows", nargs="*")
A = P.parse_args()
from systems import BINARY, HOME, OUT, Callboard, Kafka, install, java, payloads, sh


def create(system, topic, partitions=1, configs=()):
    more = sum((["--config", c] for c in configs), [])
    sh(java("org.apache.kafka.tools.TopicCommand", "--bootstrap-server", system.boot, "--create", "--if-not-exists", "--topic", topic, "--partitions", str(partitions), *more))


SENT = re.compile(r"(\d+) records sent, ([\d.]+) records/sec \(([\d.]+) MB/sec\), ([\d.]+) ms avg latency, ([\d.]+) ms max latency, (\d+) ms 50th, (\d+) ms 95th, (\d+) ms 99th")


def produce(system, topic, size, batch, records):
    others, before = procstat.Others([system.pid]), procstat.cpu_s(system.pid)
    out = sh(java("org.apache.kafka.tools.ProducerPerformance", "--bootstrap-server", system.boot, "--topic", topic, "--num-records", str(records),
                  "--payload-file", payloads(size), "--throughput", "-1", "--reporting-interval", "1000",
                  "--command-property", "acks=all", f"batch.size={batch}", "linger.ms=5"))
    m = SENT.findall(out)[-1]
    return {"records_per_s": float(m[1]), "cpu_s_per_M": (procstat.cpu_s(system.pid) - before) / records * 1e6, "p50_ms": int(m[5]), "p95_ms": int(m[6]),
            "p99_ms": int(m[7]), "rss_mib": system.rss_mib, "others": others.share()}


def consume(system, topic, records, run):
    others, before = procstat.Others([system.pid]), procstat.cpu_s(system.pid)
    out = sh(java("org.apache.kafka.tools.ConsumerPerformance", "--bootstrap-server", system.boot, "--topic", topic, "--num-records", str(records), "--timeout", "30000", "--group", f"g{run}{time.time()}"))
    head, row = [[c.strip() for c in l.split(",")] for l in out.strip().splitlines()[-2:]]
    found = dict(zip(head, row))
    rate = next(float(v) for k, v in found.items() if k.startswith("fetch.nMsg.sec"))
    return {"records_per_s": rate, "cpu_s_per_M": (procstat.cpu_s(system.pid) - before) / records * 1e6, "others": others.share()}


def rdk(system, *arguments):
    said = sh([f"{HOME}/python/bin/python", f"{HERE}/rdk.py", system.boot, *map(str, arguments)])
    return json.loads(next(l for l in said.splitlines() if l.startswith("{")))


RESULTS = []


def note(row, what, unit, better, ours, theirs, target=None, load=0.0):
    """One figure: medians of both, and the ratio that says how much better is better."""
    a, b = statistics.median(ours), statistics.median(theirs)
    line = {"row": row, "what": what, "unit": unit, "better": better, "callboard": a, "kafka": b, "ratio": a / b if b else None,
            "all": [ours, theirs], "target": target, "others": load}
    RESULTS.append(line)
    print(f"{row:10} {what:58} {a:12.3f} {b:12.3f} {unit:14} ratio {a / b if b else 0:.3f} target {target or '-'} others {load:.2f}", flush=True)
    json.dump(RESULTS, open(f"{OUT}/results.json", "w"), indent=1)


def both(measure):
    """Alternates; the first round of each is warm-up and does not count."""
    ours, theirs = [], []
    for n in range(A.runs + 1):
        x, y = measure(CB, n), measure(KA, n)
        if n:
            ours.append(x); theirs.append(y)
    return ours, theirs


def column(results, key):
    return [r[key] for r in results]


MATRIX = [(100, 262144, 3000000), (100, 16384, 1200000), (1024, 262144, 600000), (1024, 16384, 250000)]


def row_produce():
    for partitions in (1, 12):
        for size, batch, records in MATRIX:
            topic = f"p{partitions}-{size}-{batch}"
            create(CB, topic, partitions); create(KA, topic, partitions)
            ours, theirs = both(lambda s, n: produce(s, topic, size, batch, records))
            name, load = f"{size} B, batches of {batch >> 10} KiB, {partitions} partition(s)", max(column(ours + theirs, "others"))
            note("produce", name, "CPU-s/M", "less", column(ours, "cpu_s_per_M"), column(theirs, "cpu_s_per_M"), "<= 0.5", load)
            note("produce", name, "records/s", "more", column(ours, "records_per_s"), column(theirs, "records_per_s"), ">= 1", load)
            note("produce", name, "p99 ms", "less", column(ours, "p99_ms"), column(theirs, "p99_ms"), None, load)


def row_sync():
    for size, batch, records, target in [(1024, 16384, 40000, ">= 10"), (100, 262144, 300000, ">= 5")]:
        topic = f"s-{size}"
        create(CB, topic); create(KA, topic, configs=["flush.messages=1"])
        ours, theirs = both(lambda s, n: produce(s, topic, size, batch, records if s is CB else records // 4))
        name, load = f"{size} B, batches of {batch >> 10} KiB, both sync", max(column(ours + theirs, "others"))
        note("sync", name, "records/s", "more", column(ours, "records_per_s"), column(theirs, "records_per_s"), target, load)
        note("sync", name, "CPU-s/M", "less", column(ours, "cpu_s_per_M"), column(theirs, "cpu_s_per_M"), None, load)


def row_consume():
    for size, records in [(100, 2000000), (1024, 500000)]:
        topic = f"c-{size}"
        for s in (CB, KA):
            create(s, topic); produce(s, topic, size, 262144, records)
        ours, theirs = both(lambda s, n: consume(s, topic, records, n))
        load = max(column(ours + theirs, "others"))
        note("consume", f"{size} B", "CPU-s/M", "less", column(ours, "cpu_s_per_M"), column(theirs, "cpu_s_per_M"), "<= 1", load)
        note("consume", f"{size} B", "records/s", "more", column(ours, "records_per_s"), column(theirs, "records_per_s"), ">= 1", load)


def row_latency():
    ours, theirs = both(lambda s, n: rdk(s, "latency", f"l{n}-{time.time()}", 2000))
    for q in ("p50", "p95", "p99"):
        note("latency", f"one record in flight, produce to consume, {q}", "ms", "less", column(ours, q), column(theirs, q), {"p50": "0.5 ms", "p99": "<= 1"}.get(q))


def row_partitions():
    ours, theirs = both(lambda s, n: rdk(s, "partitions", f"many{n}-{time.time()}", 1000, 0))
    note("partitions", "1,000 partitions created and led", "s", "less", column(ours, "led_s"), column(theirs, "led_s"), "0.3 s")
    one = [rdk(CB, "spread", f"one{n}-{time.time()}", 1, 60000)["records_per_s"] for n in range(A.runs)]
    many = [rdk(CB, "spread", f"thousand{n}-{time.time()}", 1000, 60000)["records_per_s"] for n in range(A.runs)]
    note("partitions", "Callboard: 1,000 partitions beside 1, 16 KiB batches (second figure: 1)", "records/s", "more", many, one, ">= 0.5")


def first_ack(s, topic):
    began = time.monotonic()
    s.start(wait=True)
    up = (time.monotonic() - began) * 1e3
    return up + rdk(s, "first", topic)["ms"]


def row_start():
    """Fresh, and after kill -9; the client's own start does not count."""
    figures = {}
    for kind in (Callboard, Kafka):
        fresh, killed, many = [], [], []
        for n in range(A.runs):
            s = kind(kind.__name__.lower())
            fresh.append(first_ack(s, "first")); s.stop(kill=True)
            killed.append(first_ack(s, "first"))
            if n == 0:
                rdk(s, "partitions", "many", 1000, 20)
                s.stop(kill=True)
                began = time.monotonic(); s.start()
                up = (time.monotonic() - began) * 1e3
                many.append(up + rdk(s, "all", "many", 1000)["ms"])
            s.remove()
        figures[kind] = (fresh, killed, many)
    ours, theirs = figures[Callboard], figures[Kafka]
    note("start", "start to first acknowledged record", "ms", "less", ours[0], theirs[0], "60 ms")
    note("start", "after kill -9, one partition", "ms", "less", ours[1], theirs[1], "60 ms")
    note("start", "after kill -9, 1,000 partitions with data, all of them", "ms", "less", ours[2], theirs[2], "500 ms")


def row_memory():
    figures = {}
    for kind in (Callboard, Kafka):
        s = kind(kind.__name__.lower()).start()
        time.sleep(3)
        idle = s.rss_mib
        cpu = procstat.cpu_s(s.pid); time.sleep(10)
        busy = (procstat.cpu_s(s.pid) - cpu) / 10 * 100
        create(s, "load", 12)
        produce(s, "load", 1024, 262144, 250000); consume(s, "load", 250000, 0)
        loaded = procstat.mem(s.pid)["VmHWM"]
        before = s.rss_mib
        rdk(s, "partitions", "many", 5000, 0)
        each = (s.rss_mib - before) * 1024 / 5000
        figures[kind] = (idle, busy, loaded, each); s.remove()
    for n, (what, unit, target) in enumerate([("idle memory", "MiB", "25 MiB"), ("idle CPU", "%", "1 %"), ("memory under load, peak", "MiB", "60 MiB"), ("memory per idle partition, 5,000 of them", "KiB", "12 KiB")]):
        note("memory", what, unit, "less", [figures[Callboard][n]], [figures[Kafka][n]], target)


def picture(path):
    """Ratios of what decides, as bars: below 1 is less than Kafka."""
    lines = [r for r in RESULTS if r["unit"] == "CPU-s/M" or (r["unit"] == "records/s" and r["row"] in ("produce", "sync"))]
    height = 22 * len(lines) + 60
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="860" height="{height}" font-family="sans-serif" font-size="12">',
           '<rect width="860" height="100%" fill="white"/><text x="10" y="20" font-weight="bold">Callboard as a multiple of Apache Kafka 4.4 (CPU: shorter is better; records/s: longer is better)</text>']
    top = max([2.0] + [r["ratio"] for r in lines])
    for n, r in enumerate(lines):
        y, w = 36 + 22 * n, 420 * min(r["ratio"], top) / top
        good = r["ratio"] <= 1 if r["better"] == "less" else r["ratio"] >= 1
        out.append(f'<text x="330" y="{y + 12}" text-anchor="end">{r["row"]}: {r["what"]} ({r["unit"]})</text><rect x="340" y="{y}" width="{w:.0f}" height="15" fill="{"#2a7" if good else "#c63"}"/><text x="{345 + w:.0f}" y="{y + 12}">{r["ratio"]:.2f}</text>')
    x = 340 + 420 / top
    out.append(f'<line x1="{x:.0f}" y1="30" x2="{x:.0f}" y2="{height - 20}" stroke="#444" stroke-dasharray="3"/><text x="{x:.0f}" y="{height - 6}" text-anchor="middle">Kafka</text></svg>')
    open(path, "w").write("\n".join(out) + "\n")


def table(path):
    text = open(path).read()
    begin, end = "<!-- bench begin -->\n", "<!-- bench end -->"
    version = subprocess.run(["java", "-version"], capture_output=True, text=True).stderr.splitlines()[0]
    load = max(r["others"] for r in RESULTS)
    rows = [f"Written by `cluster-tests/bench/run.py` ({A.runs} runs after a warm-up, alternately, medians); {os.cpu_count()} cores, "
            f"{version}; other programs took at most {load:.0%} of the machine during a run.\n",
            "| | what | unit | Callboard | Kafka 4.4 | ratio | target |", "|---|---|---|---|---|---|---|"]
    for r in RESULTS:
        ratio = f"{r['ratio']:.2f}" if r["ratio"] is not None else "-"
        rows.append(f"| {r['row']} | {r['what']} | {r['unit']} | {r['callboard']:.4g} | {r['kafka']:.4g} | {ratio} | {r['target'] or ''} |")
    head, rest = text.split(begin)
    open(path, "w").write(head + begin + "\n".join(rows) + "\n" + end + rest.split(end)[1])
    picture(os.path.join(os.path.dirname(os.path.abspath(path)), "benchmarks.svg"))


ALL = ["produce", "sync", "consume", "latency", "partitions", "start", "memory"]
install()
wanted = A.rows or ALL
if A.rows and os.path.exists(f"{OUT}/results.json"):
    # Rows that are not measured now keep their last figures.
    RESULTS += [r for r in json.load(open(f"{OUT}/results.json")) if r["row"] not in wanted]
if set(wanted) - {"start", "memory"}:
    CB, KA = Callboard("callboard").start(), Kafka("kafka").start()
    # Java compiles while it runs: Kafka is measured warm.
    for system in (KA, CB, KA) if {"produce", "sync", "consume"} & set(wanted) else ():
        create(system, "warm")
        for size, batch, records in MATRIX:
            produce(system, "warm", size, batch, records)
        consume(system, "warm", 2000000, 0)
try:
    for name in wanted:
        globals()[f"row_{name}"]()
finally:
    for s in (globals().get("CB"), globals().get("KA")):
        if s:
            s.remove()
RESULTS.sort(key=lambda r: ALL.index(r["row"]))
if A.table:
    table(A.table)
