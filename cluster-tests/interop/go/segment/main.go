// kafka-go.
package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	. "callboard.test/interop/scene"
	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/compress"
)

const topic, groups = "i-segment", "g-segment"

var boot = os.Args[1]

func rec(i int) kafka.Message {
	r := Of(i)
	return kafka.Message{Key: r.Key, Value: r.Value, Time: r.Time, Headers: []kafka.Header{{Key: "n", Value: []byte(strconv.Itoa(i))}, {Key: "empty", Value: []byte{}}}}
}

func writer(codec compress.Compression) *kafka.Writer {
	return &kafka.Writer{Addr: kafka.TCP(boot), Topic: topic, RequiredAcks: kafka.RequireAll, Compression: codec, BatchTimeout: 5 * time.Millisecond, BatchBytes: 1 << 20, MaxAttempts: 100}
}

func readAll(ctx context.Context, count int) {
	r := kafka.NewReader(kafka.ReaderConfig{Brokers: []string{boot}, Topic: topic, Partition: 0, MaxWait: 100 * time.Millisecond})
	defer r.Close()
	for i := range count {
		m, err := r.ReadMessage(ctx)
		Must(err, "read")
		Check(i, m.Offset, m.Key, m.Value, m.Time, string(m.Headers[0].Value))
	}
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	c := &kafka.Client{Addr: kafka.TCP(boot), Timeout: 20 * time.Second}
	created, err := c.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{
		{Topic: topic, NumPartitions: 1, ReplicationFactor: 1, ConfigEntries: []kafka.ConfigEntry{{ConfigName: "retention.ms", ConfigValue: "86400000"}}},
		{Topic: groups, NumPartitions: Partitions - 1, ReplicationFactor: 1}}})
	Must(err, "create")
	for name, err := range created.Errors {
		Must(err, "create "+name)
	}
	grown, err := c.CreatePartitions(ctx, &kafka.CreatePartitionsRequest{Topics: []kafka.TopicPartitionsConfig{{Name: groups, Count: Partitions}}})
	Must(err, "grow")
	Must(grown.Errors[groups], "grow")
	described, err := c.DescribeConfigs(ctx, &kafka.DescribeConfigsRequest{Resources: []kafka.DescribeConfigRequestResource{{ResourceType: kafka.ResourceTypeTopic, ResourceName: topic}}})
	Must(err, "describe")
	found := map[string]string{}
	for _, e := range described.Resources[0].ConfigEntries {
		found[e.ConfigName] = e.ConfigValue
	}
	Same("configs", found["retention.ms"]+" "+found["cleanup.policy"], "86400000 delete")
	Step("admin")

	for n, codec := range []compress.Compression{compress.None, compress.Gzip, compress.Snappy, compress.Lz4, compress.Zstd} {
		w := writer(codec)
		var all []kafka.Message
		for i := n * PerCodec; i < (n+1)*PerCodec; i++ {
			all = append(all, rec(i))
		}
		Must(w.WriteMessages(ctx, all...), "produce")
		Must(w.Close(), "close")
	}
	readAll(ctx, Total)
	Step("every codec, headers and timestamps")
	r := kafka.NewReader(kafka.ReaderConfig{Brokers: []string{boot}, Topic: topic, Partition: 0, MaxWait: 100 * time.Millisecond})
	Must(r.SetOffsetAt(ctx, Base.Add(77*time.Millisecond)), "by time")
	m, err := r.ReadMessage(ctx)
	Must(err, "by time")
	Same("offset by time", m.Offset, 77)
	Must(r.Close(), "close")
	Step("seek by time")
	group := func(name string) *kafka.Reader {
		return kafka.NewReader(kafka.ReaderConfig{Brokers: []string{boot}, GroupID: name, Topic: topic, StartOffset: kafka.FirstOffset, MaxWait: 100 * time.Millisecond, SessionTimeout: 6 * time.Second})
	}
	g := group("r-segment")
	for i := range 120 {
		m, err := g.FetchMessage(ctx)
		Must(err, "fetch")
		if i == 119 {
			Must(g.CommitMessages(ctx, m), "commit")
		}
	}
	Must(g.Close(), "close")
	g = group("r-segment")
	m, err = g.FetchMessage(ctx)
	Must(err, "resume")
	Same("resume", m.Offset, 120)
	Must(g.Close(), "close")
	Step("commit and resume")

	var lock sync.Mutex
	seen, members := map[string]string{}, map[int]bool{}
	var stops [3]context.CancelFunc
	var done [3]sync.WaitGroup
	start := func(n int) {
		stop, cancel := context.WithCancel(ctx)
		stops[n] = cancel
		g := kafka.NewReader(kafka.ReaderConfig{Brokers: []string{boot}, GroupID: "three-segment", Topic: groups, StartOffset: kafka.FirstOffset, MaxWait: 100 * time.Millisecond, SessionTimeout: 6 * time.Second, HeartbeatInterval: 300 * time.Millisecond, RebalanceTimeout: 6 * time.Second})
		done[n].Add(1)
		go func() {
			defer done[n].Done()
			for {
				m, err := g.ReadMessage(stop)
				if err != nil {
					break
				}
				lock.Lock()
				seen[fmt.Sprint(m.Partition, ":", m.Offset)] = string(m.Value)
				members[n] = true
				lock.Unlock()
			}
			_ = g.Close()
		}()
	}
	for n := range 3 {
		start(n)
	}
	size := func() int {
		described, err := c.DescribeGroups(ctx, &kafka.DescribeGroupsRequest{GroupIDs: []string{"three-segment"}})
		if err != nil || described.Groups[0].GroupState != "Stable" {
			return 0
		}
		return len(described.Groups[0].Members)
	}
	Wait("three members", func() bool { return size() == 3 })
	w := &kafka.Writer{Addr: kafka.TCP(boot), Topic: groups, RequiredAcks: kafka.RequireAll, Balancer: &kafka.RoundRobin{}, BatchTimeout: 5 * time.Millisecond}
	send := func(from, n int) {
		var all []kafka.Message
		for i := range n {
			all = append(all, kafka.Message{Value: []byte(strconv.Itoa(from + i))})
		}
		Must(w.WriteMessages(ctx, all...), "produce")
	}
	count := func() int { lock.Lock(); defer lock.Unlock(); return len(seen) }
	send(0, Records)
	Wait("all of the group", func() bool { return count() == Records })
	lock.Lock()
	Same("members that read", len(members), 3)
	lock.Unlock()
	stops[2]()
	done[2].Wait()
	send(Records, 60)
	Wait("all after one left", func() bool { return count() == Records+60 })
	for n := range 2 {
		stops[n]()
		done[n].Wait()
	}
	values := map[string]bool{}
	for _, v := range seen {
		values[v] = true
	}
	Same("each record once", len(values), Records+60)
	Step("group of three with a rebalance")

	q := writer(compress.None)
	for i := Total; i < Total+50; i++ {
		Must(q.WriteMessages(ctx, rec(i)), "produce over a restart")
		if i == Total+20 {
			Restart()
		}
	}
	readAll(ctx, Total+50)
	Step("broker restart in the middle")
	// The old client keeps connections from before the restart and does not try again.
	c = &kafka.Client{Addr: kafka.TCP(boot), Timeout: 20 * time.Second, Transport: &kafka.Transport{}}
	deleted, err := c.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: []string{topic, groups}})
	Must(err, "delete")
	Must(deleted.Errors[topic], "delete")
	gone, err := c.DeleteGroups(ctx, &kafka.DeleteGroupsRequest{GroupIDs: []string{"three-segment"}})
	Must(err, "delete group")
	Must(gone.Errors["three-segment"], "delete group")
	Step("delete groups and topics")
}
