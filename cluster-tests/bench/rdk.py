#!/usr/bin/env python3
"""librdkafka (confluent-kafka) against any Kafka-protocol broker; one JSON line.

  rdk.py BOOTSTRAP latency TOPIC [RECORDS [RF]]    one record in flight: produce to consume, ms
  rdk.py BOOTSTRAP first TOPIC                     one record, tried until it is acknowledged; ms since this program began to try
  rdk.py BOOTSTRAP partitions TOPIC COUNT FILL [RF]  creates a topic, waits until all are led, writes FILL records of 1 KiB to each
  rdk.py BOOTSTRAP all TOPIC COUNT                 one record to each partition, until all are acknowledged; ms
  rdk.py BOOTSTRAP create3 TOPIC                   creates a topic with one partition and three replicas
  rdk.py BOOTSTRAP describe TOPIC                  who leads partition 0, keeps it, is in sync
  rdk.py BOOTSTRAP led TOPIC NODE                  waits until all partitions are led, none by NODE; s
  rdk.py BOOTSTRAP insync TOPIC REPLICAS           waits until so many replicas of all partitions are in sync; s
  rdk.py BOOTSTRAP steady TOPIC RATE               RATE records/s until standard input ends; tells gaps between acknowledgements of 10 ms and
                                                   more as they end, then reads all and checks it
  rdk.py BOOTSTRAP spread TOPIC COUNT RECORDS      RECORDS of 1 KiB to COUNT partitions in turn, batches of 16 KiB; records/s
"""
import json, os, sys, threading, time
from confluent_kafka import OFFSET_END, Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

boot, mode, topic = sys.argv[1:4]
FAST = {"bootstrap.servers": boot, "acks": "all", "linger.ms": 0, "reconnect.backoff.ms": 2, "reconnect.backoff.max.ms": 10, "retry.backoff.ms": 5,
        "retry.backoff.max.ms": 20, "topic.metadata.refresh.fast.interval.ms": 10, "message.timeout.ms": 120000, "log_level": 0}


def create(count, rf=1):
    admin = AdminClient({"bootstrap.servers": boot})
    began = time.monotonic()
    while True:
        try:
            admin.create_topics([NewTopic(topic, count, rf)], operation_timeout=120, request_timeout=120)[topic].result(120)
            break
        except KafkaException as e:
            # Nodes that have just started may not be there yet.
            if "REPLICATION_FACTOR" not in str(e) or time.monotonic() - began > 30:
                raise
            time.sleep(0.2)
    while True:
        seen = admin.list_topics(topic, timeout=30).topics[topic].partitions
        if len(seen) == count and all(p.leader >= 0 for p in seen.values()):
            return time.monotonic() - began
        time.sleep(0.01)


def latency(records, rf):
    create(1, rf)
    p = Producer(FAST)
    c = Consumer({"bootstrap.servers": boot, "group.id": "latency", "fetch.wait.max.ms": 500, "enable.auto.commit": False})
    c.assign([TopicPartition(topic, 0, OFFSET_END)])
    end = time.monotonic() + 2
    while time.monotonic() < end:
        c.poll(0.1)
    times, body = [], os.urandom(100)
    for i in range(records + 200):
        t = time.monotonic_ns()
        p.produce(topic, body, partition=0); p.poll(0)
        m = c.poll(10)
        if i >= 200 and m is not None and not m.error():
            times.append((time.monotonic_ns() - t) / 1e6)
    times.sort()
    at = lambda q: round(times[min(len(times) - 1, int(q * len(times)))], 3)
    c.close()
    return {"p50": at(.5), "p95": at(.95), "p99": at(.99), "records": len(times)}


def acknowledged(partitions):
    p, left, began = Producer(dict(FAST, **{"allow.auto.create.topics": True})), [len(partitions)], time.monotonic()
    for n in partitions:
        p.produce(topic, b"first", **({} if n is None else {"partition": n}),
                  on_delivery=lambda e, m: left.__setitem__(0, left[0] - (e is None)))
    while left[0] and time.monotonic() - began < 120:
        p.poll(0.002)
    return {"ms": round((time.monotonic() - began) * 1e3, 1)}


def fill(count, each):
    p = Producer({"bootstrap.servers": boot, "acks": "all", "linger.ms": 20, "queue.buffering.max.messages": 1000000, "queue.buffering.max.kbytes": 1048576})
    for _ in range(each):
        for n in range(count):
            p.produce(topic, os.urandom(32) * 32, partition=n)
        p.poll(0)
    p.flush(300)


