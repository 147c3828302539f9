#!/usr/bin/env bash
# kazoo 2.10.0 (Python) and Apache Curator 5.8.0 (Java) in one election, on ZooKeeper 3.9.3 (shown
# with the Python and the JDK at hand).
#
# Seen: each of kazoo's Lock and Curator's LeaderLatch leads beside the other one, on one path.
# kazoo has extra_lock_patterns for nodes of other implementations; with "latch-" kazoo does
# wait for Curator. Curator goes on leading beside kazoo: it sorts by what stands behind its own
# "latch-" and, for a name without it, by the whole name, which begins with random letters and
# so comes behind the "0000000001" of its own node; that it came second counts for nothing.
#
# Expected: that two libraries which both write the numbered nodes of ZooKeeper's recipe exclude
# one another, or refuse a path in which they find what is not theirs; and that an option
# for the other implementation's nodes is all that it takes.
#
# For a user of leader election: a Python worker and a Java worker of one group both lead, each by
# the rules of its library, and it depends on who came first whether a test shows it. One
# of the two has to be asked by the other; or all ask a service which itself decides.
set -euo pipefail

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cat >"$tmp/pom.xml" <<'EOF'
<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>findings</groupId>
  <artifactId>kazoo-curator</artifactId>
  <version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.zookeeper</groupId><artifactId>zookeeper</artifactId><version>3.9.3</version></dependency>
    <dependency><groupId>org.apache.curator</groupId><artifactId>curator-recipes</artifactId><version>5.8.0</version></dependency>
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

cat >"$tmp/Latch.java" <<'EOF'
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.framework.recipes.leader.LeaderLatch;
import org.apache.curator.framework.recipes.leader.LeaderLatchListener;
import org.apache.curator.retry.RetryOneTime;

/** Takes part in the election of a path, and says when it leads, until its input ends. */
class Latch {
    public static void main(String[] args) throws Exception {
        try (var client = CuratorFrameworkFactory.newClient(args[0], 30000, 30000, new RetryOneTime(1000))) {
            client.start();
            var latch = new LeaderLatch(client, args[1], "java");
            latch.addListener(new LeaderLatchListener() {
                public void isLeader() { System.out.println("leads"); }
                public void notLeader() { System.out.println("does not lead"); }
            });
            latch.start();
            while (System.in.read() >= 0) { }
            latch.close();
        }
        System.exit(0);
    }
}
EOF
cat >"$tmp/elect.py" <<'EOF'
import logging, random, re, select, socket, subprocess, sys

tmp = sys.argv[1]
sys.path.insert(0, tmp + "/python")
from kazoo.client import KazooClient
from kazoo.exceptions import LockTimeout

logging.getLogger("kazoo").addHandler(logging.NullHandler())
changed = False
def want(what, leads, before):
    global changed
    seen = "leads" if leads else "waits"
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

def java(*args):
    return subprocess.Popen(["java", "-Dzookeeper.admin.enableServer=false", "-cp", tmp + "/jars/*", *args],
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=open(tmp + "/java.log", "a"), text=True)

class Curator:
    def __init__(self, path, seconds):
        self.process = java(tmp + "/Latch.java", address, path)
        ready, _, _ = select.select([self.process.stdout], [], [], seconds)
        self.leads = bool(ready) and self.process.stdout.readline() == "leads\n"

    def close(self):
        self.process.stdin.close()
        self.process.wait()

def kazoo(path, seconds, **options):
    lock = client.Lock(path, "python", **options)
    try:
        return lock, lock.acquire(timeout=seconds)
    except LockTimeout:
        return lock, False

def nodes(path):  # in the order in which they came, without their random part
    return ", ".join(re.sub("[0-9a-f-]{32,36}", "*", n) for n in sorted(client.get_children(path), key=lambda n: n[-10:]))

with open(tmp + "/zoo.cfg", "w") as f:
    address = f"127.0.0.1:{free_port()}"
    f.write(f"dataDir={tmp}/data\nclientPort={address.split(':')[1]}\nclientPortAddress=127.0.0.1\ntickTime=1000\n")
server = java("org.apache.zookeeper.server.quorum.QuorumPeerMain", tmp + "/zoo.cfg")
try:
    client = KazooClient(address, timeout=20)
    client.start(60)

    first = Curator("/one", 60)
    want("Curator first        ", first.leads, "leads")
    patient, leads = kazoo("/one", 3, extra_lock_patterns=["latch-"])
    want("kazoo with its option", leads, "waits")
    plain, leads = kazoo("/one", 10)
    want("kazoo without it     ", leads, "leads")
    print("  " + nodes("/one"))
    plain.release()
    first.close()

    first, leads = kazoo("/two", 10, extra_lock_patterns=["latch-"])
    want("kazoo first          ", leads, "leads")
    second = Curator("/two", 60)
    want("Curator beside it    ", second.leads, "leads")
    print("  " + nodes("/two"))
    want("kazoo meanwhile      ", first.is_acquired and client.exists("/two/" + first.node), "leads")
    second.close()
    client.stop()
finally:
    server.kill()
sys.exit(changed)
EOF
timeout 300 python3 "$tmp/elect.py" "$tmp"
