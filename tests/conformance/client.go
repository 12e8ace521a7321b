// Go's client: see client.h for the commands. Of these, crypto/tls has no way to choose a suite of
// TLS 1.3 or psk_ke, to begin a KeyUpdate, or to pad.
//
// The standard library alone, of Go 1.19 (Debian 12) and newer.
package main

import (
	"bufio"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"time"
)

const (
	timeout      = 60 * time.Second
	verifiedName = "localhost"
	// From Go 1.24 on the order of CurvePreferences is its own, and P-256 and X25519 come before
	// P-384: only this one is offered before them.
	curveX25519MLKEM768 = tls.CurveID(4588)
)

var unsupported = map[string]bool{"suite": true, "modes": true, "update": true, "pad": true}

// One session, whatever the server's name: the last that came.
type oneSession struct {
	last  *tls.ClientSessionState
	offer bool
}

func (one *oneSession) Get(string) (*tls.ClientSessionState, bool) {
	return one.last, one.offer && one.last != nil
}

func (one *oneSession) Put(_ string, session *tls.ClientSessionState) {
	if session != nil {
		one.last = session
	}
}

// A socket that counts the ClientHellos that are written to it.
type countingConn struct {
	*net.TCPConn
	hellos int
}

func (conn *countingConn) Write(bytes []byte) (int, error) {
	for record := bytes; len(record) > 5; {
		if record[0] == 22 && record[5] == 1 {
			conn.hellos++
		}
		end := 5 + int(record[3])<<8 + int(record[4])
		if end > len(record) {
			break
		}
		record = record[end:]
	}
	return conn.TCPConn.Write(bytes)
}

var (
	session oneSession
	socket  *countingConn
	client  *tls.Conn
)

func giveUp(why ...interface{}) {
	fmt.Fprintln(os.Stderr, why...)
	os.Exit(1)
}

func number(text string) int {
	value, err := strconv.Atoi(text)
	if err != nil {
		giveUp(err)
	}
	return value
}

// The field moved between versions of Go; its bytes are shared, not copied.
func ticketOf(state *tls.ClientSessionState) []byte {
	value := reflect.ValueOf(state).Elem()
	for _, name := range []string{"sessionTicket", "ticket"} {
		if field := value.FieldByName(name); field.IsValid() {
			return field.Bytes()
		}
	}
	if inner := value.FieldByName("session"); inner.IsValid() && !inner.IsNil() {
		if field := inner.Elem().FieldByName("ticket"); field.IsValid() {
			return field.Bytes()
		}
	}
	giveUp("garble: this version of Go hides its tickets")
	return nil
}

func garble(at int) {
	ticket := ticketOf(session.last)
	if at < 0 {
		at += len(ticket)
	}
	ticket[at] ^= 1
}

// The failure as an answer; the alert's number is a type of crypto/tls's own.
func answer(err error) string {
	var remote *net.OpError
	if errors.As(err, &remote) && remote.Op == "remote error" {
		if value := reflect.ValueOf(remote.Err); value.Kind() == reflect.Uint8 {
			return fmt.Sprint("alert ", value.Uint())
		}
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return "end"
	}
	if errors.Is(err, io.EOF) {
		return "closed"
	}
	return fmt.Sprint("failed ", err)
}

func olderThan(minor int) bool {
	var ours int
	_, err := fmt.Sscanf(runtime.Version(), "go1.%d", &ours)
	return err == nil && ours < minor
}

func curvesForRetry() []tls.CurveID {
	if olderThan(24) {
		return []tls.CurveID{tls.CurveP384, tls.CurveP256}
	}
	return []tls.CurveID{curveX25519MLKEM768, tls.CurveP256}
}

