package gateway

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestTheConnectionOfAQuietStreamIsClosedWhereNothingMayFollow has requests behind which
// what the client sends is no request (RFC 9112, 9.6 and 7.1): it said that it has none,
// or some of the last one's body was not read.
func TestTheConnectionOfAQuietStreamIsClosedWhereNothingMayFollow(t *testing.T) {
	g := onOne(t, soon())
	g.serve()
	for what, more := range map[string]string{
		"the client closes":       "Connection: close\r\n\r\n",
		"a body that is no chunk": "Transfer-Encoding: chunked\r\n\r\nzz\r\n",
	} {
		t.Run(what, func(t *testing.T) {
			a := g.author()
			a.started()
			conn := g.tcp()
			g.no(conn.SetDeadline(time.Now().Add(wsPatience)))
			_, err := io.WriteString(conn, "GET "+events(a)+" HTTP/1.1\r\nHost: x\r\n"+more+"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n")
			g.no(err)
			g.quietly(1)
			a.complete()
			answers := bufio.NewReader(conn)
			resp, err := http.ReadResponse(answers, nil)
			g.no(err)
			b, err := io.ReadAll(resp.Body)
			g.no(err)
			g.no(resp.Body.Close())
			if resp.StatusCode != http.StatusOK || !resp.Close || !strings.Contains(string(b), "output.completed") {
				t.Errorf("%d, closing %t: %q", resp.StatusCode, resp.Close, b)
			}
			began := time.Now()
			if rest, err := io.ReadAll(answers); len(rest) > 0 || err != nil && !reset(err) {
				t.Errorf("behind it comes %.300q, %v", rest, err)
			}
			if took := time.Since(began); took > 5*time.Second { // as long as a next request is waited for
				t.Errorf("the connection was closed after %s", took)
			}
			g.quietly(0)
		})
	}
}

// reset tells whether a connection was closed of which something was not read.
func reset(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && !op.Timeout()
}
