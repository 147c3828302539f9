package ensemble

import (
	"leaderlatch/ensemble/mutation"
	"leaderlatch/ensemble/replica"
	"leaderlatch/ensemble/session"
	"leaderlatch/ensemble/state"
	"leaderlatch/ensemble/state/statetest"
)

// omits gives the rules that are left out by the node itself.
func omits(mutate mutation.Mutation) session.Omissions {
	return session.Omissions{
		Leave: mutate == mutation.LeaveWait, End: mutate == mutation.EndWait, Open: mutate == mutation.OpenWait,
		Start: mutate == mutation.StartWait, Note: mutate == mutation.NoNote,
		Acknowledgement: mutate == mutation.NoAcknowledgement, Sending: mutate == mutation.ReceiveTime,
		CloseTime: mutate == mutation.NoCloseTime, Grace: mutate == mutation.NoGrace,
	}
}

// omitsOfReplica gives the rules that are left out by its replica.
func omitsOfReplica(mutate mutation.Mutation) replica.Omissions {
	return replica.Omissions{
		Apply: mutate == mutation.ApplyUnflushed, Commit: mutate == mutation.CommitUnflushed, Follow: mutate == mutation.FollowUnflushed,
	}
}

// mutated is an entry as a state machine without some rule would take it.
func mutated(mutate mutation.Mutation, of *state.State, e state.Entry) state.Entry {
	switch mutate {
	case mutation.AnyCounter:
		return statetest.AnyCounter(of, e)
	case mutation.NoCompare:
		return statetest.NoCompare(of, e)
	case mutation.NoDedup:
		return statetest.NoDedup(of, e)
	}
	return e
}
