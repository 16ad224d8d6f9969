"""confluent-kafka (librdkafka)."""
import sys, threading, time
from confluent_kafka import Consumer, Producer, TopicPartition, OFFSET_BEGINNING
from confluent_kafka.admin import (AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic, ResourceType)
from scene import *

boot = sys.argv[1]
topic, groups = "i-confluent", "g-confluent"
admin = AdminClient({"bootstrap.servers": boot})


def done(futures):
    return {k: f.result(30) for k, f in futures.items()}


done(admin.create_topics([NewTopic(topic, 1, 1, config={"retention.ms": "86400000"}), NewTopic(groups, GROUP_PARTITIONS - 1, 1)]))
done(admin.create_partitions([NewPartitions(groups, GROUP_PARTITIONS)]))
wait("six partitions", lambda: len(admin.list_topics(groups, timeout=10).topics[groups].partitions) == GROUP_PARTITIONS)
resource = ConfigResource(ResourceType.TOPIC, topic)
done(admin.incremental_alter_configs([ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[
    ConfigEntry("segment.bytes", "1048576", incremental_operation=AlterConfigOpType.SET)])]))
config = done(admin.describe_configs([resource]))[resource]
same("configs", (config["retention.ms"].value, config["segment.bytes"].value, config["cleanup.policy"].is_default),
     ("86400000", "1048576", True))
step("admin")

for c, codec in enumerate(CODECS):
    errors, p = [], Producer({"bootstrap.servers": boot, "compression.type": codec, "linger.ms": 5, "enable.idempotence": True})
    for i in range(c * PER_CODEC, (c + 1) * PER_CODEC):
        key, value, headers, ts = record(i)
        p.produce(topic, value, key, headers=headers, timestamp=ts, on_delivery=lambda e, m: e and errors.append(e))
    same("produce " + codec, (p.flush(30), errors), (0, []))
total = PER_CODEC * len(CODECS)


def read(count, group="r", at=OFFSET_BEGINNING):
    c = Consumer({"bootstrap.servers": boot, "group.id": group, "enable.auto.commit": False, "auto.offset.reset": "earliest"})
    c.assign([TopicPartition(topic, 0, at)])
    out, end = [], time.time() + 60
    while len(out) < count and time.time() < end:
        m = c.poll(1)
        if m is not None and not m.error():
            out.append((m.offset(), m.key(), m.value(), m.headers(), m.timestamp()[1]))
    return c, out


c, got = read(total)
same("records", got, [(i, *record(i)) for i in range(total)])
step("every codec, headers and timestamps")
found = c.offsets_for_times([TopicPartition(topic, 0, BASE_MS + 77)], timeout=20)
same("offset by time", found[0].offset, 77)
step("seek by time")
c.commit(offsets=[TopicPartition(topic, 0, 120, metadata="a note")], asynchronous=False)
c.close()
c = Consumer({"bootstrap.servers": boot, "group.id": "r", "auto.offset.reset": "earliest", "enable.auto.commit": False})
same("committed", c.committed([TopicPartition(topic, 0)], timeout=20)[0].offset, 120)
c.subscribe([topic])
first = None
while first is None:
    first = c.poll(10)
same("resume", (first.error(), first.offset()), (None, 120))
c.close()
step("commit and resume")

seen, lock, had, stop = {}, threading.Lock(), [False] * 3, [threading.Event() for _ in range(3)]


def member(n):
    c = Consumer({"bootstrap.servers": boot, "group.id": "three", "auto.offset.reset": "earliest", "session.timeout.ms": 6000,
                  "heartbeat.interval.ms": 300, "partition.assignment.strategy": "cooperative-sticky" if len(sys.argv) > 2 else "range"})
    c.subscribe([groups])
    while not stop[n].is_set():
        m = c.poll(0.1)
        had[n] |= bool(c.assignment())
        if m is not None and not m.error():
            with lock:
                seen[(m.partition(), m.offset())] = m.value()
    c.close()


threads = [threading.Thread(target=member, args=(n,), daemon=True) for n in range(3)]
[t.start() for t in threads]
wait("three members with partitions", lambda: all(had), lambda: f"had some: {had}")
p = Producer({"bootstrap.servers": boot})
for i in range(GROUP_RECORDS):
    p.produce(groups, b"%d" % i, partition=i % GROUP_PARTITIONS)
p.flush(30)
wait("all of the group", lambda: len(seen) == GROUP_RECORDS)
stop[2].set(); threads[2].join()
for i in range(60):
    p.produce(groups, b"%d" % (GROUP_RECORDS + i), partition=i % GROUP_PARTITIONS)
p.flush(30)
wait("all after one left", lambda: len(seen) == GROUP_RECORDS + 60)
[s.set() for s in stop]; [t.join() for t in threads]
same("each record once", sorted(int(v) for v in seen.values()), list(range(GROUP_RECORDS + 60)))
step("group of three with a rebalance")

p = Producer({"bootstrap.servers": boot, "enable.idempotence": True})
errors = []
for i in range(total, total + 50):
    key, value, headers, ts = record(i)
    p.produce(topic, value, key, headers=headers, timestamp=ts, on_delivery=lambda e, m: e and errors.append(e))
    if i == total + 20:
        p.poll(0); restart()
same("produce over a restart", (p.flush(60), errors), (0, []))
c, got = read(total + 50)
same("records after a restart", got, [(i, *record(i)) for i in range(total + 50)])
c.close()
step("broker restart in the middle")

same("delete records", done(admin.delete_records([TopicPartition(topic, 0, 100)]))[TopicPartition(topic, 0, 100)].low_watermark, 100)
wait("the group is empty", lambda: done(admin.describe_consumer_groups(["three"]))["three"].state.name == "EMPTY")
done(admin.delete_consumer_groups(["three"]))
done(admin.delete_topics([topic, groups]))
step("delete records, groups and topics")
