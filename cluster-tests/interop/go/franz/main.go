// franz-go.
package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	. "callboard.test/interop/scene"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const topic, groups = "i-franz", "g-franz"

func client(opts ...kgo.Opt) *kgo.Client {
	c, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(os.Args[1])}, opts...)...)
	Must(err, "client")
	return c
}

func rec(i int) *kgo.Record {
	r := Of(i)
	return &kgo.Record{Topic: topic, Key: r.Key, Value: r.Value, Timestamp: r.Time, Headers: []kgo.RecordHeader{{Key: "n", Value: []byte(strconv.Itoa(i))}, {Key: "empty", Value: []byte{}}}}
}

func readAll(ctx context.Context, count int) {
	c := client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}))
	defer c.Close()
	for i := 0; i < count; {
		for _, r := range c.PollFetches(ctx).Records() {
			Check(i, r.Offset, r.Key, r.Value, r.Timestamp, string(r.Headers[0].Value))
			i++
		}
		Must(ctx.Err(), "read")
	}
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	c := client()
	adm := kadm.NewClient(c)
	day := "86400000"
	_, err := adm.CreateTopic(ctx, 1, 1, map[string]*string{"retention.ms": &day}, topic)
	Must(err, "create")
	_, err = adm.CreateTopic(ctx, Partitions-1, 1, nil, groups)
	Must(err, "create")
	grown, err := adm.UpdatePartitions(ctx, Partitions, groups)
	Must(err, "grow")
	Must(grown.Error(), "grow")
	mib := "1048576"
	altered, err := adm.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "segment.bytes", Value: &mib}}, topic)
	Must(err, "alter")
	Must(altered[0].Err, "alter")
	described, err := adm.DescribeTopicConfigs(ctx, topic)
	Must(err, "describe")
	found := map[string]string{}
	for _, e := range described[0].Configs {
		found[e.Key] = *e.Value
	}
	Same("configs", found["retention.ms"]+" "+found["segment.bytes"]+" "+found["cleanup.policy"], "86400000 1048576 delete")
	Step("admin")

	for n, codec := range []kgo.CompressionCodec{kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression()} {
		p := client(kgo.ProducerBatchCompression(codec))
		for i := n * PerCodec; i < (n+1)*PerCodec; i++ {
			p.Produce(ctx, rec(i), func(_ *kgo.Record, err error) { Must(err, "produce") })
		}
		Must(p.Flush(ctx), "flush")
		p.Close()
	}
	readAll(ctx, Total)
	Step("every codec, headers and timestamps")
	at, err := adm.ListOffsetsAfterMilli(ctx, Base.UnixMilli()+77, topic)
	Must(err, "by time")
	o, _ := at.Lookup(topic, 0)
	Same("offset by time", o.Offset, 77)
	Step("seek by time")
	offsets := kadm.Offsets{}
	offsets.Add(kadm.Offset{Topic: topic, Partition: 0, At: 120, LeaderEpoch: -1, Metadata: "a note"})
	Must(adm.CommitAllOffsets(ctx, "r-franz", offsets), "commit")
	committed, err := adm.FetchOffsets(ctx, "r-franz")
	Must(err, "committed")
	back, _ := committed.Lookup(topic, 0)
	Same("committed", fmt.Sprint(back.At, back.Metadata), fmt.Sprint(120, "a note"))
	r := client(kgo.ConsumerGroup("r-franz"), kgo.ConsumeTopics(topic))
	Same("resume", r.PollFetches(ctx).Records()[0].Offset, 120)
	r.Close()
	Step("commit and resume")

	var lock sync.Mutex
	seen, had := map[string]string{}, [3]bool{}
	member := func(n int, stop context.Context) *sync.WaitGroup {
		var done sync.WaitGroup
		done.Add(1)
		m := client(kgo.ConsumerGroup("three-franz"), kgo.ConsumeTopics(groups), kgo.SessionTimeout(6*time.Second), kgo.HeartbeatInterval(300*time.Millisecond),
			kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, a map[string][]int32) {
				lock.Lock()
				had[n] = had[n] || len(a[groups]) > 0
				lock.Unlock()
			}))
		go func() {
			defer done.Done()
			for stop.Err() == nil {
				fetches := m.PollFetches(stop)
				lock.Lock()
				fetches.EachRecord(func(r *kgo.Record) { seen[fmt.Sprint(r.Partition, ":", r.Offset)] = string(r.Value) })
				lock.Unlock()
			}
			_ = m.CommitUncommittedOffsets(ctx)
			m.Close()
		}()
		return &done
	}
	var stops [3]context.CancelFunc
	var waits [3]*sync.WaitGroup
	for n := range stops {
		stop, cancel := context.WithCancel(ctx)
		stops[n], waits[n] = cancel, member(n, stop)
	}
	count := func() int { lock.Lock(); defer lock.Unlock(); return len(seen) }
	Wait("three members with partitions", func() bool { lock.Lock(); defer lock.Unlock(); return had[0] && had[1] && had[2] })
	p := client(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	send := func(from, n int) {
		for i := range n {
			p.Produce(ctx, &kgo.Record{Topic: groups, Partition: int32(i % Partitions), Value: []byte(strconv.Itoa(from + i))}, func(_ *kgo.Record, err error) { Must(err, "produce") })
		}
		Must(p.Flush(ctx), "flush")
	}
	send(0, Records)
	Wait("all of the group", func() bool { return count() == Records })
	stops[2]()
	waits[2].Wait()
	send(Records, 60)
	Wait("all after one left", func() bool { return count() == Records+60 })
	for n := range 2 {
		stops[n]()
		waits[n].Wait()
	}
	values := map[string]bool{}
	for _, v := range seen {
		values[v] = true
	}
	Same("each record once", len(values), Records+60)
	Step("group of three with a rebalance")

	q := client()
	for i := Total; i < Total+50; i++ {
		q.Produce(ctx, rec(i), func(_ *kgo.Record, err error) { Must(err, "produce over a restart") })
		if i == Total+20 {
			Restart()
		}
	}
	Must(q.Flush(ctx), "flush")
	readAll(ctx, Total+50)
	Step("broker restart in the middle")
	cut := kadm.Offsets{}
	cut.Add(kadm.Offset{Topic: topic, Partition: 0, At: 100})
	deleted, err := adm.DeleteRecords(ctx, cut)
	Must(err, "delete records")
	d, _ := deleted.Lookup(topic, 0)
	Same("low watermark", d.LowWatermark, 100)
	gone, err := adm.DeleteGroups(ctx, "three-franz")
	Must(err, "delete group")
	Must(gone.Error(), "delete group")
	_, err = adm.DeleteTopics(ctx, topic, groups)
	Must(err, "delete topics")
	Step("delete records, groups and topics")
}
