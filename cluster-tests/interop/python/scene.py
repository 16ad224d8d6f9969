"""What every client program plays: the same records, the same steps, one line per step that held."""
import sys, time

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
PER_CODEC = 40
BASE_MS = int(time.time() * 1000) - 3_600_000
GROUP_PARTITIONS = 6
GROUP_RECORDS = 600


def record(i):
    """Key, value, headers and timestamp of record i; every tenth has no key, every seventh is large."""
    key = None if i % 10 == 9 else f"k{i}".encode()
    value = f"value {i} ".encode() * (2000 if i % 7 == 6 else 3)
    return key, value, [("n", str(i).encode()), ("empty", b"")], BASE_MS + i


def step(name, holds=True):
    if not holds:
        sys.exit(f"FAILED {name}")
    print(f"ok {name}", flush=True)


def same(name, got, wanted):
    if got != wanted:
        sys.exit(f"FAILED {name}: got {str(got)[:300]} wanted {str(wanted)[:300]}")


def restart():
    """The driver kills the broker and starts it again."""
    print("restart", flush=True)
    if sys.stdin.readline().strip() != "restarted":
        sys.exit("FAILED restart: the driver went away")


def wait(what, condition, state=lambda: "", seconds=60):
    end = time.time() + seconds
    while not condition():
        if time.time() > end:
            sys.exit(f"FAILED {what}: not within {seconds} s {state()}")
        time.sleep(0.02)
