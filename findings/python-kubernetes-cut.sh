#!/usr/bin/env bash
# kubernetes 37.0.2 (the Python client), leaderelection: a leader whose API server is out of reach
# (shown with the Python at hand, and a server of the few objects that it asks for).
#
# Seen: when the server answers each request with status 500, the leader's onstopped_leading is called
# when its renew_deadline is over, as it should be. When the server refuses the connection, an
# exception of urllib3 leaves run() instead, and onstopped_leading is never called. What
# onstarted_leading does goes on in its thread, beside the next leader, unless the process ends: it is
# a daemon, so it does where run() is called by the main thread and nothing catches the exception.
#
# Expected: that a server which cannot be reached is the case for which there is a renew_deadline, and
# ends as a server that answers errors does.
#
# For a user of leader election: a program that calls run() in a thread, or in a loop that logs what it
# raises and tries again, leads for ever after one break of the line, and may follow at the same time.
# What stops the leader's work belongs into a finally around run(), not into onstopped_leading.
set -euo pipefail

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
python3 -m pip install -q --target "$tmp/python" kubernetes==37.0.2 >"$tmp/log" 2>&1 || { cat "$tmp/log" >&2; exit 1; }

cat >"$tmp/cut.py" <<'EOF'
import http.server, json, logging, os, sys, threading, time

sys.path.insert(0, sys.argv[1] + "/python")
from kubernetes import client
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock.configmaplock import ConfigMapLock

logging.disable(logging.CRITICAL)
changed = False
def want(what, seen, before):
    global changed
    print(f"{what}: {seen}", flush=True)
    if seen != before:
        print(f"  changed: it was {before}")
        changed = True

class Api(http.server.ThreadingHTTPServer):
    """One door to the API server, with the objects of all doors."""
    objects, fails = {}, False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.say(200 if self.path in Api.objects else 404)

    def do_POST(self):
        self.path = self.path.split("?")[0] + "/backup"
        self.do_PUT()

    def do_PUT(self):
        Api.objects[self.path] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.say(200)

    def say(self, status):
        if self.server.fails:
            status = 500
        body = Api.objects[self.path] if status == 200 else {"kind": "Status", "code": status}
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *args):
        pass

class Candidate:
    def __init__(self, name, api):
        configuration = client.Configuration()
        configuration.host = f"http://127.0.0.1:{api.server_port}"
        client.Configuration.set_default(configuration)
        self.acted, self.enough, self.run_ended = 0, False, "no"
        self.stopped = threading.Event()
        config = electionconfig.Config(ConfigMapLock("backup", "default", name), lease_duration=4, renew_deadline=2,
                                       retry_period=1, onstarted_leading=self.act,
                                       onstopped_leading=self.stop)
        threading.Thread(target=self.run, args=(leaderelection.LeaderElection(config),)).start()

    def run(self, election):
        try:
            election.run()
            self.run_ended = "yes"
        except Exception as e:
            self.run_ended = "by " + type(e).__name__

    def act(self):
        self.thread = threading.current_thread()
        while not self.enough:
            self.acted += 1
            time.sleep(0.05)

    def stop(self):
        self.enough = True
        self.stopped.set()

    def acts(self):
        before = self.acted
        time.sleep(1)
        return self.acted > before

def until(met, seconds=60):
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)

def round(what, break_it, stopped, run_ended, acts):
    Api.objects.clear()
    near, far = Api(), Api()
    first = Candidate("first", near)
    until(first.acts)
    second = Candidate("second", far)
    time.sleep(2)  # in which the second one sees who leads
    break_it(near)
    until(second.acts)
    until(lambda: first.run_ended != "no")
    want(f"{what}: the second one leads; onstopped_leading of the first was called", first.stopped.wait(5), stopped)
    want(f"{what}: its run() has ended", first.run_ended, run_ended)
    want(f"{what}: it acts", first.acts(), acts)
    want(f"{what}: its thread is a daemon", first.thread.daemon, True)
    first.enough = second.enough = True

def fail(api):
    api.fails = True

def close(api):
    api.shutdown()
    api.server_close()

round("status 500", fail, True, "yes", False)
round("refused   ", close, False, "by MaxRetryError", True)
sys.stdout.flush()
os._exit(changed)
EOF
timeout 200 python3 "$tmp/cut.py" "$tmp"
