#!/usr/bin/env python3
"""Other people's clients against the real binary.

  run.py [--home DIR] [--binary FILE] [--table FILE] [CLIENT ...]

Installs pinned clients from the package registries into --home (default: target/interop), plays the same scene with each
(admin, every codec, headers and timestamps, seek by time, commit and resume, a group of three with a rebalance, a broker
killed in the middle, deletions), and the tools of Apache Kafka, with and without TLS and SCRAM. A client that cannot be
installed is a failure. --table writes the results between the marks of a Markdown file. Needs python3, node, npm, go,
java, mvn and kcat."""
import argparse, glob, json, os, re, shutil, socket, subprocess, sys, tempfile, time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
P = argparse.ArgumentParser()
P.add_argument("--home", default=os.path.join(ROOT, "target", "interop"))
P.add_argument("--binary", default=os.path.join(ROOT, "target", "release", "callboard"))
P.add_argument("--table"); P.add_argument("clients", nargs="*")
A = P.parse_args()
HOME = A.home
os.makedirs(HOME, exist_ok=True)


class Failed(Exception):
    pass


def sh(command, tries=1, **more):
    """Runs a command; a registry that does not answer is asked again."""
    for n in range(tries):
        r = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more)
        if r.returncode == 0:
            return r.stdout
        if n + 1 < tries:
            time.sleep(5 * 2 ** n)
    raise Failed(f"{' '.join(command)[:200]}: {r.stdout[-1500:]}")


# ---- what must be installed


def python():
    env = os.path.join(HOME, "python")
    if not os.path.exists(os.path.join(env, "done")):
        sh([sys.executable, "-m", "venv", env])
        sh([f"{env}/bin/pip", "install", "-q", "-r", f"{HERE}/python/requirements.txt"], 4)
        open(os.path.join(env, "done"), "w").close()
    return f"{env}/bin/python"


def node():
    home = os.path.join(HOME, "js")
    shutil.copytree(f"{HERE}/js", home, dirs_exist_ok=True)
    if not os.path.exists(f"{home}/node_modules/kafkajs"):
        sh(["npm", "install", "--silent", "--no-audit", "--no-fund"], 4, cwd=home)
    return ["node", f"{home}/scene.js"]


def go(name):
    out = os.path.join(HOME, "go")
    os.makedirs(out, exist_ok=True)
    sh(["go", "build", "-o", out, f"./{name}"], 4, cwd=f"{HERE}/go")
    return [f"{out}/{name}"]


def java():
    libs = os.path.join(HOME, "java")
    if not glob.glob(f"{libs}/kafka-tools-*.jar"):
        copy = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"
        sh(["mvn", "-q", "-B", "-ntp", copy, f"-DoutputDirectory={libs}", "-f", f"{HERE}/java/pom.xml"], 4)
    return ["java", "-Xmx512m", f"-Dlog4j2.configurationFile={HERE}/java/log4j2.xml", "-cp", f"{libs}/*"]


def kcat():
    if not shutil.which("kcat"):
        sh(["apt-get", "update", "-qq"], 4)
        sh(["apt-get", "install", "-y", "-qq", "kcat"], 4)
    return "kcat"


# ---- the broker


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Node:
    def __init__(self, config=""):
        self.data = tempfile.mkdtemp(prefix="callboard-interop-")
        self.port, self.tls = free_port(), free_port()
        self.config = os.path.join(self.data, "node.toml")
        open(self.config, "w").write(config.replace("TLS", str(self.tls)))
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            [A.binary, "start", "--config", self.config, "--data", f"{self.data}/data", "--kafka", f"127.0.0.1:{self.port}",
             "--quic", "127.0.0.1:0", "--http", "127.0.0.1:0"], stdout=subprocess.PIPE, stderr=open(f"{self.data}/err", "a"), text=True)
        if "ready" not in self.process.stdout.readline():
            raise Failed("the node does not start: " + open(f"{self.data}/err").read()[-500:])

    def kill(self):
        self.process.kill(); self.process.wait()

    @property
    def boot(self):
        return f"127.0.0.1:{self.port}"

    def cli(self, *arguments, text=""):
        return sh([A.binary, *arguments, "--profile", f"{self.data}/data/client.toml"], input=text)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate(); self.process.wait(); shutil.rmtree(self.data, ignore_errors=True)


# ---- scenes


