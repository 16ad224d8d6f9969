"""kafka-python."""
import sys, threading, time
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.structs import OffsetAndMetadata
from kafka.admin import KafkaAdminClient, ConfigResource, ConfigResourceType, NewPartitions, NewTopic
from scene import *

boot = sys.argv[1]
topic, groups = "i-kafkapython", "g-kafkapython"
admin = KafkaAdminClient(bootstrap_servers=boot)
admin.create_topics([NewTopic(topic, 1, 1, topic_configs={"retention.ms": "86400000"}), NewTopic(groups, GROUP_PARTITIONS - 1, 1)])
admin.create_partitions({groups: NewPartitions(GROUP_PARTITIONS)})
described = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
same("configs", "86400000" in str(described), True)
step("admin")

for c, codec in enumerate(CODECS):
    p = KafkaProducer(bootstrap_servers=boot, compression_type=None if codec == "none" else codec, linger_ms=5, acks="all")
    sent = []
    for i in range(c * PER_CODEC, (c + 1) * PER_CODEC):
        key, value, headers, ts = record(i)
        sent.append(p.send(topic, value, key, headers=headers, timestamp_ms=ts))
    p.flush(30)
    same("produce " + codec, [s.get(1).offset for s in sent], list(range(c * PER_CODEC, (c + 1) * PER_CODEC)))
    p.close()
total = PER_CODEC * len(CODECS)
part = TopicPartition(topic, 0)


def consumer(group, **more):
    return KafkaConsumer(bootstrap_servers=boot, group_id=group, enable_auto_commit=False, auto_offset_reset="earliest", **more)


def read(count):
    c = consumer("r"); c.assign([part]); c.seek_to_beginning(part)
    out, end = [], time.time() + 60
    while len(out) < count and time.time() < end:
        for batch in c.poll(1000).values():
            out += [(m.offset, m.key, m.value, list(m.headers), m.timestamp) for m in batch]
    return c, out


c, got = read(total)
same("records", got, [(i, *record(i)) for i in range(total)])
step("every codec, headers and timestamps")
same("offset by time", c.offsets_for_times({part: BASE_MS + 77})[part].offset, 77)
step("seek by time")
c.commit({part: OffsetAndMetadata(120, "a note", -1)})
c.close()
c = consumer("r")
same("committed", c.committed(part), 120)
c.subscribe([topic])
same("resume", next(c).offset, 120)
c.close()
step("commit and resume")

seen, lock, had, stop = {}, threading.Lock(), [False] * 3, [threading.Event() for _ in range(3)]


def member(n):
    c = consumer("three", session_timeout_ms=6000, heartbeat_interval_ms=300)
    c.subscribe([groups])
    # kafka-python 3.0.12 loses the answer to a join that began because metadata arrived, if poll() ends between JoinGroup's answer
    # and SyncGroup's (need_rejoin() forgets _join_task; so too against Apache Kafka 4.4): the topic is known before the first join.
    while not c.partitions_for_topic(groups):
        time.sleep(0.05)
    while not stop[n].is_set():
        for batch in c.poll(100).values():
            with lock:
                seen.update({(m.partition, m.offset): m.value for m in batch})
            c.commit()
        had[n] |= bool(c.assignment())
    c.close()


threads = [threading.Thread(target=member, args=(n,), daemon=True) for n in range(3)]
[t.start() for t in threads]
wait("three members with partitions", lambda: all(had), lambda: f"had some: {had}")
p = KafkaProducer(bootstrap_servers=boot, acks="all")
for i in range(GROUP_RECORDS):
    p.send(groups, b"%d" % i, partition=i % GROUP_PARTITIONS)
p.flush(30)
wait("all of the group", lambda: len(seen) == GROUP_RECORDS)
stop[2].set(); threads[2].join()
for i in range(60):
    p.send(groups, b"%d" % (GROUP_RECORDS + i), partition=i % GROUP_PARTITIONS)
p.flush(30)
wait("all after one left", lambda: len(seen) == GROUP_RECORDS + 60)
[s.set() for s in stop]; [t.join() for t in threads]
same("each record once", sorted(int(v) for v in seen.values()), list(range(GROUP_RECORDS + 60)))
step("group of three with a rebalance")

sent = []
for i in range(total, total + 50):
    key, value, headers, ts = record(i)
    sent.append(p.send(topic, value, key, headers=headers, timestamp_ms=ts))
    if i == total + 20:
        p.flush(30); restart()
p.flush(60)
same("produce over a restart", [s.get(30).offset for s in sent], list(range(total, total + 50)))
c, got = read(total + 50)
same("records after a restart", got, [(i, *record(i)) for i in range(total + 50)])
c.close(); p.close()
step("broker restart in the middle")
same("delete records", "100" in str(admin.delete_records({part: 100})), True)
admin.delete_groups(["three"]) if hasattr(admin, "delete_groups") else admin.delete_consumer_groups(["three"])
admin.delete_topics([topic, groups])
step("delete records, groups and topics")