def spread(count, records):
    create(count)
    p = Producer({"bootstrap.servers": boot, "acks": "all", "linger.ms": 20, "batch.size": 16384, "queue.buffering.max.messages": 1000000, "queue.buffering.max.kbytes": 1048576})
    body, began = os.urandom(32) * 32, time.monotonic()
    for i in range(records):
        # Sixteen records in turn, so that batches are as large as with one partition.
        p.produce(topic, body, partition=i // 16 % count)
        if i % 1000 == 0:
            p.poll(0)
    p.flush(120)
    return {"records_per_s": round(records / (time.monotonic() - began))}


def until(done):
    admin, began = AdminClient({"bootstrap.servers": boot}), time.monotonic()
    while True:
        try:
            if all(done(p) for p in admin.list_topics(topic, timeout=5).topics[topic].partitions.values()):
                return {"s": round(time.monotonic() - began, 3)}
        except KafkaException:
            pass
        if time.monotonic() - began > 180:
            sys.exit("not within 180 s")
        time.sleep(0.02)


def steady(rate):
    p = Producer({"bootstrap.servers": boot, "acks": "all", "enable.idempotence": True, "linger.ms": 1, "message.timeout.ms": 120000, "retry.backoff.ms": 20,
                  "retry.backoff.max.ms": 200, "reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 200, "topic.metadata.refresh.fast.interval.ms": 50,
                  "queue.buffering.max.messages": 1000000, "log_level": 0})
    acked, failed, last, ended = set(), [], [None], threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()

    def done(i):
        def told(error, _):
            now = time.monotonic()
            if error is not None:
                failed.append(str(error)); return
            if last[0] is not None and now - last[0] >= 0.01:
                print(json.dumps({"gap_ms": round((now - last[0]) * 1e3, 1), "ended_at_ms": time.time() * 1e3}), flush=True)
            last[0] = now; acked.add(i)
        return told
    i, began = 0, time.monotonic()
    while not ended.is_set():
        due = began + i / rate - time.monotonic()
        if due > 0:
            # It waits whole milliseconds: less would be a busy loop.
            p.poll(0.001); continue
        p.produce(topic, b"%d" % i, partition=0, on_delivery=done(i)); i += 1
        p.poll(0)
    left = p.flush(60)
    c = Consumer({"bootstrap.servers": boot, "group.id": "check", "enable.auto.commit": False, "isolation.level": "read_committed"})
    end = c.get_watermark_offsets(TopicPartition(topic, 0), timeout=30)[1]
    c.assign([TopicPartition(topic, 0, 0)])
    ids, at = [], 0
    while at < end:
        for m in c.consume(5000, timeout=1):
            if not m.error():
                ids.append(int(m.value())); at = m.offset() + 1
    seen = set(ids)
    return {"sent": i, "acked": len(acked), "failed": len(failed) + left, "lost": len(acked - seen), "duplicated": len(ids) - len(seen),
            "disorder": sum(x > y for x, y in zip(ids, ids[1:]))}


if mode == "latency":
    out = latency(*(int(v) for v in (sys.argv[4:] + ["3000", "1"][len(sys.argv) - 4:])))
elif mode == "first":
    out = acknowledged([None])
elif mode == "all":
    out = acknowledged(list(range(int(sys.argv[4]))))
elif mode == "create3":
    out = {"led_s": create(1, 3)}
elif mode == "describe":
    seen = AdminClient({"bootstrap.servers": boot}).list_topics(topic, timeout=30)
    found = seen.topics[topic].partitions[0]
    out = {"leader": found.leader, "replicas": found.replicas, "isr": found.isrs, "controller": seen.controller_id}
elif mode == "led":
    gone = int(sys.argv[4])
    out = until(lambda p: p.leader >= 0 and p.leader != gone)
elif mode == "insync":
    wanted = int(sys.argv[4])
    out = until(lambda p: len(p.isrs) == wanted)
elif mode == "steady":
    out = steady(float(sys.argv[4]))
elif mode == "spread":
    out = spread(int(sys.argv[4]), int(sys.argv[5]))
else:
    out = {"led_s": round(create(int(sys.argv[4]), int((sys.argv[6:] or [1])[0])), 3)}
    fill(int(sys.argv[4]), int(sys.argv[5]))
print(json.dumps(out))