func configOf(options map[string]string) *tls.Config {
	pem, err := os.ReadFile(options["ca"])
	roots := x509.NewCertPool()
	if err != nil || !roots.AppendCertsFromPEM(pem) {
		giveUp("ca", err)
	}
	config := &tls.Config{
		RootCAs:                     roots,
		ServerName:                  options["sni"],
		ClientSessionCache:          &session,
		DynamicRecordSizingDisabled: true,
		MinVersion:                  tls.VersionTLS12,
	}
	if options["sni"] != verifiedName {
		config.InsecureSkipVerify = true // by that name; checked by ours
		config.VerifyConnection = func(state tls.ConnectionState) error {
			if state.DidResume {
				return nil
			}
			_, err := state.PeerCertificates[0].Verify(
				x509.VerifyOptions{DNSName: verifiedName, Roots: roots})
			return err
		}
	}
	if options["alpn"] != "" {
		config.NextProtos = strings.Split(options["alpn"], ",")
	}
	if options["tls12"] != "" {
		config.MaxVersion = tls.VersionTLS12
	}
	if options["groups"] != "" {
		config.CurvePreferences = curvesForRetry()
	}
	if options["ahead"] != "" {
		ahead := time.Duration(number(options["ahead"])) * time.Second
		config.Time = func() time.Time { return time.Now().Add(ahead) }
	}
	return config
}

func drop() {
	if socket != nil {
		socket.Close()
		socket, client = nil, nil
	}
}

func connect(words []string) string {
	options := map[string]string{}
	for _, word := range words[2:] {
		key, value, _ := strings.Cut(word, "=")
		if unsupported[key] {
			return "unsupported " + key
		}
		options[key] = value
	}
	// Go 1.19.8 leaves the HelloRetryRequest out of what the binder of its second ClientHello covers.
	if options["groups"] != "" && options["resume"] != "" && olderThan(21) {
		return "unsupported retry"
	}
	drop()
	dialled, err := net.DialTimeout("tcp", net.JoinHostPort(words[0], words[1]), timeout)
	if err != nil {
		giveUp(err)
	}
	session.offer = options["resume"] != ""
	if session.offer && session.last == nil {
		giveUp("resume: no session has come")
	}
	if options["garble"] != "" {
		garble(number(options["garble"]))
	}
	socket = &countingConn{TCPConn: dialled.(*net.TCPConn)}
	client = tls.Client(socket, configOf(options))
	client.SetDeadline(time.Now().Add(timeout))
	if err := client.Handshake(); err != nil {
		drop()
		return "refused " + strings.Replace(answer(err), "alert ", "alert=", 1)
	}
	state, resumed := client.ConnectionState(), 0
	if state.DidResume {
		resumed = 1
	}
	certificate := sha256.Sum256(state.PeerCertificates[0].Raw)
	return fmt.Sprintf("connected resumed=%d hellos=%d alpn=%s certificate=%x", resumed,
		socket.hellos, state.NegotiatedProtocol, certificate)
}

func read() string {
	bytes := make([]byte, 1<<15)
	client.SetDeadline(time.Now().Add(timeout))
	count, err := client.Read(bytes)
	if count > 0 {
		return "data " + hex.EncodeToString(bytes[:count])
	}
	return answer(err)
}

func said(err error) string {
	if err != nil {
		return answer(err)
	}
	return "ok"
}

func obey(words []string) string {
	if words[0] == "connect" && len(words) >= 3 {
		return connect(words[1:])
	}
	if client == nil {
		giveUp("there is no connection")
	}
	if unsupported[words[0]] {
		return "unsupported " + words[0]
	}
	switch words[0] {
	case "write":
		bytes, err := hex.DecodeString(words[1])
		if err != nil {
			giveUp(err)
		}
		_, err = client.Write(bytes)
		return said(err)
	case "read":
		return read()
	case "close":
		return said(client.CloseWrite())
	case "fin":
		return said(socket.CloseWrite())
	case "drop":
		drop()
		return "ok"
	}
	giveUp("no such command:", words[0])
	return ""
}

func main() {
	input := bufio.NewReader(os.Stdin)
	for {
		line, err := input.ReadString('\n')
		if words := strings.Fields(line); len(words) > 0 {
			fmt.Println(obey(words))
		}
		if err != nil {
			return
		}
	}
}
