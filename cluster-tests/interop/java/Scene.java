// Kafka's Java client.
import java.time.Duration;
import java.util.*;
import java.util.concurrent.*;
import java.util.concurrent.atomic.*;
import java.util.function.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.*;
import org.apache.kafka.common.config.*;
import org.apache.kafka.common.header.internals.*;
import org.apache.kafka.common.serialization.*;

public class Scene {
    static final String TOPIC = "i-java", GROUPS = "g-java";
    static final int PER_CODEC = 40, PARTITIONS = 6, RECORDS = 600;
    static final long BASE = System.currentTimeMillis() - 3_600_000;
    static String boot;

    static void step(String name) { System.out.println("ok " + name); System.out.flush(); }
    static void fail(String what) { System.out.println("FAILED " + what); System.out.flush(); Runtime.getRuntime().halt(1); }
    static void same(String what, Object got, Object wanted) { if (!Objects.equals(got, wanted)) fail(what + ": got " + got + " wanted " + wanted); }
    static void await(String what, BooleanSupplier holds) throws Exception {
        long end = System.currentTimeMillis() + 60_000;
        while (!holds.getAsBoolean()) { if (System.currentTimeMillis() > end) fail(what + ": not within 60 s"); Thread.sleep(20); }
    }
    static Map<String, Object> with(Object... more) {
        Map<String, Object> m = new HashMap<>(Map.of("bootstrap.servers", boot));
        for (int i = 0; i < more.length; i += 2) m.put((String) more[i], more[i + 1]);
        return m;
    }
    static byte[] key(int i) { return i % 10 == 9 ? null : ("k" + i).getBytes(); }
    static byte[] value(int i) { return ("value " + i + " ").repeat(i % 7 == 6 ? 2000 : 3).getBytes(); }
    static ProducerRecord<byte[], byte[]> record(int i) {
        return new ProducerRecord<>(TOPIC, 0, BASE + i, key(i), value(i), List.of(new RecordHeader("n", ("" + i).getBytes()), new RecordHeader("empty", new byte[0])));
    }
    static KafkaProducer<byte[], byte[]> producer(Object... more) { return new KafkaProducer<>(with(more), new ByteArraySerializer(), new ByteArraySerializer()); }
    static KafkaConsumer<byte[], byte[]> consumer(Object... more) {
        Map<String, Object> m = with("enable.auto.commit", "false", "auto.offset.reset", "earliest", "session.timeout.ms", "6000", "heartbeat.interval.ms", "300");
        for (int i = 0; i < more.length; i += 2) m.put((String) more[i], more[i + 1]);
        return new KafkaConsumer<>(m, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }
    static void readAll(int count) {
        try (var c = consumer()) {
            var part = new TopicPartition(TOPIC, 0);
            c.assign(List.of(part)); c.seekToBeginning(List.of(part));
            int i = 0;
            for (long end = System.currentTimeMillis() + 60_000; i < count; ) {
                if (System.currentTimeMillis() > end) fail("record " + i + " does not come");
                for (var r : c.poll(Duration.ofSeconds(1))) {
                    if (r.offset() != i || !Arrays.equals(r.key(), key(i)) || !Arrays.equals(r.value(), value(i)) || r.timestamp() != BASE + i
                            || !new String(r.headers().lastHeader("n").value()).equals("" + i) || r.headers().lastHeader("empty").value().length != 0) fail("record " + i + " is " + r);
                    i++;
                }
            }
        }
    }
    static class Member extends Thread {
        final Map<String, Integer> seen; final AtomicBoolean stop = new AtomicBoolean(), had = new AtomicBoolean(); final String assignor;
        Member(Map<String, Integer> seen, String assignor) { this.seen = seen; this.assignor = assignor; start(); }
        public void run() {
            try (var c = consumer("group.id", "three-java", "partition.assignment.strategy", assignor)) {
                c.subscribe(List.of(GROUPS));
                while (!stop.get()) {
                    for (var r : c.poll(Duration.ofMillis(100))) seen.put(r.partition() + ":" + r.offset(), Integer.parseInt(new String(r.value())));
                    if (!c.assignment().isEmpty()) had.set(true);
                    try { c.commitSync(); } catch (CommitFailedException | org.apache.kafka.common.errors.RebalanceInProgressException moved) { }
                }
            }
        }
    }

    public static void main(String[] args) throws Exception {
        boot = args[0];
        Admin admin = Admin.create(with());
        admin.createTopics(List.of(new NewTopic(TOPIC, 1, (short) 1).configs(Map.of("retention.ms", "86400000")), new NewTopic(GROUPS, PARTITIONS - 1, (short) 1))).all().get();
        admin.createPartitions(Map.of(GROUPS, NewPartitions.increaseTo(PARTITIONS))).all().get();
        var resource = new ConfigResource(ConfigResource.Type.TOPIC, TOPIC);
        admin.incrementalAlterConfigs(Map.of(resource, List.of(new AlterConfigOp(new ConfigEntry("segment.bytes", "1048576"), AlterConfigOp.OpType.SET)))).all().get();
        var config = admin.describeConfigs(List.of(resource), new DescribeConfigsOptions().includeSynonyms(true).includeDocumentation(true)).all().get().get(resource);
        same("configs", List.of(config.get("retention.ms").value(), config.get("segment.bytes").value(), config.get("cleanup.policy").source(), config.get("retention.ms").type(), config.get("segment.bytes").documentation().isEmpty()),
            List.of("86400000", "1048576", ConfigEntry.ConfigSource.DEFAULT_CONFIG, ConfigEntry.ConfigType.LONG, false));
        same("partitions", admin.describeTopics(List.of(GROUPS)).allTopicNames().get().get(GROUPS).partitions().size(), PARTITIONS);
        same("nodes", admin.describeCluster().nodes().get().size(), 1);
        same("rights on a topic", admin.describeTopics(List.of(GROUPS), new DescribeTopicsOptions().includeAuthorizedOperations(true))
            .allTopicNames().get().get(GROUPS).authorizedOperations().size(), 8);
        same("rights on the cluster", admin.describeCluster(new DescribeClusterOptions().includeAuthorizedOperations(true))
            .authorizedOperations().get().size(), 7);
        step("admin");

        String[] codecs = {"none", "gzip", "snappy", "lz4", "zstd"};
        int total = PER_CODEC * codecs.length;
        for (int c = 0; c < codecs.length; c++)
            try (var p = producer("compression.type", codecs[c], "linger.ms", "5")) {
                List<Future<RecordMetadata>> sent = new ArrayList<>();
                for (int i = c * PER_CODEC; i < (c + 1) * PER_CODEC; i++) sent.add(p.send(record(i)));
                for (int i = 0; i < PER_CODEC; i++) same("offset", sent.get(i).get().offset(), (long) c * PER_CODEC + i);
            }
        readAll(total);
        step("every codec, headers and timestamps");
        var part = new TopicPartition(TOPIC, 0);
        same("offset by time", admin.listOffsets(Map.of(part, OffsetSpec.forTimestamp(BASE + 77))).partitionResult(part).get().offset(), 77L);
        same("largest timestamp", admin.listOffsets(Map.of(part, OffsetSpec.maxTimestamp())).partitionResult(part).get().offset(), (long) total - 1);
        step("seek by time");
        try (var c = consumer("group.id", "r-java")) {
            c.assign(List.of(part));
            c.commitSync(Map.of(part, new OffsetAndMetadata(120, "a note")));
        }
        try (var c = consumer("group.id", "r-java")) {
            same("committed", c.committed(Set.of(part)).get(part).metadata(), "a note");
            c.subscribe(List.of(TOPIC));
            ConsumerRecords<byte[], byte[]> first;
            do first = c.poll(Duration.ofSeconds(1)); while (first.isEmpty());
            same("resume", first.iterator().next().offset(), 120L);
        }
        step("commit and resume");

        Map<String, Integer> seen = new ConcurrentHashMap<>();
        String sticky = "org.apache.kafka.clients.consumer.CooperativeStickyAssignor";
        var members = List.of(new Member(seen, sticky), new Member(seen, sticky), new Member(seen, sticky));
        await("three members with partitions", () -> members.stream().allMatch(m -> m.had.get()));
        try (var p = producer()) {
            for (int i = 0; i < RECORDS; i++) p.send(new ProducerRecord<>(GROUPS, i % PARTITIONS, null, ("" + i).getBytes()));
            p.flush();
            await("all of the group", () -> seen.size() == RECORDS);
            members.get(2).stop.set(true); members.get(2).join();
            for (int i = 0; i < 60; i++) p.send(new ProducerRecord<>(GROUPS, i % PARTITIONS, null, ("" + (RECORDS + i)).getBytes()));
            p.flush();
            await("all after one left", () -> seen.size() == RECORDS + 60);
        }
        for (var m : members) { m.stop.set(true); m.join(); }
        same("each record once", new TreeSet<>(seen.values()).size(), RECORDS + 60);
        step("group of three with a rebalance");

        try (var p = producer("linger.ms", "5")) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (int i = total; i < total + 50; i++) {
                sent.add(p.send(record(i)));
                if (i == total + 20) {
                    System.out.println("restart"); System.out.flush();
                    same("restart", new Scanner(System.in).nextLine().trim(), "restarted");
                }
            }
            for (var s : sent) s.get();
        }
        readAll(total + 50);
        step("broker restart in the middle");
        same("low watermark", admin.deleteRecords(Map.of(part, RecordsToDelete.beforeOffset(100))).lowWatermarks().get(part).get().lowWatermark(), 100L);
        same("group state", admin.describeConsumerGroups(List.of("three-java")).all().get().get("three-java").groupState().toString(), "Empty");
        admin.deleteConsumerGroupOffsets("r-java", Set.of(part)).all().get();
        admin.deleteConsumerGroups(List.of("three-java")).all().get();
        admin.deleteTopics(List.of(TOPIC, GROUPS)).all().get();
        step("delete records, groups and topics");
        admin.close(Duration.ofSeconds(1));
        Runtime.getRuntime().halt(0);
    }
}
