package ensemble

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"leaderlatch/ensemble/clusterport"
	"leaderlatch/ensemble/replica"
)

// Rekey has this node prove itself to the others by another key from here on, which also
// says whom it accepts. All members have to accept it, and it them: a step of a change of
// the cookie that comes too early would cut nodes off from each other. Otherwise nothing is
// changed, and the error has a line for each node that is not there yet, in order of their
// names. All are asked at once, for replica.ChangeTime at most, and not beyond ctx. When the
// node fails meanwhile, nothing is changed, and the error is that of [Node.Err], at once: the
// next node on the folder need not wait.
func (n *Node) Rekey(ctx context.Context, key *clusterport.Key) error {
	trial, err := clusterport.New(clusterport.Config{
		Key:         func() (*clusterport.Key, error) { return key, nil },
		Self:        n.cluster.hello,
		Admit:       n.cluster.admit,
		DialContext: n.cfg.dial,
	})
	if err != nil {
		return err
	}
	defer trial.Close()
	ctx, cancel := context.WithTimeout(ctx, replica.ChangeTime)
	defer cancel()
	go func() {
		select {
		case <-n.Failed():
			cancel()
		case <-ctx.Done():
		}
	}()
	others := slices.SortedFunc(slices.Values(n.replica.Others()), func(a, b replica.Server) int { return cmp.Compare(a.Name, b.Name) })
	behind := make([]error, len(others))
	var all sync.WaitGroup
	for i, s := range others {
		all.Go(func() { behind[i] = n.tryKey(ctx, trial, s) })
	}
	all.Wait()
	if err := cmp.Or(n.Err(), errors.Join(behind...), ctx.Err()); err != nil {
		return err
	}
	n.port.Rekey(key)
	return nil
}

// tryKey reports an error unless a member and the port with the new key let each other in.
func (n *Node) tryKey(ctx context.Context, trial *clusterport.Port, s replica.Server) error {
	conn, _, err := trial.Dial(ctx, clusterport.Admin, n.replica.AddressOf(s), string(s.ID))
	switch {
	case err == nil:
		return conn.Close()
	case errors.Is(err, clusterport.ErrWrongCookie):
		return fmt.Errorf("%s and this node would not let each other in: do the step before on that one first", s.Name)
	}
	return fmt.Errorf("%s cannot be asked whether it knows this cookie (%w): start it, or remove it from the cluster", s.Name, err)
}
