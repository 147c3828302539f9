#!/usr/bin/env bash
# What TCP proxies make of a reset: HAProxy 2.6.12, redir 3.3, rinetd 0.73, simpleproxy 3.5,
# systemd-socket-proxyd 252 (Debian 12).
#
# Seen: HAProxy passes a client's reset on to the server as a reset, but a server's reset to
# the client as FIN. The others make FIN of it in both directions, so that what comes from
# the far side is an orderly end, and nothing but that.
#
# Expected: that an end that was no orderly one is not made one, or at least that a
# proxy does the same in both directions.
#
# For a user of leader election: a server that takes a FIN for the client's own word that
# it has stopped, and a reset for something that a firewall may have sent in its name,
# cannot tell the two behind such a proxy: a firewall's reset between client and proxy
# arrives as the client's word. And a reset by which a server keeps its last bytes from
# being believed arrives as the end of a connection on which all was said.
set -euo pipefail

tmp=$(mktemp -d)
pids=()
# shellcheck disable=SC2317 # trap calls it
end() {
  {
    [ ${#pids[@]} = 0 ] || kill -KILL "${pids[@]}" || true
    wait
  } 2>/dev/null
  rm -rf "$tmp"
}
trap end EXIT

(cd "$tmp" && apt-get download -qq haproxy=2.6.12-1+deb12u4 libopentracing-c-wrapper0 libopentracing1 liblua5.3-0 \
  libpcre2-8-0 libpcre2-posix3 redir=3.3-1 rinetd=0.73-1 simpleproxy=3.5-1+b2 systemd=252.39-1~deb12u2 \
  libsystemd-shared=252.39-1~deb12u2 2>apt) || { cat "$tmp/apt" >&2; exit 1; }
for deb in "$tmp"/*.deb; do dpkg -x "$deb" "$tmp/root"; done

cat >"$tmp/resets.py" <<'EOF'
import glob, os, signal, socket, struct, subprocess, sys, time

tmp = sys.argv[1]
root = tmp + "/root"
libs = glob.glob(root + "/usr/lib/*-linux-gnu*") + glob.glob(root + "/usr/lib/*-linux-gnu*/systemd") \
    + [root + "/lib/systemd", root + "/usr/lib/systemd"]
env = dict(os.environ, LD_LIBRARY_PATH=":".join(libs))

def free_port():
    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]

def reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()

def end_of(sock):
    sock.settimeout(10)
    try:
        return "FIN" if sock.recv(99) == b"" else "bytes"
    except ConnectionResetError:
        return "reset"
    except TimeoutError:
        return "nothing"

def file(name, text):
    with open(f"{tmp}/{name}", "w") as f:
        f.write(text)
    return f.name

def haproxy(at, to):
    return [root + "/usr/sbin/haproxy", "-db", "-f", file("haproxy.cfg", f"""
defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
listen latch
  bind 127.0.0.1:{at}
  server n1 127.0.0.1:{to}
""")]

def redir(at, to):
    return [root + "/usr/bin/redir", "-n", f"127.0.0.1:{at}", f"127.0.0.1:{to}"]

def rinetd(at, to):
    return [root + "/usr/sbin/rinetd", "-f", "-c", file("rinetd.conf", f"127.0.0.1 {at} 127.0.0.1 {to}\n")]

def simpleproxy(at, to):
    return [root + "/usr/bin/simpleproxy", "-L", f"127.0.0.1:{at}", "-R", f"127.0.0.1:{to}"]

def socket_proxyd(at, to):
    return [root + "/lib/systemd/systemd-socket-proxyd", f"127.0.0.1:{to}"]

def start(proxy, at, to):
    command, inherited = proxy(at, to), []
    if proxy is socket_proxyd:  # takes its listener from systemd, as descriptor 3
        listener = socket.create_server(("127.0.0.1", at))
        os.dup2(listener.fileno(), 3, inheritable=True)
        inherited = [3]
        command = ["sh", "-c", 'LISTEN_FDS=1 LISTEN_PID=$$ exec "$@"', "sh", *command]
    with open(f"{tmp}/{proxy.__name__}.log", "w") as log:
        return subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                pass_fds=inherited, start_new_session=True)

def connect(at, listener):
    deadline = time.monotonic() + 10
    while True:
        try:
            client = socket.create_connection(("127.0.0.1", at), 10)
            break
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
    client.sendall(b"JOIN g me\n")
    server, _ = listener.accept()
    server.settimeout(10)
    assert server.recv(99) == b"JOIN g me\n"
    server.sendall(b"LEADER me\n")
    assert client.recv(99) == b"LEADER me\n"
    return client, server

os.dup2(os.open(os.devnull, os.O_RDONLY), 3)  # keeps 3 for socket_proxyd
changed = False
upstream = socket.create_server(("127.0.0.1", 0))
upstream.settimeout(20)
for proxy, before in [(haproxy, ("reset", "FIN")), (redir, ("FIN", "FIN")), (rinetd, ("FIN", "FIN")),
                      (simpleproxy, ("FIN", "FIN")), (socket_proxyd, ("FIN", "FIN"))]:
    at = free_port()
    process = start(proxy, at, upstream.getsockname()[1])
    try:
        client, server = connect(at, upstream)
        reset(client)
        to_server = end_of(server)
        server.close()
        client, server = connect(at, upstream)
        reset(server)
        to_client = end_of(client)
        client.close()
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    print(f"{proxy.__name__:13} a client's reset reaches the server as {to_server}, "
          f"a server's reset the client as {to_client}")
    if (to_server, to_client) != before:
        print(f"  changed: it was {before}")
        changed = True
sys.exit(changed)
EOF
timeout 120 python3 "$tmp/resets.py" "$tmp"
