package servicelog

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// objects prints records as JSON objects, for collectors (leader_latch.log.format = json):
//
//	{"time":"2026-05-04T19:07:12.000+02:00","level":"info","msg":"session opened","node":"riak@192.0.2.1"}
//
// Levels have the names, and values the texts, that they have in lines; numbers and
// booleans stay what they are. No key of the service's is time, level or msg.
type objects struct {
	*printer
	handler slog.Handler // writes to the printer
}

// printer is where a handler leaves the object that it has printed.
type printer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

const objectTime = "2006-01-02T15:04:05.000Z07:00"

func newObjects() *objects {
	p := new(printer)
	return &objects{p, slog.NewJSONHandler(&p.b, &slog.HandlerOptions{
		Level: slog.Level(-1 << 10), // who calls has chosen
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			switch v := a.Value.Resolve(); {
			case len(groups) == 0 && a.Key == slog.LevelKey:
				name, _ := levelOf(v.Any().(slog.Level))
				return slog.String(a.Key, name)
			case len(groups) == 0 && a.Key == slog.TimeKey && v.Kind() == slog.KindTime:
				return slog.String(a.Key, v.Time().Format(objectTime))
			case v.Kind() == slog.KindAny, v.Kind() == slog.KindDuration, v.Kind() == slog.KindTime:
				return slog.String(a.Key, v.String())
			}
			return a
		},
	})}
}

// object prints a record, without a line end. A nil one prints nothing.
func (o *objects) object(r slog.Record) string {
	if o == nil {
		return ""
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.b.Reset()
	if r.Time.IsZero() {
		r.Time = time.Now()
	}
	o.handler.Handle(context.Background(), r) // a buffer takes everything
	return strings.TrimSuffix(o.b.String(), "\n")
}

func (o *objects) with(attrs []slog.Attr) *objects {
	if o == nil {
		return nil
	}
	return &objects{o.printer, o.handler.WithAttrs(attrs)}
}

func (o *objects) within(group string) *objects {
	if o == nil {
		return nil
	}
	return &objects{o.printer, o.handler.WithGroup(group)}
}
