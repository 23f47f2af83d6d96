// Command hub is a server of another hub of streams, for `make bench-hubs` to compare
// Penstock's gateway with: Centrifugo's library, or Mercure's. Both keep all in
// memory and are given their events in the process itself, so that nothing stands
// before the hub.
//
// POST /publish?streams=300&rate=50&seconds=20&stagger=5 publishes to the channels
// s0 to s299 what a Penstock job would have written to the token topic; streams=1 to
// s0. It answers when it has.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net/http"
	_ "net/http/pprof" //nolint:gosec // heap?gc=1 is how memory is read
	"strconv"
	"sync"
	"time"

	"github.com/centrifugal/centrifuge"
	"github.com/dunglas/mercure"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// publisher takes one event for the watchers of a channel.
type publisher func(channel string, event []byte) error

func main() {
	kind := flag.String("kind", "centrifuge", "centrifuge or mercure")
	listen := flag.String("listen", "127.0.0.1:0", "host:port")
	flag.Parse()
	publish, err := mount(*kind)
	if err != nil {
		log.Fatal(err)
	}
	http.Handle("/metrics", promhttp.Handler())
	http.HandleFunc("/publish", func(w http.ResponseWriter, r *http.Request) {
		if err := stream(r, publish); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
	})
	log.Fatal(http.ListenAndServe(*listen, nil)) //nolint:gosec // it lives for a bench
}

func mount(kind string) (publisher, error) {
	switch kind {
	case "centrifuge":
		return mountCentrifuge()
	case "mercure":
		return mountMercure()
	default:
		return nil, fmt.Errorf("%q is no kind: it must be centrifuge or mercure", kind)
	}
}

// mountCentrifuge serves a node with recovery, as one has it who must not lose a
// token: each channel keeps its newest events for a minute. A client names its
// channel, if any, in the data of its connect.
func mountCentrifuge() (publisher, error) {
	node, err := centrifuge.New(centrifuge.Config{ClientQueueMaxSize: 8 << 20})
	if err != nil {
		return nil, err
	}
	node.OnConnecting(func(_ context.Context, e centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
		reply := centrifuge.ConnectReply{Credentials: &centrifuge.Credentials{UserID: ""}}
		if channel, err := strconv.Unquote(string(e.Data)); err == nil && channel != "" {
			reply.Subscriptions = map[string]centrifuge.SubscribeOptions{channel: {EnableRecovery: true}}
		}
		return reply, nil
	})
	node.OnConnect(func(*centrifuge.Client) {})
	if err := node.Run(); err != nil {
		return nil, err
	}
	// No pings: a client over SSE would have to answer them by requests of their own.
	quiet := centrifuge.PingPongConfig{PingInterval: -1}
	http.Handle("/ws", centrifuge.NewWebsocketHandler(node, centrifuge.WebsocketConfig{
		PingPongConfig: quiet,
		ReadBufferSize: 512, UseWriteBufferPool: true, WriteTimeout: 10 * time.Second,
		CheckOrigin: func(*http.Request) bool { return true },
	}))
	http.Handle("/sse", centrifuge.NewSSEHandler(node, centrifuge.SSEConfig{PingPongConfig: quiet}))
	return func(channel string, event []byte) error {
		_, err := node.Publish(channel, event, centrifuge.WithHistory(1000, time.Minute))
		return err
	}, nil
}

// mountMercure serves a hub with the local transport, which keeps no history: that
// is Mercure at its quickest.
func mountMercure() (publisher, error) {
	transport := mercure.NewLocalTransport()
	hub, err := mercure.NewHub(mercure.WithTransport(transport), mercure.WithAnonymous(),
		mercure.WithSubscriberJWT([]byte("nobody has to show one"), "HS256"), mercure.WithPublisherJWT([]byte("nobody has to show one"), "HS256"))
	if err != nil {
		return nil, err
	}
	http.Handle("/.well-known/mercure", hub)
	return func(channel string, event []byte) error {
		return transport.Dispatch(&mercure.Update{Topics: []string{"https://example.com/" + channel}, Event: mercure.Event{Data: string(event)}})
	}, nil
}

// stream publishes what the query says.
func stream(r *http.Request, publish publisher) error {
	var streams, rate, seconds, stagger int
	for name, into := range map[string]*int{"streams": &streams, "rate": &rate, "seconds": &seconds, "stagger": &stagger} {
		n, err := strconv.Atoi(r.URL.Query().Get(name))
		if err != nil || n < 0 {
			return fmt.Errorf("%s must be a number", name)
		}
		*into = n
	}
	if streams == 0 || rate == 0 || rate > 1000 {
		return errors.New("streams must be 1 or more, rate 1 to 1000")
	}
	began := time.Now()
	errs := make([]error, streams)
	var wg sync.WaitGroup
	for i := range streams {
		wg.Go(func() {
			time.Sleep(time.Until(began.Add(time.Duration(stagger) * time.Second * time.Duration(i) / time.Duration(streams))))
			errs[i] = one(publish, "s"+strconv.Itoa(i), rate, rate*seconds)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// one publishes one stream, a token at a time.
func one(publish publisher, channel string, rate, tokens int) error {
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	for seq := range tokens {
		if err := publish(channel, record(channel, seq, "output.delta", `{"index":0,"content":" upstream"}`)); err != nil {
			return err
		}
		<-tick.C
	}
	return publish(channel, record(channel, tokens, "output.completed", fmt.Sprintf(`{"model":"sim","usage":{"completion_tokens":%d}}`, tokens)))
}

// record is as long as one of Penstock's, and says the same.
func record(channel string, seq int, kind, data string) []byte {
	return fmt.Appendf(make([]byte, 0, 384), `{"type":%q,"v":1,"time":%q,"tenant":"default","job":"job_06h1vtqdhc005jvnjwazg4rkjgvgq%s","conversation":null,"batch":null,"attempt":1,"seq":%d,"lane":"standard","epoch":1,"data":%s}`,
		kind, time.Now().UTC().Format("2006-01-02T15:04:05.000Z"), channel, seq, data)
}
