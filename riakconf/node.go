package riakconf

import (
	"fmt"
	"strings"
)

// A Node is a node's name and the port of its cluster listener.
type Node struct {
	Name string // name@host, where the host is Host
	Host string // a name, or a numeric address in its canonical form, without brackets
	Port int    // 1 to 65535; of [ParseNode] 0 if none is given
}

// ParseNode reads name@host or name@host:port. An IPv6 address needs brackets
// if a port follows. However the address is spelled, the node has one name.
func ParseNode(s string) (Node, error) {
	name, host, at := strings.Cut(s, "@")
	switch {
	case !at:
		return Node{}, fmt.Errorf("%s has no @; write name@host, for example riak@192.0.2.1", show(s))
	case name == "" || strings.ContainsFunc(name, notInName):
		return Node{}, fmt.Errorf("%s has no usable name in front of the @; write name@host, for example riak@192.0.2.1", show(s))
	case host == "":
		return Node{}, fmt.Errorf("%s has no host behind the @; write name@host, for example riak@192.0.2.1", show(s))
	}
	if canonical, err := parseHost(host); err == nil {
		return Node{Name: name + "@" + canonical, Host: canonical}, nil
	} else if !strings.Contains(host, ":") {
		return Node{}, err
	}
	a, err := parseAddress(host, clusterPort)
	if err != nil {
		return Node{}, err
	}
	if a.Port == 0 {
		return Node{}, fmt.Errorf("%s has port 0; write the port of that node's cluster listener, or none", show(s))
	}
	return Node{Name: name + "@" + a.Host, Host: a.Host, Port: a.Port}, nil
}

// String is name@host:port as [ParseNode] reads it, without a port of 0.
func (n Node) String() string {
	if n.Port == 0 {
		return n.Name
	}
	return strings.TrimSuffix(n.Name, n.Host) + Address{n.Host, n.Port}.String()
}

func notInName(r rune) bool { return r <= ' ' || r == 0x7F }

// checkNodename says what is wrong with a node's own name.
func checkNodename(s string) error {
	n, err := ParseNode(s)
	if err == nil && n.Port != 0 {
		err = fmt.Errorf("%s has a port; the port of this node is set by leader_latch.cluster_listener", show(s))
	}
	return err
}

// parseNodes reads a list of nodes with commas or blanks between them.
func parseNodes(s string) ([]Node, error) {
	var list []Node
	for _, field := range strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' }) {
		n, err := ParseNode(field)
		if err != nil {
			return nil, err
		}
		if unspecified(n.Host) {
			return nil, fmt.Errorf("%s is no address to join a node at; write the one that it has", n.Host)
		}
		list = append(list, n)
	}
	return list, nil
}