def scene(command, cwd=None):
    """A client's own program; it says when the broker is to be killed."""
    with Node() as broker:
        client = subprocess.Popen([*command, broker.boot], cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        steps, said = [], []
        for line in client.stdout:
            line = line.strip()
            said.append(line)
            if line == "restart":
                broker.kill(); broker.start()
                client.stdin.write("restarted\n"); client.stdin.flush()
            elif line.startswith("ok "):
                steps.append(line[3:])
        if client.wait() != 0 or len(steps) < 7:
            raise Failed("\n".join(said[-15:]))
        return steps


def tools():
    """The command line of Apache Kafka."""
    j, T = java(), "org.apache.kafka.tools."

    def tool(name, *arguments, text=None, fails=False):
        r = subprocess.run([*j, name if name.startswith(T) else T + name, *arguments], input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=180)
        if (r.returncode != 0) != fails:
            raise Failed(f"{name} {arguments}: {r.stdout[-1500:]}")
        return r.stdout

    def holds(what, condition, said):
        if not condition:
            raise Failed(f"{what}: {said[-800:]}")
        steps.append(what)

    steps = []
    with Node() as n:
        at = ["--bootstrap-server", n.boot]
        tool("TopicCommand", *at, "--create", "--topic", "t", "--partitions", "3", "--config", "segment.bytes=1048576")
        out = tool("TopicCommand", *at, "--describe", "--topic", "t")
        holds("kafka-topics", "PartitionCount: 3" in out and "segment.bytes=1048576" in out, out)
        tool("TopicCommand", *at, "--alter", "--topic", "t", "--partitions", "4")
        C = T + "ConfigCommand"
        tool(C, *at, "--alter", "--entity-type", "topics", "--entity-name", "t", "--add-config", "retention.ms=86400000")
        out = tool(C, *at, "--describe", "--entity-type", "topics", "--entity-name", "t", "--all")
        holds("kafka-configs", "retention.ms=86400000" in out and "DEFAULT_CONFIG:log.retention.ms=604800000" in out, out)
        out = tool(C, *at, "--describe", "--entity-type", "brokers", "--entity-name", "1", "--all")
        holds("kafka-configs of a broker", "num.partitions=1" in out, out)
        tool("ConsoleProducer", *at, "--topic", "t", "--reader-property", "parse.key=true", "--reader-property", "key.separator=:", text="".join(f"k{i}:v{i}\n" for i in range(100)))
        out = tool("consumer.ConsoleConsumer", *at, "--topic", "t", "--from-beginning", "--max-messages", "100", "--group", "g", "--timeout-ms", "30000")
        holds("console producer and consumer", sorted(l for l in out.splitlines() if l.startswith("v")) == sorted(f"v{i}" for i in range(100)), out)
        G = "consumer.group.ConsumerGroupCommand"
        out = tool(G, *at, "--describe", "--group", "g")
        rows = [l.split() for l in out.splitlines() if l.startswith("g ")]
        holds("kafka-consumer-groups", len(rows) == 4 and all(r[5] == "0" for r in rows), out)
        tool(G, *at, "--reset-offsets", "--group", "g", "--topic", "t", "--to-earliest", "--execute")
        out = tool(G, *at, "--describe", "--group", "g")
        holds("... with reset", sum(int(l.split()[5]) for l in out.splitlines() if l.startswith("g ")) == 100, out)
        out = tool(G, *at, "--list", "--state")
        holds("... with states", "Empty" in out, out)
        out = tool("GetOffsetShell", *at, "--topic", "t")
        holds("kafka-get-offsets", sum(int(l.rsplit(":", 1)[1]) for l in out.splitlines() if l.startswith("t:")) == 100, out)
        cut = os.path.join(n.data, "cut.json")
        json.dump({"partitions": [{"topic": "t", "partition": 0, "offset": -1}], "version": 1}, open(cut, "w"))
        out = tool("DeleteRecordsCommand", *at, "--offset-json-file", cut)
        holds("kafka-delete-records", "low_watermark" in out and "error" not in out.lower(), out)
        out = tool("ProducerPerformance", *at, "--topic", "perf", "--num-records", "20000", "--record-size", "100", "--throughput", "-1", "--command-property", "acks=all")
        holds("producer-perf", "20000 records sent" in out, out)
        out = tool("ConsumerPerformance", *at, "--topic", "perf", "--num-records", "20000", "--timeout", "30000")
        holds("consumer-perf", ", 20000," in out.replace("20000.", "20000,"), out)
        out = tool("VerifiableProducer", *at, "--topic", "v", "--max-messages", "500", "--acks", "-1")
        holds("verifiable producer", '"sent":500' in out and '"acked":500' in out, out)
        out = tool("VerifiableConsumer", *at, "--topic", "v", "--group-id", "gv", "--max-messages", "500", "--reset-policy", "earliest")
        holds("verifiable consumer", '"totalCount":500' in out or sum(json.loads(l)["count"] for l in out.splitlines() if '"records_consumed"' in l) == 500, out)
        n.process.terminate(); n.process.wait()
        log = sorted(glob.glob(f"{n.data}/data/perf-0/*.log"))[0]
        out = tool("DumpLogSegments", "--files", log, "--deep-iteration")
        holds("dump-log of our files", out.count("| offset:") + out.count("|-offset:") + out.count("offset: ") >= 20000 and "isvalid: false" not in out, out)
    return steps


def secured():
    """Kafka's tools over TLS and SCRAM, with ACLs and quotas."""
    j = java()
    steps = []
    certificates = tempfile.mkdtemp(prefix="callboard-certificates-")
    authority = f"{certificates}/authority"
    cert = lambda *arguments: sh([A.binary, "cert", *arguments])
    cert("init", "--out", authority)
    config = f'[security]\nauthenticate = true\nauthorize = true\nclient_ca = "{authority}/ca.pem"\n[listeners]\nkafka_tls = "127.0.0.1:TLS"\n'
    with Node(config) as n:
        password = open(f"{n.data}/data/admin.password").read().strip()

        def login(user, secret, mechanism="SCRAM-SHA-512"):
            path = f"{n.data}/{user}.properties"
            module = "plain.PlainLoginModule" if mechanism == "PLAIN" else "scram.ScramLoginModule"
            open(path, "w").write(
                f"security.protocol=SASL_SSL\nsasl.mechanism={mechanism}\nssl.truststore.type=PEM\nssl.truststore.location={n.data}/data/development-ca.pem\n"
                f'sasl.jaas.config=org.apache.kafka.common.security.{module} required username="{user}" password="{secret}";\n')
            return path

        def tool(name, *arguments, text=None, fails=False):
            r = subprocess.run([*j, name, "--bootstrap-server", f"127.0.0.1:{n.tls}", *arguments], input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120)
            if (r.returncode != 0) != fails:
                raise Failed(f"{name} {arguments}: {r.stdout[-1500:]}")
            return r.stdout

        def holds(what, condition, said=""):
            if not condition:
                raise Failed(f"{what}: {said[-800:]}")
            steps.append(what)

        admin = login("admin", password)
        T, C = "org.apache.kafka.tools.", "org.apache.kafka.tools.ConfigCommand"
        tool(T + "TopicCommand", "--command-config", admin, "--create", "--topic", "orders", "--partitions", "1")
        holds("TLS and SCRAM-SHA-512", "orders" in tool(T + "TopicCommand", "--command-config", admin, "--list"))
        tool(C, "--command-config", admin, "--alter", "--entity-type", "users", "--entity-name", "ann", "--add-config", "SCRAM-SHA-256=[iterations=4096,password=secret]")
        out = tool(C, "--command-config", admin, "--describe", "--entity-type", "users")
        holds("users by kafka-configs", "SCRAM-SHA-256=iterations=4096" in out, out)
        ACL = T + "AclCommand"
        tool(ACL, "--command-config", admin, "--add", "--allow-principal", "User:ann", "--producer", "--topic", "orders")
        tool(ACL, "--command-config", admin, "--add", "--allow-principal", "User:ann", "--consumer", "--topic", "orders", "--group", "an", "--resource-pattern-type", "prefixed")
        out = tool(ACL, "--command-config", admin, "--list")
        holds("ACLs by kafka-acls", "User:ann" in out and "PREFIXED" in out, out)
        ann = login("ann", "secret", "SCRAM-SHA-256")
        tool(T + "ConsoleProducer", "--command-config", ann, "--topic", "orders", text="one\ntwo\n")
        out = tool(T + "consumer.ConsoleConsumer", "--command-config", ann, "--topic", "orders", "--group", "ann", "--from-beginning", "--max-messages", "2", "--timeout-ms", "30000")
        holds("what is allowed, with SCRAM-SHA-256", "one" in out and "two" in out, out)
        out = tool(T + "TopicCommand", "--command-config", ann, "--create", "--topic", "other", fails=True)
        holds("what is not allowed", "Authorization" in out, out)
        out = tool(T + "TopicCommand", "--command-config", login("bad", "wrong"), "--list", fails=True)
        holds("a wrong password", "SaslAuthenticationException" in out or "uthentication failed" in out, out)
        plain = login("ann", "secret", "PLAIN")
        holds("PLAIN", "orders" in tool(T + "TopicCommand", "--command-config", plain, "--list"))
        # The node has a certificate of another authority than its clients.
        cert("client", "zoe", "--authority", authority, "--ca", f"{n.data}/data/development-ca.pem")
        zoe = f"{authority}/client-zoe/client.properties"
        out = tool(T + "TopicCommand", "--command-config", zoe, "--list")
        holds("a client's certificate without rights", "orders" not in out, out)
        tool(ACL, "--command-config", admin, "--add", "--allow-principal", "User:zoe", "--producer", "--topic", "orders")
        holds("a client's certificate with rights", "orders" in tool(T + "TopicCommand", "--command-config", zoe, "--list"))
        tool(C, "--command-config", admin, "--alter", "--entity-type", "users", "--entity-name", "ann", "--add-config", "producer_byte_rate=20000")
        out = tool(C, "--command-config", admin, "--describe", "--entity-type", "users", "--entity-name", "ann")
        holds("quotas by kafka-configs", "producer_byte_rate=20000" in out, out)
        began = time.time()
        tool(T + "ProducerPerformance", "--command-config", ann, "--topic", "orders", "--num-records", "1200", "--record-size", "100", "--throughput", "-1", "--command-property", "acks=all", "--command-property", "batch.size=4096")
        holds("a quota slows a producer down", time.time() - began > 4.5, f"{time.time() - began} s")
    return steps


def clustered():
    """Kafka's tools against three nodes: the quorum, moves, elections, sizes, a node that leaves."""
    j, steps, home, T = java(), [], tempfile.mkdtemp(prefix="callboard-cluster-"), "org.apache.kafka.tools."
    kafka, quic, peer = ([free_port() for _ in range(3)] for _ in range(3))
    voters = ",".join(f"{n + 1}@127.0.0.1:{p}" for n, p in enumerate(peer))
    boot = ",".join(f"127.0.0.1:{p}" for p in kafka)
    nodes = []

    def tool(name, *arguments, fails=False):
        r = subprocess.run([*j, T + name, "--bootstrap-server", boot, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=180)
        if (r.returncode != 0) != fails:
            raise Failed(f"{name} {arguments}: {r.stdout[-1500:]}")
        return r.stdout

    def holds(what, condition, said=""):
        if not condition:
            raise Failed(f"{what}: {said[-1200:]}")
        steps.append(what)

    def until(what, look, wanted):
        for _ in range(100):
            said = look()
            if wanted(said):
                return holds(what, True)
            time.sleep(0.3)
        holds(what, False, said)

    def described(topic):
        return tool("TopicCommand", "--describe", "--topic", topic)

    try:
        sh([A.binary, "cert", "init", "--out", f"{home}/authority"])
        for n in range(3):
            sh([A.binary, "cert", "node", str(n + 1), "--authority", f"{home}/authority"])
            nodes.append(subprocess.Popen([A.binary, "start", "--data", f"{home}/node-{n + 1}", "--kafka", f"127.0.0.1:{kafka[n]}", "--quic", f"127.0.0.1:{quic[n]}", "--http", "127.0.0.1:0",
                                           "--peer", f"127.0.0.1:{peer[n]}", "--set", f"node.id={n + 1}", "--set", f"cluster.certificates={home}/authority/node-{n + 1}",
                                           "--set", f"cluster.voters={voters}", "--set", "cluster.balance=false"], stdout=subprocess.PIPE, stderr=open(f"{home}/err", "a"), text=True))
        for node in nodes:
            if "ready" not in node.stdout.readline():
                raise Failed("a node does not start: " + open(f"{home}/err").read()[-800:])
        tool("TopicCommand", "--create", "--topic", "t", "--replica-assignment", "1:2:3,2:3:1")
        holds("three replicas", described("t").count("Isr: ") == 2 and "ReplicationFactor: 3" in described("t"), described("t"))
        until("kafka-metadata-quorum --status", lambda: tool("MetadataQuorumCommand", "describe", "--status"), lambda s: "LeaderId:" in s and all(f'"id": {n}' in s for n in (1, 2, 3)))
        out = tool("MetadataQuorumCommand", "describe", "--replication")
        holds("... --replication", len([l for l in out.splitlines() if "Leader" in l or "Follower" in l]) >= 3, out)
        out = tool("FeatureCommand", "describe")
        holds("kafka-features describe", "callboard.version" in out and "FinalizedVersionLevel: 5" in out, out)
        out = tool("FeatureCommand", "upgrade", "--feature", "callboard.version=6", fails=True)
        holds("... upgrade beyond what the nodes speak", "speaks 5 at most" in out, out)
        plan = f"{home}/plan.json"
        json.dump({"version": 1, "partitions": [{"topic": "t", "partition": 0, "replicas": [3, 1]}]}, open(plan, "w"))
        tool("reassign.ReassignPartitionsCommand", "--reassignment-json-file", plan, "--execute")
        until("kafka-reassign-partitions", lambda: tool("reassign.ReassignPartitionsCommand", "--reassignment-json-file", plan, "--verify"), lambda s: "is completed" in s)
        out = tool("reassign.ReassignPartitionsCommand", "--list")
        holds("... --list", "No partition reassignments found" in out, out)
        until("kafka-leader-election", lambda: tool("LeaderElectionCommand", "--election-type", "preferred", "--topic", "t", "--partition", "0") + described("t"), lambda s: "Partition: 0\tLeader: 3" in s)
        out = tool("LogDirsCommand", "--describe", "--topic-list", "t", "--broker-list", "1,2,3")
        holds("kafka-log-dirs", out.count('"partition":"t-') == 5, out)
        for partition in (0, 1):
            json.dump({"version": 1, "partitions": [{"topic": "t", "partition": partition, "replicas": [1, 3]}]}, open(plan, "w"))
            tool("reassign.ReassignPartitionsCommand", "--reassignment-json-file", plan, "--execute")
        until("a node is emptied", lambda: tool("reassign.ReassignPartitionsCommand", "--list") + described("t"), lambda s: "No partition" in s and "Replicas: 2" not in s and s.count("Isr: ") == 2)
        nodes[1].terminate(); nodes[1].wait()
        r = subprocess.run([*j, T + "ClusterTool", "unregister", "--bootstrap-server", boot, "--id", "2"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120)
        holds("kafka-cluster unregister", "no longer registered" in r.stdout, r.stdout)
        out = tool("MetadataQuorumCommand", "describe", "--status")
        holds("... and it votes no more", '"id": 2' not in out, out)
    finally:
        for node in nodes:
            node.kill(); node.wait()
        shutil.rmtree(home, ignore_errors=True)
    return steps


def adopted():
    """A data directory that Apache Kafka 4.4 wrote: compressed topics, a transaction in the log, committed offsets."""
    j, steps, home = java(), [], tempfile.mkdtemp(prefix="callboard-adopt-")
    port, control, T = free_port(), free_port(), "org.apache.kafka.tools."
    boot = f"127.0.0.1:{port}"
    open(f"{home}/server.properties", "w").write(f"""process.roles=broker,controller
node.id=7
listeners=PLAINTEXT://{boot},CONTROLLER://127.0.0.1:{control}
advertised.listeners=PLAINTEXT://{boot},CONTROLLER://127.0.0.1:{control}
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
controller.quorum.bootstrap.servers=127.0.0.1:{control}
log.dirs={home}/kafka
offsets.topic.replication.factor=1
offsets.topic.num.partitions=5
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
""")
    sh([*j, "kafka.tools.StorageTool", "format", "-t", "AdoptAdoptAdoptAdopt12", "-c", f"{home}/server.properties", "--standalone"])
    kafka = subprocess.Popen([*j, "kafka.Kafka", f"{home}/server.properties"], stdout=open(f"{home}/log", "w"), stderr=subprocess.STDOUT)
    try:
        for _ in range(600):
            try:
                socket.create_connection(("127.0.0.1", port), 0.2).close(); break
            except OSError:
                time.sleep(0.1)
        at = ["--bootstrap-server", boot]
        sh([*j, T + "TopicCommand", *at, "--create", "--topic", "zipped", "--partitions", "2", "--config", "compression.type=producer", "--config", "retention.ms=99999999", "--config", "segment.bytes=1048576"])
        sh([*j, T + "TopicCommand", *at, "--create", "--topic", "kept", "--partitions", "1", "--config", "cleanup.policy=compact"])
        for codec in ["gzip", "snappy", "lz4", "zstd"]:
            sh([*j, T + "ConsoleProducer", *at, "--topic", "zipped", "--compression-codec", codec, "--command-property", "linger.ms=20"], input="".join(f"{codec} {i}\n" for i in range(250)))
        sh([*j, T + "ConsoleProducer", *at, "--topic", "kept", "--reader-property", "parse.key=true", "--reader-property", "key.separator=:"], input="a:1\nb:2\n")
        sh([*j, T + "ProducerPerformance", *at, "--topic", "tx", "--num-records", "1000", "--record-size", "100", "--throughput", "-1", "--transactional-id", "t1", "--transaction-duration-ms", "50"])
        sh([*j, T + "consumer.ConsoleConsumer", *at, "--topic", "zipped", "--group", "readers", "--from-beginning", "--max-messages", "600", "--timeout-ms", "30000"])
        before = sh([*j, T + "GetOffsetShell", *at])
        group = sh([*j, T + "consumer.group.ConsumerGroupCommand", *at, "--describe", "--group", "readers"])
        ids = re.findall(r"Topic: (\S+)\s+TopicId: (\S+)", sh([*j, T + "TopicCommand", *at, "--describe"]))
    finally:
        kafka.terminate(); kafka.wait()
    out = json.loads(sh([A.binary, "adopt", f"{home}/kafka", "--data", f"{home}/data", "--json"]).splitlines()[-1])
    found = {t["topic"]: t for t in out["topics"]}
    said = " ".join(out["notes"])

    def holds(what, condition, text=""):
        if not condition:
            raise Failed(f"{what}: {text} {json.dumps(out)[:1500]}")
        steps.append(what)

    holds("topics with their identifiers", all(found[t]["id"] == i for t, i in ids if t in found) and {"zipped", "kept", "tx"} <= set(found))
    holds("settings", found["zipped"]["configs"] == {"compression.type": "producer", "retention.ms": "99999999", "segment.bytes": "1048576"} and found["kept"]["configs"] == {"retention.ms": "-1"})
    holds("what is not known is named", "__transaction_state" in said and "cleanup.policy=compact" in said)
    n = Node.__new__(Node)
    n.data, n.port, n.tls = home, port, 0
    n.config = f"{home}/node.toml"
    open(n.config, "w").write("[node]\nid = 7\n")
    n.start()
    try:
        lines = lambda text: sorted(l for l in text.splitlines() if not l.startswith("__transaction"))
        after = sh([*j, T + "GetOffsetShell", *at])
        holds("offsets", lines(after) == lines(before), f"{lines(after)} {lines(before)}")
        text = sh([*j, T + "consumer.ConsoleConsumer", *at, "--topic", "zipped", "--from-beginning", "--max-messages", "1000", "--timeout-ms", "30000"])
        got = sorted(l for l in text.splitlines() if re.match(r"\w+ \d+$", l))
        holds("every record of four codecs", got == sorted(f"{c} {i}" for c in ["gzip", "snappy", "lz4", "zstd"] for i in range(250)), text[:300])
        text = sh([*j, T + "consumer.ConsoleConsumer", *at, "--topic", "tx", "--from-beginning", "--max-messages", "1000", "--timeout-ms", "30000", "--isolation-level", "read_committed"])
        holds("a transaction in the log", "Processed a total of 1000" in text, text[-300:])
        text = sh([*j, T + "consumer.group.ConsumerGroupCommand", *at, "--describe", "--group", "readers"])
        rows = lambda t: sorted(l.split()[:6] for l in t.splitlines() if l.startswith("readers"))
        holds("committed offsets", rows(text) == rows(group) and len(rows(text)) == 2, f"{text} {group}")
        sh([*j, T + "ConsoleProducer", *at, "--topic", "zipped"], input="new\n")
        text = sh([*j, T + "consumer.ConsoleConsumer", *at, "--topic", "zipped", "--group", "readers", "--max-messages", "401", "--timeout-ms", "30000"])
        holds("the group goes on", "new" in text.splitlines(), text[-300:])
        n.process.terminate(); n.process.wait(); n.start()
        holds("a restart", lines(sh([*j, T + "GetOffsetShell", *at, "--topic", "tx"])) == [l for l in lines(before) if l.startswith("tx:")])
    finally:
        n.process.terminate(); n.process.wait()
    shutil.rmtree(home, ignore_errors=True)
    return steps


def with_kcat():
    k, steps = kcat(), []
    with Node() as n:
        lines = [f"k{i}:value {i}" for i in range(50)]
        for codec in ["none", "gzip", "snappy", "lz4", "zstd"]:
            sh([k, "-P", "-b", n.boot, "-t", codec, "-K:", "-z", codec, "-H", "n=1", "-X", "enable.idempotence=true"], input="\n".join(lines) + "\n")
            out = sh([k, "-C", "-b", n.boot, "-t", codec, "-e", "-q", "-f", "%k:%s %h %o\n"])
            if out.splitlines() != [f"{l} n=1 {i}" for i, l in enumerate(lines)]:
                raise Failed(f"{codec}: {out[:300]}")
        steps.append("every codec and headers")
        out = sh([k, "-L", "-J", "-b", n.boot])
        if {t["topic"] for t in json.loads(out)["topics"]} < {"none", "zstd"}:
            raise Failed(out[:300])
        steps.append("metadata")
        broker_time = int(time.time() * 1000) - 60_000
        out = sh([k, "-Q", "-b", n.boot, "-t", f"none:0:{broker_time}"])
        if "offset 0" not in out:
            raise Failed(out)
        steps.append("seek by time")
        out = sh([k, "-b", n.boot, "-G", "g", "-X", "auto.offset.reset=earliest", "-c", "50", "-q", "none"])
        n.kill(); n.start()
        sh([k, "-P", "-b", n.boot, "-t", "none"], input="after\n")
        out = sh([k, "-b", n.boot, "-G", "g", "-X", "auto.offset.reset=earliest", "-c", "1", "-q", "none"])
        if out.strip() != "after":
            raise Failed(out[:300])
        steps.append("commit and resume over a restart")
    return steps


SCENES = {
    "Java client 4.4.0": lambda: scene([*java(), f"{HERE}/java/Scene.java"]),
    "Apache Kafka's tools 4.4.0": tools,
    "... with TLS, SASL, ACLs, quotas": secured,
    "... against three nodes": clustered,
    "a data directory of Apache Kafka 4.4.0, adopted": adopted,
    "confluent-kafka 2.16.1": lambda: scene([python(), "confluent.py"], f"{HERE}/python"),
    "kafka-python 3.0.12": lambda: scene([python(), "kafkapython.py"], f"{HERE}/python"),
    "aiokafka 0.14.0": lambda: scene([python(), "aio.py"], f"{HERE}/python"),
    "kafkajs 2.2.4": lambda: scene(node()),
    "franz-go 1.22.3": lambda: scene(go("franz")),
    "sarama 1.61.1": lambda: scene(go("sarama")),
    "kafka-go 0.4.51": lambda: scene(go("segment")),
    "kcat 1.7.1": with_kcat,
}


def write_table(path, rows):
    text = open(path).read()
    begin, end = "<!-- interop begin -->\n", "<!-- interop end -->"
    head, rest = text.split(begin)
    lines = ["| client | what held | seconds |", "|---|---|---|"] + [f"| {n} | {'; '.join(s)} | {t:.0f} |" for n, s, t in rows]
    open(path, "w").write(head + begin + "\n".join(lines) + "\n" + end + rest.split(end)[1])


rows, failed = [], []
for name, play in SCENES.items():
    if A.clients and not any(c in name for c in A.clients):
        continue
    began = time.time()
    try:
        steps = play()
        rows.append((name, steps, time.time() - began))
        print(f"ok      {name}: {len(steps)} steps, {time.time() - began:.0f} s", flush=True)
    except (Failed, subprocess.TimeoutExpired) as e:
        failed.append(name)
        print(f"FAILED  {name}: {e}", flush=True)
if A.table and not failed:
    write_table(A.table, rows)
sys.exit(f"{len(failed)} failed: {', '.join(failed)}" if failed else 0)
