#!/usr/bin/env bash
# kazoo 2.10.0 (Python): a Lock whose session has ended, on ZooKeeper 3.9.3 (shown with the Python
# and the JDK at hand).
#
# Seen: kazoo opens a new session by itself, and tells listeners LOST and CONNECTED. The lock's
# node is gone, and is_acquired goes on saying True. acquire(blocking=False) says False from then
# on, and acquire(timeout=5) says False, too, after 2 or 3 s and without LockTimeout, though
# nobody has the lock. It can be acquired again only after a release(), which says True.
#
# Expected: that is_acquired is False when kazoo itself has told that the session is lost; or, if
# the object still counts as acquired, that acquire says so in some way that is not the word
# for "another one has it".
#
# For a user of leader election: `if lock.acquire(blocking=False): lead()` in a loop never leads
# again after one lost session; where all candidates had one, nobody leads, and each
# believes that another one does. A test of is_acquired before each act lets the old leader
# act for ever. A listener has to note LOST, and to release what was lost.
set -euo pipefail

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cat >"$tmp/pom.xml" <<'EOF'
<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>findings</groupId>
  <artifactId>kazoo-lost-session</artifactId>
  <version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.zookeeper</groupId><artifactId>zookeeper</artifactId><version>3.9.3</version></dependency>
    <dependency><groupId>io.dropwizard.metrics</groupId><artifactId>metrics-core</artifactId><version>4.1.12.1</version></dependency>
    <dependency><groupId>org.xerial.snappy</groupId><artifactId>snappy-java</artifactId><version>1.1.10.5</version></dependency>
  </dependencies>
</project>
EOF
{
  mvn -q -B -f "$tmp/pom.xml" -Dmaven.repo.local="$tmp/m2" \
    org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies -DoutputDirectory="$tmp/jars"
  python3 -m pip install -q --no-deps --target "$tmp/python" kazoo==2.10.0
} >"$tmp/log" 2>&1 || { cat "$tmp/log" >&2; exit 1; }

cat >"$tmp/lose.py" <<'EOF'
import logging, random, socket, subprocess, sys, time

tmp = sys.argv[1]
sys.path.insert(0, tmp + "/python")
from kazoo.client import KazooClient
from kazoo.exceptions import LockTimeout

logging.getLogger("kazoo").addHandler(logging.NullHandler())
changed = False
def want(what, seen, before):
    global changed
    print(f"{what}: {seen}", flush=True)
    if seen != before:
        print(f"  changed: it was {before}")
        changed = True

def free_port():  # below those that the kernel gives to whoever connects meanwhile
    while True:
        port = random.randrange(10000, 30000)
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError:
            pass

def until(met):
    deadline = time.monotonic() + 60
    while not met():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)

def connect(**session):
    client = KazooClient(address, timeout=20, **session)
    client.start(60)
    return client

def acquire(lock, **options):
    try:
        return lock.acquire(**options)
    except LockTimeout:
        return "LockTimeout"

with open(tmp + "/zoo.cfg", "w") as f:
    address = f"127.0.0.1:{free_port()}"
    f.write(f"dataDir={tmp}/data\nclientPort={address.split(':')[1]}\nclientPortAddress=127.0.0.1\ntickTime=1000\n")
server = subprocess.Popen(["java", "-Dzookeeper.admin.enableServer=false", "-cp", tmp + "/jars/*",
                           "org.apache.zookeeper.server.quorum.QuorumPeerMain", tmp + "/zoo.cfg"],
                          stdout=open(tmp + "/server.log", "w"), stderr=subprocess.STDOUT)
try:
    watcher = connect()
    client = connect()
    lock = client.Lock("/backup", "first")
    want("acquire                        ", acquire(lock, timeout=20), True)
    want("its nodes                      ", len(watcher.get_children("/backup")), 1)

    # Another connection of the same session ends it, as an administrator's tool would.
    states = []
    client.add_listener(states.append)
    other = connect(client_id=client.client_id)
    other.stop()
    until(lambda: states[-1:] == ["CONNECTED"])
    want("the session ended; states      ", ", ".join(states), "SUSPENDED, LOST, CONNECTED")
    want("nodes in /backup               ", len(watcher.get_children("/backup")), 0)
    want("is_acquired                    ", lock.is_acquired, True)
    want("acquire(blocking=False)        ", acquire(lock, blocking=False), False)
    want("acquire(timeout=5)             ", acquire(lock, timeout=5), False)
    want("nodes in /backup               ", len(watcher.get_children("/backup")), 0)

    another = watcher.Lock("/backup", "second")
    want("acquire by another             ", acquire(another, timeout=20), True)
    want("is_acquired, beside it         ", lock.is_acquired, True)
    another.release()
    want("release                        ", lock.release(), True)
    want("acquire(blocking=False) then   ", acquire(lock, blocking=False), True)
    client.stop()
    watcher.stop()
finally:
    server.kill()
sys.exit(changed)
EOF
timeout 300 python3 "$tmp/lose.py" "$tmp"
