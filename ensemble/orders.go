package ensemble

import (
	"context"
	"encoding/json"
	"fmt"

	"leaderlatch/ensemble/clusterport"
)

// Orders are questions of the program that runs the node, which nodes pass on as
// they are: one place in the cluster keeps what must be the same for whoever asks,
// and that is the raft leader's process.

// Order has the raft leader's [Config.Order] answer, and reads its answer into is.
// Without a raft leader it waits for one, until ctx is done.
func (c *cluster) Order(ctx context.Context, with, is any) error {
	b, err := json.Marshal(with)
	if err != nil {
		return err
	}
	return c.order(ctx, b, is)
}

// OrderAt is Order in the cluster of another node. The error wraps
// [ErrUnreachable] if that node does not answer.
func (c *cluster) OrderAt(ctx context.Context, via Place, with, is any) error {
	_, err := c.ask(ctx, clusterport.Join, via.Address, "", askOrder, with, is)
	if err != nil && !answered(err) {
		err = fmt.Errorf("%s %w: %w", via, ErrUnreachable, err)
	}
	return err
}

func (c *cluster) order(ctx context.Context, with json.RawMessage, is any) error {
	return c.askLeader(ctx, askOrder, with, is, func(ctx context.Context) error {
		a, err := c.answerOrder(ctx, clusterport.Hello{}, with)
		if err != nil {
			return err
		}
		b, err := json.Marshal(a)
		if err != nil {
			return err
		}
		return json.Unmarshal(b, is)
	})
}

// answerOrder answers members.
func (c *cluster) answerOrder(ctx context.Context, _ clusterport.Hello, with json.RawMessage) (any, error) {
	switch {
	case !c.node.serving():
		return nil, later("%s is not the raft leader", c.cfg.Name)
	case c.cfg.Order == nil:
		return nil, fmt.Errorf("%s takes no orders", c.cfg.Name)
	}
	return c.cfg.Order(ctx, c.replica.Term(), with)
}

// passOrder answers nodes of other clusters.
func (c *cluster) passOrder(ctx context.Context, _ clusterport.Hello, with json.RawMessage) (any, error) {
	var is json.RawMessage
	err := c.order(ctx, with, &is)
	return is, err
}
