"""aiokafka."""
import asyncio, sys, time
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from scene import *

boot = sys.argv[1]
topic, groups = "i-aio", "g-aio"
part = TopicPartition(topic, 0)


async def until(what, condition, seconds=60):
    end = time.time() + seconds
    while not condition():
        if time.time() > end:
            sys.exit(f"FAILED {what}: not within {seconds} s")
        await asyncio.sleep(0.02)


def consumer(*topics, group, **more):
    return AIOKafkaConsumer(*topics, bootstrap_servers=boot, group_id=group, enable_auto_commit=False, auto_offset_reset="earliest", **more)


async def read(count):
    c = consumer(group="r"); c.assign([part]); await c.start(); await c.seek_to_beginning(part)
    out, end = [], time.time() + 60
    while len(out) < count and time.time() < end:
        for batch in (await c.getmany(timeout_ms=1000)).values():
            out += [(m.offset, m.key, m.value, list(m.headers), m.timestamp) for m in batch]
    return c, out


async def main():
    admin = AIOKafkaAdminClient(bootstrap_servers=boot)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 1, 1, topic_configs={"retention.ms": "86400000"}), NewTopic(groups, GROUP_PARTITIONS - 1, 1)])
    await admin.create_partitions({groups: NewPartitions(GROUP_PARTITIONS)})
    described = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    same("configs", "86400000" in str(described), True)
    step("admin")
    for c, codec in enumerate(CODECS):
        async with AIOKafkaProducer(bootstrap_servers=boot, compression_type=None if codec == "none" else codec, linger_ms=5, acks="all") as p:
            sent = []
            for i in range(c * PER_CODEC, (c + 1) * PER_CODEC):
                key, value, headers, ts = record(i)
                sent.append(await p.send(topic, value, key, headers=headers, timestamp_ms=ts))
            got = [(await s).offset for s in sent]
        same("produce " + codec, got, list(range(c * PER_CODEC, (c + 1) * PER_CODEC)))
    total = PER_CODEC * len(CODECS)
    c, got = await read(total)
    same("records", got, [(i, *record(i)) for i in range(total)])
    step("every codec, headers and timestamps")
    same("offset by time", (await c.offsets_for_times({part: BASE_MS + 77}))[part].offset, 77)
    step("seek by time")
    await c.commit({part: (120, "a note")})
    await c.stop()
    c = consumer(topic, group="r"); await c.start()
    same("committed", await c.committed(part), 120)
    same("resume", (await c.getone()).offset, 120)
    await c.stop()
    step("commit and resume")

    seen, had, stop = {}, [False] * 3, [False] * 3

    async def member(n):
        c = consumer(groups, group="three-aio", session_timeout_ms=6000, heartbeat_interval_ms=300)
        await c.start()
        while not stop[n]:
            for batch in (await c.getmany(timeout_ms=100)).values():
                seen.update({(m.partition, m.offset): m.value for m in batch})
            had[n] |= bool(c.assignment())
        await c.stop()

    members = [asyncio.create_task(member(n)) for n in range(3)]
    await until("three members with partitions", lambda: all(had))
    p = AIOKafkaProducer(bootstrap_servers=boot, acks="all", enable_idempotence=True); await p.start()
    for i in range(GROUP_RECORDS):
        await p.send(groups, b"%d" % i, partition=i % GROUP_PARTITIONS)
    await p.flush()
    await until("all of the group", lambda: len(seen) == GROUP_RECORDS)
    stop[2] = True; await members[2]
    for i in range(60):
        await p.send(groups, b"%d" % (GROUP_RECORDS + i), partition=i % GROUP_PARTITIONS)
    await p.flush()
    await until("all after one left", lambda: len(seen) == GROUP_RECORDS + 60)
    stop[:] = [True] * 3
    await asyncio.gather(*members)
    same("each record once", sorted(int(v) for v in seen.values()), list(range(GROUP_RECORDS + 60)))
    step("group of three with a rebalance")

    sent = []
    for i in range(total, total + 50):
        key, value, headers, ts = record(i)
        sent.append(await p.send(topic, value, key, headers=headers, timestamp_ms=ts))
        if i == total + 20:
            await p.flush(); await asyncio.to_thread(restart)
    await p.flush()
    same("produce over a restart", [(await s).offset for s in sent], list(range(total, total + 50)))
    c, got = await read(total + 50)
    same("records after a restart", got, [(i, *record(i)) for i in range(total + 50)])
    await c.stop(); await p.stop()
    step("broker restart in the middle")
    await admin.delete_topics([topic, groups])
    await admin.close()
    step("delete topics")


asyncio.run(main())
