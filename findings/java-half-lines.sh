#!/usr/bin/env bash
# Java's readers of lines (shown with the JDK at hand, 17) and CRLFLineReader of
# commons-net 3.11.1, on a socket with setSoTimeout, when the time ends within a line.
#
# Seen: BufferedReader.readLine, and CRLFLineReader which commons-net reads its line protocols
# with, throw SocketTimeoutException, as they should, and have lost what had come of the
# line: the next call gives "2" of "LEADER worker-12". java.util.Scanner throws nothing:
# it takes the time limit for the end of the input, gives "LEADER worker-1" as a line, and
# has no next line ever after, though two more come.
#
# Expected: that a reader with a buffer, whose call failed without a line, still has in it
# what it has read; and that an exception is not an end of input.
#
# For a user of leader election: a client that wakes up each second by setSoTimeout needs a
# buffer of its own under a channel, or another thread that reads without a limit.
set -euo pipefail

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cat >"$tmp/HalfLines.java" <<'EOF'
import java.io.BufferedReader;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.net.SocketTimeoutException;
import java.util.Scanner;
import org.apache.commons.net.io.CRLFLineReader;

class HalfLines {
    interface Lines { String next() throws Exception; }

    interface Reader { Lines on(InputStream in) throws Exception; }

    static boolean changed;

    static void want(String what, String end, Reader reader, String before) throws Exception {
        try (ServerSocket listener = new ServerSocket(0, 1, InetAddress.getLoopbackAddress());
                Socket client = new Socket(listener.getInetAddress(), listener.getLocalPort());
                Socket server = listener.accept()) {
            server.getOutputStream().write("LEADER worker-1".getBytes());
            client.setSoTimeout(1000);
            Lines lines = reader.on(client.getInputStream());
            StringBuilder said = new StringBuilder();
            for (int i = 0; i < 3; i++) {
                try {
                    said.append(i == 0 ? "" : ", ").append(lines.next());
                } catch (SocketTimeoutException e) {
                    said.append("time is up");
                }
                if (i == 0) {
                    server.getOutputStream().write(("2" + end + "LEADER b" + end).getBytes());
                    client.setSoTimeout(20000);
                }
            }
            System.out.println(what + ": " + said);
            if (!said.toString().equals(before)) {
                System.out.println("  changed: it was " + before);
                changed = true;
            }
        }
    }

    public static void main(String[] args) throws Exception {
        System.out.println("Java " + System.getProperty("java.version"));
        want("BufferedReader", "\n", in -> new BufferedReader(new InputStreamReader(in))::readLine,
                "time is up, 2, LEADER b");
        want("CRLFLineReader", "\r\n", in -> new CRLFLineReader(new InputStreamReader(in))::readLine,
                "time is up, 2, LEADER b");
        want("Scanner       ", "\n", in -> {
            Scanner scanner = new Scanner(in);
            return () -> scanner.hasNextLine() ? scanner.nextLine() : "no next line";
        }, "LEADER worker-1, no next line, no next line");
        System.exit(changed ? 1 : 0);
    }
}
EOF
mvn -q -B -Dmaven.repo.local="$tmp/m2" org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy \
  -Dartifact=commons-net:commons-net:3.11.1 -DoutputDirectory="$tmp" >"$tmp/log" 2>&1 || { cat "$tmp/log" >&2; exit 1; }
timeout 120 java -cp "$tmp/commons-net-3.11.1.jar" "$tmp/HalfLines.java"
