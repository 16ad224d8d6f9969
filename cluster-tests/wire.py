#!/usr/bin/env python3
"""A wire between a host and the bridge that is worse than it looks: for machines without netem.

  wire.py plain DEVICE              the device's own system makes checksums and packets, so that a wire may carry them
  wire.py carry PORT TAP SEED POLICY    takes a port of the bridge, plugs a TAP in its place and carries frames between them
                                        until it is ended; says `carries` when it does

POLICY names what happens, as `delay=50,jitter=50,loss=5,twice=10,early=25,rot=0.5`: milliseconds that a frame takes at least
and at random more, and of a hundred frames those that are lost, come twice, overtake the others, and have a bit flipped. The
same seed draws the same numbers; which frame meets which is up to the machine. What has a flipped bit is thrown away by the
checksums of UDP and TCP, if all is well. IPv4 only is treated badly: who is where (ARP)
is always found out."""
import fcntl, heapq, random, select, signal, socket, struct, subprocess, sys, time

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
SIOCETHTOOL, ETHTOOL_STXCSUM = 0x8946, 0x17
ETH_P_ALL, ETH_P_IP, PACKET_OUTGOING = 3, b"\x08\x00", 4
FRAME_MAX, HEADERS = 65536, 14 + 20


def plain(device):
    import array
    value = array.array("B", struct.pack("II", ETHTOOL_STXCSUM, 0))
    request = struct.pack("16sP", device.encode(), value.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCETHTOOL, request)


def ip(*arguments):
    subprocess.run(["ip", "link", "set", *arguments], check=True)


class Wire:
    def __init__(self, port, tap, seed, policy):
        self.port = port
        self.random = random.Random(int(seed))
        self.policy = {name: float(value) for name, value in (part.split("=") for part in policy.split(","))}
        unknown = set(self.policy) - {"delay", "jitter", "loss", "twice", "early", "rot"}
        if unknown:
            sys.exit(f"wire.py: not known: {', '.join(sorted(unknown))}")
        self.tap = open("/dev/net/tun", "r+b", buffering=0)
        fcntl.ioctl(self.tap, TUNSETIFF, struct.pack("16sH22x", tap.encode(), IFF_TAP | IFF_NO_PI))
        self.node = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.node.bind((port, ETH_P_ALL))
        # What it sends to the node is not to come back.
        ip(port, "nomaster")
        ip(tap, "master", "bridge", "up")
        self.waiting, self.count = [], 0

    def happens(self, what):
        return self.random.random() * 100 < self.policy.get(what, 0)

    def take(self, frame, send):
        if frame[12:14] != ETH_P_IP:
            return send(frame)
        if self.happens("loss"):
            return
        if self.happens("rot") and len(frame) > HEADERS:
            at = self.random.randrange(HEADERS, len(frame))
            frame = frame[:at] + bytes([frame[at] ^ 1 << self.random.randrange(8)]) + frame[at + 1:]
        late = self.policy.get("delay", 0) + self.random.random() * self.policy.get("jitter", 0)
        due = time.monotonic() + (0 if self.happens("early") else late / 1e3)
        for _ in range(2 if self.happens("twice") else 1):
            self.count += 1
            heapq.heappush(self.waiting, (due, self.count, frame, send))

    def to_node(self, frame):
        try:
            self.node.send(frame)
        except OSError:
            pass  # A full queue loses frames, as wires do.

    def to_bridge(self, frame):
        try:
            self.tap.write(frame)
        except OSError:
            pass

    def carry(self):
        print("carries", flush=True)
        while True:
            now = time.monotonic()
            while self.waiting and self.waiting[0][0] <= now:
                _, _, frame, send = heapq.heappop(self.waiting)
                send(frame)
            patience = self.waiting[0][0] - now if self.waiting else None
            ready, _, _ = select.select([self.tap, self.node], [], [], patience)
            if self.tap in ready:
                self.take(self.tap.read(FRAME_MAX), self.to_node)
            if self.node in ready:
                frame, (_, _, kind, _, _) = self.node.recvfrom(FRAME_MAX)
                if kind != PACKET_OUTGOING:
                    self.take(frame, self.to_bridge)

    def unplug(self):
        self.tap.close()
        ip(self.port, "master", "bridge")


def main(arguments):
    if len(arguments) == 2 and arguments[0] == "plain":
        return plain(arguments[1])
    if len(arguments) != 5 or arguments[0] != "carry":
        sys.exit(__doc__)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    wire = Wire(*arguments[1:])
    try:
        wire.carry()
    finally:
        wire.unplug()


main(sys.argv[1:])
