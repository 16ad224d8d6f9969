// Package scene is what every Go client plays: the same records, the same steps, one line per step that held.
package scene

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strings"
	"time"
)

const (
	PerCodec   = 40
	Codecs     = 5
	Total      = PerCodec * Codecs
	Partitions = 6
	Records    = 600
)

var Base = time.Now().Add(-time.Hour).Truncate(time.Millisecond)

// Record i: every tenth has no key, every seventh is large.
type Record struct {
	Key, Value []byte
	Time       time.Time
}

func Of(i int) Record {
	r := Record{Key: []byte(fmt.Sprintf("k%d", i)), Time: Base.Add(time.Duration(i) * time.Millisecond)}
	if i%10 == 9 {
		r.Key = nil
	}
	times := 3
	if i%7 == 6 {
		times = 2000
	}
	r.Value = []byte(strings.Repeat(fmt.Sprintf("value %d ", i), times))
	return r
}

// Check compares what was read at offset i, with its header n.
func Check(i int, offset int64, key, value []byte, at time.Time, n string) {
	r := Of(i)
	if offset != int64(i) || !bytes.Equal(key, r.Key) || !bytes.Equal(value, r.Value) || at.UnixMilli() != r.Time.UnixMilli() || n != fmt.Sprint(i) {
		Fail("record %d: offset %d key %q header %q time %v", i, offset, key, n, at)
	}
}

func Step(name string) { fmt.Println("ok " + name) }

func Fail(format string, a ...any) {
	fmt.Printf("FAILED "+format+"\n", a...)
	os.Exit(1)
}

func Must(err error, what string) {
	if err != nil {
		Fail("%s: %v", what, err)
	}
}

func Same(what string, got, wanted any) {
	if fmt.Sprint(got) != fmt.Sprint(wanted) {
		Fail("%s: got %v wanted %v", what, got, wanted)
	}
}

func Wait(what string, condition func() bool) {
	for end := time.Now().Add(60 * time.Second); !condition(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			Fail("%s: not within 60 s", what)
		}
	}
}

// Restart has the driver kill the broker and start it again.
func Restart() {
	fmt.Println("restart")
	line, _ := bufio.NewReader(os.Stdin).ReadString('\n')
	Same("restart", strings.TrimSpace(line), "restarted")
}
