package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"leaderlatch/ensemble"
	"leaderlatch/ensemble/state"
)

// reasonText is what a person is told of a reason for a change of leaders. {who} in it is the
// former leader, {node} its node, {at} the two together, and {time} when the other one leads.
type reasonText struct {
	reason  state.Reason // 0: there was no leader before
	because string       // why the former leader leads no more, behind "because"
	look    string       // what to look at, as sentences; empty: nothing
}

// reasonTexts is the one source of what commands and documents say of reasons.
var reasonTexts = []reasonText{
	{0, "nobody led before", ""},
	{state.ReasonClosed, "{who} closed its connection, or its process ended",
		"If it was not to stop: look at the log of {who} at {time}."},
	{state.ReasonReset, "the connection of {who} was reset",
		"Look at the log of {who} at {time}: a process that is killed with something unread resets its connection. So do firewalls and proxies between it and {node}."},
	{state.ReasonSilent, "the host of {who} did not answer any more",
		"Look at that host, and at the network between it and {node}, in the seconds before {time}."},
	{state.ReasonStuck, "{who} took nothing that it was told, or asked for no promise any more",
		"Look at what held up the process of {who} before {time}."},
	{state.ReasonLeft, "{who} left the group, by LEAVE",
		"If it was not to leave: look at the log of {who} at {time}."},
	{state.ReasonNodeStopped, "{at} was stopped",
		"It was stopped in order: look at the log of {node}, and at the journal of its machine, at {time}."},
	{state.ReasonNodeRestarted, "{at} was started again after its process had ended out of order",
		"Look at how the process of {node} ended before {time}: at the end of its log, at crash.log, and at the kernel's log."},
	{state.ReasonNodeLost, "{at} was silent for longer than its leader_latch.timing allows",
		"Look at the log of {node}, and at its disk, network and load before {time}."},
	{state.ReasonSessionLost, "{at} had lost its session",
		"Its renewals were not committed in time: look at the log of {node} for \"session lost\", and at its disk, network and load before {time}."},
	{state.ReasonRemoved, "{at} was removed from the cluster, or left it",
		"An operator had it go, by cluster leave or cluster force-remove: look at the logs of the nodes at {time}."},
	{state.ReasonSteppedDown, "an operator had {who} step down",
		"The log of {node} has it in the 10 s before {time}, as a leader that is to step down: ask who ran leader-latch step-down."},
	{state.ReasonHoldOver, "{who}, a keyed member, did not come back in time",
		"Its connection to {node}, or that node itself, had ended before: look at why {who} did not JOIN again before {time}."},
}

// unknownReason is that of a reason that this program does not know.
var unknownReason = reasonText{0, "{who} leads no more for a reason that only a newer version knows",
	"Run this command on a node of the newer version: leader-latch cluster status says where there is one."}

// textOf is the text about a reason, by its word.
func textOf(word string) reasonText {
	for _, text := range reasonTexts {
		if text.reason.String() == word {
			return text
		}
	}
	return unknownReason
}

// inGeneral is the text about whatever leader and node.
func inGeneral(text string) string {
	return strings.NewReplacer("{who}", "the leader", "{node}", "its node", "{at}", "the node where the leader was connected", "{time}", "that time").Replace(text)
}

// about is the text about a change.
func about(c ensemble.Change, text string) string {
	return strings.NewReplacer("{who}", c.From, "{node}", c.Node, "{at}", c.Node+", where "+c.From+" was connected,",
		"{time}", c.At.In(time.Local).Format(time.TimeOnly)).Replace(text)
}

// sinceAndWhy says who leads since a change, and why, as the beginning of a sentence.
func sinceAndWhy(c ensemble.Change) string {
	who, seen := c.To, ""
	if who == "" {
		who = "nobody"
	}
	if c.Reason != "" {
		seen = " (" + c.Reason
		if c.By != "" {
			seen += ", seen by " + c.By
		}
		seen += ")"
	}
	return fmt.Sprintf("%s leads since %s, because %s%s", who, c.At.In(time.Local).Format(moment), about(c, textOf(c.Reason).because), seen)
}

// explained is all that a person is told of a change.
func explained(c ensemble.Change) string {
	text := sinceAndWhy(c) + "."
	if c.To == "" {
		text = "N" + text[1:]
	}
	if look := textOf(c.Reason).look; look != "" {
		text += "\n" + about(c, look)
	}
	return text
}

// manReasons writes what reasons there are.
func manReasons(w io.Writer) {
	manSection(w, "REASONS", "Why a leader leads no more, as groups and explain say it.")
	for _, text := range reasonTexts {
		if text.reason != 0 {
			manItem(w, text.reason.String(), strings.TrimSpace(upperFirst(inGeneral(text.because))+". "+inGeneral(text.look)))
		}
	}
}
