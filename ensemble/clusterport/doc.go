// Package clusterport is the one TCP port on which the nodes of a cluster talk
// to each other: Raft, forwarded proposals, administration, and requests to
// join. A [Port] accepts and dials such connections. What it hands out is
// encrypted, comes from a node that knows the cluster's cookie, belongs to the
// same cluster (but for [Join]) and was admitted by its owner; a dialled
// connection ends at the node that was meant. Whoever is refused is told why.
//
// # What the cookie protects
//
//   - Every connection is TLS 1.3 with certificates on both sides, signed by a
//     key that is derived from distributed_cookie. Who has the cookie is in, and
//     may say that it is any node; nobody else gets further than the handshake.
//   - Who only listens on the wire sees addresses, purposes (ALPN), sizes and
//     times. He learns nothing to guess the cookie by, and nothing of what was
//     said, not even when he comes to know the cookie later.
//   - Who can connect to the port is shown a certificate, and can try cookies on
//     it at home, each for a fifth of a second and 64 MiB (Argon2id). The default
//     cookie falls at once, a word of a dictionary in hours; 16 random characters
//     do not.
//   - A node that was removed still has the cookie. It is refused by its id, and
//     that only keeps out one that is honest; to lock it out, change the cookie.
//   - While the cookie is changed a node accepts two ([Key.Accepting]), and proves
//     itself by one. Each lets in whoever has it, so the change protects from
//     who has the old one when that is accepted nowhere any more. Then [Port.Rekey]
//     has closed the connections, too, that were proved by it.
//   - Nothing is written to disk here; the node keeps the key, sealed ([Key.Seal]).
//   - Nothing depends on the wall clock or on who issues certificates to others.
//     Limits keep strangers from using up goroutines, memory and log; against a
//     flood of packets there is no defence.
//
// # Where to start
//
// port.go is the Port, accept.go and dial.go the two ends of a handshake, whose
// bytes are in hello.go. key.go makes certificates of the cookie. refusal.go
// lists the reasons to refuse. raft.go is what Raft's transport takes, frame.go
// what forwarding and administration put on their connections.
//
// # Goroutines
//
// One for each connection that was accepted, which performs the handshake and
// then calls the handler of the purpose. [Port.Close] ends them and waits.
package clusterport
