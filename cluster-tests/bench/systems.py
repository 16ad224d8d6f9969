"""The systems that are measured, one node each, and what measures them."""
import base64, glob, os, random, shutil, socket, string, subprocess, sys, tempfile, time, uuid

import procstat

HERE = os.path.dirname(os.path.abspath(__file__)); ROOT = os.path.dirname(os.path.dirname(HERE))
HOME, OUT = os.path.join(ROOT, "target", "interop"), os.path.join(ROOT, "target", "bench")
BINARY = os.environ.get("BINARY", os.path.join(ROOT, "target", "release", "callboard"))
os.makedirs(OUT, exist_ok=True); os.makedirs(HOME, exist_ok=True)


def sh(command, **more):
    r = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more)
    if r.returncode:
        sys.exit(f"{' '.join(map(str, command))[:300]}: {r.stdout[-1500:]}")
    return r.stdout


def install():
    if not glob.glob(f"{HOME}/java/kafka-tools-*.jar"):
        copy = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"
        sh(["mvn", "-q", "-B", "-ntp", copy, f"-DoutputDirectory={HOME}/java", "-f", f"{ROOT}/cluster-tests/interop/java/pom.xml"])
    if not os.path.exists(f"{HOME}/python/done"):
        sh([sys.executable, "-m", "venv", f"{HOME}/python"])
        sh([f"{HOME}/python/bin/pip", "install", "-q", "-r", f"{ROOT}/cluster-tests/interop/python/requirements.txt"])
        open(f"{HOME}/python/done", "w").close()


def java(*arguments):
    log = f"-Dlog4j2.configurationFile={ROOT}/cluster-tests/interop/java/log4j2.xml"
    return ["java", "-Xmx512m", "-XX:+UseG1GC", log, "-cp", f"{HOME}/java/*", *arguments]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0)); return s.getsockname()[1]


class System:
    def __init__(self, name):
        self.name, self.dir, self.port = name, tempfile.mkdtemp(prefix=f"bench-{name}-"), free_port()
        self.boot = f"127.0.0.1:{self.port}"
        self.prepare()

    def wait(self):
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 0.2).close(); return
            except OSError:
                time.sleep(0.002)

    def start(self, wait=True):
        self.process = subprocess.Popen(self.command(), stdout=open(f"{self.dir}/out", "a"), stderr=subprocess.STDOUT)
        if wait:
            self.wait()
        return self

    def stop(self, kill=False):
        self.process.kill() if kill else self.process.terminate()
        self.process.wait()

    def remove(self):
        self.stop(True); shutil.rmtree(self.dir, ignore_errors=True)

    @property
    def pid(self):
        return self.process.pid

    @property
    def rss_mib(self):
        return procstat.mem(self.pid)["VmRSS"]


class Callboard(System):
    def prepare(self):
        pass

    def command(self):
        return [BINARY, "start", "--data", f"{self.dir}/data", "--kafka", self.boot, "--quic", "127.0.0.1:0", "--http", "127.0.0.1:0"]


class Kafka(System):
    def prepare(self):
        control = free_port()
        open(f"{self.dir}/server.properties", "w").write(f"""process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://{self.boot},CONTROLLER://127.0.0.1:{control}
advertised.listeners=PLAINTEXT://{self.boot},CONTROLLER://127.0.0.1:{control}
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
controller.quorum.bootstrap.servers=127.0.0.1:{control}
log.dirs={self.dir}/data
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
""")
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").lstrip("-") or "x"
        sh(java("kafka.tools.StorageTool", "format", "-t", cluster, "-c", f"{self.dir}/server.properties", "--standalone"))

    def command(self):
        c = java("kafka.Kafka", f"{self.dir}/server.properties")
        return [c[0], "-Xms1g", "-Xmx1g", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35", *c[2:]]


def payloads(size):
    path = os.path.join(tempfile.gettempdir(), f"payload-{size}.txt")
    if not os.path.exists(path):
        r = random.Random(1)
        open(path, "w").write("\n".join("".join(r.choices(string.ascii_letters + string.digits, k=size)) for _ in range(1000)) + "\n")
    return path
